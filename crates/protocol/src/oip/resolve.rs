//! From a model's name and version text to a servable, and in which words that fails.
//!
//! Looking up and leasing is the resolver's. Version 0 means nothing special here: there is one or there is not.

use std::sync::Arc;

use millrace_core::{
    Catalog, ModelRef, Reason, Refusal, RequestContext, Resolver, Servable, VersionChoice, VersionState,
};

use super::failure::Failure;
use super::words::invalid;
use crate::tfs::Bare;

/// The version that a text means; none is the default version.
///
/// # Errors
/// `InvalidInput` unless the text is empty or a whole number of 64 bits, written without sign and leading zeros.
pub fn parse_version(text: &str) -> Result<VersionChoice<'static>, Refusal> {
    if text.is_empty() {
        return Ok(VersionChoice::Default);
    }
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    match text.parse() {
        Ok(number) if is_plain => Ok(VersionChoice::Number(number)),
        Ok(_) | Err(_) => {
            Err(invalid(format!("failed to get model version from '{}': expected a whole number", Bare(text))))
        }
    }
}

/// The servable that `name` and `version` mean now.
///
/// # Errors
/// Those of [`parse_version`] and [`resolve`].
pub fn resolve_name(
    resolver: &dyn Resolver,
    name: &str,
    version: &str,
    context: &RequestContext,
) -> Result<Arc<dyn Servable>, Failure> {
    let version = parse_version(version)?;
    resolve(resolver, &ModelRef { name, version }, context)
}

/// The servable that `model` means now.
///
/// # Errors
/// A [`Failure`] in Triton's words: not found for what is unknown, unavailable for what is known and cannot serve yet.
pub fn resolve(
    resolver: &dyn Resolver,
    model: &ModelRef<'_>,
    context: &RequestContext,
) -> Result<Arc<dyn Servable>, Failure> {
    resolver.resolve(model, context).map_err(|refusal| not_resolved(refusal, model))
}

fn not_resolved(refusal: Refusal, model: &ModelRef<'_>) -> Failure {
    let message = match refusal.reason() {
        Reason::ModelUnknown | Reason::VersionUnknown | Reason::LabelUnknown => {
            unknown(model, refusal.reason() == Reason::ModelUnknown)
        }
        Reason::NotReady | Reason::Loading => {
            let name = Bare(model.name);
            let why =
                if refusal.reason() == Reason::Loading { "its first version is loading" } else { "none can serve now" };
            format!("Model '{name}' has no available versions: {why}")
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
    refusal.reworded(message).into()
}

fn unknown(model: &ModelRef<'_>, is_whole: bool) -> String {
    let name = Bare(model.name);
    match model.version {
        VersionChoice::Number(version) if !is_whole => {
            format!("Request for unknown model: '{name}' version {version} is not found")
        }
        VersionChoice::Number(_) | VersionChoice::Default | VersionChoice::Label(_) => {
            format!("Request for unknown model: '{name}' is not found")
        }
    }
}

/// Whether the model, or the version of it that is asked for, can serve.
///
/// # Errors
/// A [`Failure`] for a model or version that is not known.
pub fn is_model_ready(catalog: &dyn Catalog, model: &ModelRef<'_>) -> Result<bool, Failure> {
    let not_found = |reason: Reason| Refusal::new(reason, unknown(model, reason == Reason::ModelUnknown));
    let status = catalog.model(model.name).ok_or_else(|| not_found(Reason::ModelUnknown))?;
    let number = match model.version {
        VersionChoice::Number(number) => number,
        VersionChoice::Default | VersionChoice::Label(_) => match status.default_version {
            Some(number) => number,
            None => return Ok(false),
        },
    };
    let version = status.versions.iter().find(|version| version.version == number);
    let version = version.ok_or_else(|| not_found(Reason::VersionUnknown))?;
    // A version that was scaled to nothing is loaded, and refuses every request.
    Ok(version.state == VersionState::Available && version.executors != Some(0))
}

#[cfg(test)]
mod tests {
    use millrace_core::{Catalog, ModelRef, ModelStatus, Reason, VersionChoice, VersionState, VersionStatus};

    use super::{is_model_ready, parse_version};

    #[derive(Debug)]
    struct One(ModelStatus);

    impl Catalog for One {
        fn models(&self) -> Vec<ModelStatus> {
            vec![self.0.clone()]
        }
        fn model(&self, name: &str) -> Option<ModelStatus> {
            (name == self.0.name.as_str()).then(|| self.0.clone())
        }
        fn is_ready(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_model_is_ready_when_its_version_takes_requests() {
        let ready = |state: VersionState, executors: Option<usize>, version: VersionChoice<'_>| {
            let status = VersionStatus { executors, ..VersionStatus::new(1, state) };
            let model = "m".parse().unwrap();
            let default_version = (state == VersionState::Available).then_some(1);
            let one = One(ModelStatus { versions: vec![status], default_version, ..ModelStatus::new(model) });
            is_model_ready(&one, &ModelRef { name: "m", version }).unwrap()
        };
        for version in [VersionChoice::Default, VersionChoice::Number(1)] {
            assert!(ready(VersionState::Available, None, version));
            assert!(ready(VersionState::Available, Some(2), version));
            assert!(!ready(VersionState::Available, Some(0), version), "scaled to nothing");
            assert!(!ready(VersionState::Loading, None, version));
        }
    }

    #[test]
    fn a_version_is_a_whole_number_or_nothing() {
        assert_eq!(parse_version("").unwrap(), VersionChoice::Default);
        assert_eq!(parse_version("12").unwrap(), VersionChoice::Number(12));
        assert_eq!(parse_version("0").unwrap(), VersionChoice::Number(0));
        for bad in ["-1", "+1", "01", "1.0", "stable", " 1", "18446744073709551616", "\u{661}"] {
            assert_eq!(parse_version(bad).unwrap_err().reason(), Reason::InvalidInput, "{bad}");
        }
    }
}
