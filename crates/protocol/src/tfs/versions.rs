//! Which versions a status request is told about.

use millrace_core::{Catalog, ModelRef, ModelStatus, Reason, Refusal, VersionChoice};

use super::resolve::{Bare, Failure};

/// The model that a status request means, with no more versions than it asks for. A label filters nothing, as in
/// TensorFlow Serving; version 0 means that none was given, unless there is one.
///
/// # Errors
/// A [`Failure`] for a model or a version that is not known.
pub fn model_status(catalog: &dyn Catalog, wanted: &ModelRef<'_>) -> Result<ModelStatus, Failure> {
    let name = Bare(wanted.name);
    let Some(mut model) = catalog.model(wanted.name) else {
        return Err(Refusal::new(Reason::ModelUnknown, format!("Could not find any versions of model {name}")).into());
    };
    if let VersionChoice::Number(number) = wanted.version {
        let is_known = model.versions.iter().any(|status| status.version == number);
        if !is_known && number != 0 {
            let text = format!("Could not find version {number} of model {name}");
            return Err(Refusal::new(Reason::VersionUnknown, text).into());
        }
        model.versions.retain(|status| !is_known || status.version == number);
    }
    Ok(model)
}

#[cfg(test)]
mod tests {
    use millrace_core::{Catalog, Code, ModelRef, ModelStatus, VersionState, VersionStatus};

    use super::model_status;

    #[derive(Debug)]
    struct Versions(&'static [u64]);

    impl Catalog for Versions {
        fn models(&self) -> Vec<ModelStatus> {
            self.model("m").into_iter().collect()
        }
        fn model(&self, name: &str) -> Option<ModelStatus> {
            let mut model = ModelStatus::new("m".parse().unwrap());
            model.versions = self.0.iter().map(|number| VersionStatus::new(*number, VersionState::Available)).collect();
            (name == "m").then_some(model)
        }
        fn is_ready(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_version_that_is_named_is_the_only_one_shown() {
        let ask = |versions, wanted: ModelRef<'_>| {
            let status = model_status(&Versions(versions), &wanted);
            status.map(|model| model.versions.iter().map(|status| status.version).collect::<Vec<_>>())
        };
        assert_eq!(ask(&[1, 2], ModelRef::new("m")).unwrap(), [1, 2]);
        assert_eq!(ask(&[1, 2], ModelRef::with_version("m", 2)).unwrap(), [2]);
        assert_eq!(ask(&[1, 2], ModelRef::with_label("m", "any")).unwrap(), [1, 2]);
        assert_eq!(ask(&[1, 2], ModelRef::with_version("m", 0)).unwrap(), [1, 2]);
        assert_eq!(ask(&[0, 2], ModelRef::with_version("m", 0)).unwrap(), [0]);
        for (wanted, text) in [
            (ModelRef::with_version("m", 7), "Could not find version 7 of model m"),
            (ModelRef::new("n"), "Could not find any versions of model n"),
        ] {
            let failure = ask(&[1], wanted).unwrap_err();
            assert_eq!((failure.code(), failure.refusal().message()), (Code::NotFound, text));
        }
    }
}
