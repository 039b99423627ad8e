//! From a model reference to a servable, by TensorFlow Serving's rules and in its words.
//!
//! Looking up and leasing is the resolver's; this file decides what version 0 means and how a failure reads.

use std::fmt;
use std::sync::Arc;

use millrace_core::{Code, ModelRef, Quoted, Reason, Refusal, RequestContext, Resolver, Servable, VersionChoice};

use super::status::{code, rest_status, rest_status_of_code};

/// A refusal as TensorFlow Serving puts it: its code, its REST status, its text.
#[derive(Debug, Clone)]
pub struct Failure {
    code: Code,
    rest_status: u16,
    refusal: Refusal,
}

impl Failure {
    /// A refusal whose code is not the one that its reason usually has.
    pub(super) fn with_code(code: Code, refusal: Refusal) -> Self {
        Self { code, rest_status: rest_status_of_code(code), refusal }
    }

    /// The canonical code, for gRPC and metrics.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The HTTP status.
    pub fn rest_status(&self) -> u16 {
        self.rest_status
    }

    /// The refusal: reason, public text, retry time and cause.
    pub fn refusal(&self) -> &Refusal {
        &self.refusal
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { code: code(refusal.reason()), rest_status: rest_status(refusal.reason()), refusal }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.refusal, f)
    }
}

/// What a request wants of a model, where the words for a failure differ by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// `predict`.
    Predict,
    /// `classify`.
    Classify,
    /// `regress`.
    Regress,
}

impl Verb {
    /// The name in URLs and metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Predict => "predict",
            Self::Classify => "classify",
            Self::Regress => "regress",
        }
    }
}

/// The version that `model` means now.
///
/// Version 0 names a version only where one exists; else it means that none was given. (Some clients always send 0.)
///
/// # Errors
/// A [`Failure`] in TensorFlow Serving's words. A model that is known but cannot serve yet reads as not found, as there.
pub fn resolve(
    resolver: &dyn Resolver,
    model: &ModelRef<'_>,
    context: &RequestContext,
) -> Result<Arc<dyn Servable>, Failure> {
    let first = resolver.resolve(model, context);
    let result = match (first, model.version) {
        (Err(refusal), VersionChoice::Number(0)) if refusal.reason() == Reason::VersionUnknown => {
            resolver.resolve(&ModelRef::new(model.name), context)
        }
        (first, _) => first,
    };
    result.map_err(|refusal| not_resolved(refusal, model))
}

fn not_resolved(refusal: Refusal, model: &ModelRef<'_>) -> Failure {
    let wanted = Wanted(model);
    let (code, message) = match refusal.reason() {
        Reason::ModelUnknown | Reason::VersionUnknown => {
            (Code::NotFound, format!("Servable not found for request: {wanted}"))
        }
        Reason::NotReady | Reason::Loading => {
            (Code::NotFound, format!("Servable not found for request: {wanted} ({refusal})"))
        }
        Reason::LabelUnknown => {
            let label = match model.version {
                VersionChoice::Label(label) => label,
                VersionChoice::Default | VersionChoice::Number(_) => "",
            };
            (Code::InvalidArgument, format!("Unrecognized servable version label: {}", Bare(label)))
        }
        Reason::SignatureUnknown
        | Reason::InvalidInput
        | Reason::Unsupported
        | Reason::TooLarge
        | Reason::QueueFull
        | Reason::RateLimited
        | Reason::Late
        | Reason::Cancelled
        | Reason::Draining
        | Reason::Exists
        | Reason::Conflict
        | Reason::Forbidden
        | Reason::Unauthenticated
        | Reason::BackendFailed
        | Reason::BackendBroken
        | Reason::NotSaved => return refusal.into(),
    };
    Failure::with_code(code, refusal.reworded(message))
}

/// The failure of a REST request that names a signature the model does not have.
pub fn signature_unknown(verb: Verb, name: &str) -> Failure {
    let name = Bare(name);
    let message = match verb {
        Verb::Predict => format!("Serving signature name: \"{name}\" not found in signature def"),
        Verb::Classify | Verb::Regress => format!("No signature was found with the name: {name}"),
    };
    Refusal::new(Reason::SignatureUnknown, message).into()
}

/// A model reference as TensorFlow Serving writes it.
struct Wanted<'a>(&'a ModelRef<'a>);

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Bare(self.0.name);
        match self.0.version {
            VersionChoice::Number(version) => write!(f, "Specific({name}, {version})"),
            VersionChoice::Default | VersionChoice::Label(_) => write!(f, "Latest({name})"),
        }
    }
}

/// Foreign text escaped and cut as [`Quoted`] does, without the quotes: clients look for the bare name.
#[derive(Debug, Clone, Copy)]
pub struct Bare<'a>(pub &'a str);

impl fmt::Display for Bare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = Quoted(self.0).to_string();
        f.write_str(quoted.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')).unwrap_or(&quoted))
    }
}

#[cfg(test)]
mod tests;
