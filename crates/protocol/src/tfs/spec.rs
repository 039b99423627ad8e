//! Which model, version and signature a message means, as TensorFlow Serving's gRPC messages put it.

use millrace_core::{Code, ModelRef, Reason, Refusal, Servable, Signature, VersionChoice};

use super::resolve::{Bare, Failure};

/// A message's model specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModelSpec<'a> {
    /// The model's name.
    pub name: &'a str,
    /// The version, where one is chosen.
    pub version: Chosen<'a>,
    /// The signature's name; empty means the default one.
    pub signature: &'a str,
}

/// How a message chooses a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Chosen<'a> {
    /// It does not.
    #[default]
    Nothing,
    /// By its number, which is signed there.
    Version(i64),
    /// By a label.
    Label(&'a str),
}

impl<'a> ModelSpec<'a> {
    /// The model and version that `spec` means.
    ///
    /// # Errors
    /// A [`Failure`] where there is no specification, it names no model, or its version is negative: there is none such.
    pub fn model(spec: Option<&Self>) -> Result<ModelRef<'a>, Failure> {
        let spec = spec.ok_or_else(|| invalid("Missing ModelSpec"))?;
        if spec.name.is_empty() {
            return Err(invalid("ModelSpec has no name specified."));
        }
        let version = match spec.version {
            Chosen::Nothing => VersionChoice::Default,
            Chosen::Label(label) => VersionChoice::Label(label),
            Chosen::Version(number) => match u64::try_from(number) {
                Ok(number) => VersionChoice::Number(number),
                Err(_) => return Err(no_such_version(spec.name, number)),
            },
        };
        Ok(ModelRef { name: spec.name, version })
    }
}

fn invalid(message: &'static str) -> Failure {
    Refusal::new(Reason::InvalidInput, message).into()
}

fn no_such_version(name: &str, number: i64) -> Failure {
    let message = format!("Servable not found for request: Specific({}, {number})", Bare(name));
    Refusal::new(Reason::VersionUnknown, message).into()
}

/// The signature that a gRPC predict request names, and its position.
///
/// # Errors
/// A [`Failure`] that says which is missing; FAILED_PRECONDITION, unlike over REST and for classify and regress.
pub fn predict_signature<'a>(servable: &'a dyn Servable, name: &str) -> Result<(usize, &'a Signature), Failure> {
    servable.signatures().find(name).ok_or_else(|| {
        let message = format!("Serving signature key \"{}\" not found.", Bare(name));
        Failure::with_code(Code::FailedPrecondition, Refusal::new(Reason::SignatureUnknown, message))
    })
}

#[cfg(test)]
mod tests {
    use millrace_core::{Code, ModelRef};

    use super::{Chosen, ModelSpec};

    #[test]
    fn a_specification_names_a_model_and_a_version_that_could_be() {
        let spec = |name, version| ModelSpec { name, version, signature: "" };
        assert_eq!(ModelSpec::model(Some(&spec("m", Chosen::Nothing))).unwrap(), ModelRef::new("m"));
        assert_eq!(ModelSpec::model(Some(&spec("m", Chosen::Version(7)))).unwrap(), ModelRef::with_version("m", 7));
        assert_eq!(ModelSpec::model(Some(&spec("m", Chosen::Label("x")))).unwrap(), ModelRef::with_label("m", "x"));
        for (spec, code, message) in [
            (None, Code::InvalidArgument, "Missing ModelSpec"),
            (Some(spec("", Chosen::Nothing)), Code::InvalidArgument, "ModelSpec has no name specified."),
            (
                Some(spec("m\n", Chosen::Version(-1))),
                Code::NotFound,
                "Servable not found for request: Specific(m\\n, -1)",
            ),
        ] {
            let failure = ModelSpec::model(spec.as_ref()).unwrap_err();
            assert_eq!((failure.code(), failure.refusal().message()), (code, message));
        }
    }
}
