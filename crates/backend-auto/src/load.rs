//! Loads with one engine among several: its own options, a panic that stays its own, and what is told when none loads.

use std::sync::Arc;
use std::time::Duration;

use millrace_core::{Backend, LoadError, LoadErrorKind, Model, ModelSource, own_options};

use crate::Clock;
use crate::runner::contained;

/// What an engine made of the files.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) name: &'static str,
    pub(crate) model: Arc<dyn Model>,
    pub(crate) load_time: Duration,
}

/// Loads `source` with `engine`, which may take `memory` bytes.
pub(crate) fn load(
    engine: &dyn Backend,
    source: &ModelSource,
    memory: u64,
    all: &[&'static str],
    clock: &Clock,
) -> Result<Loaded, LoadError> {
    let start = clock.now();
    let own = ModelSource {
        memory_budget: memory,
        options: own_options(&source.options, engine.name(), all),
        ..source.clone()
    };
    match contained(|| engine.load(&own)) {
        Ok(model) => Ok(Loaded { name: engine.name(), model: model?, load_time: clock.since(start) }),
        Err(text) => {
            tracing::warn!(model = %source.model, version = source.version, engine = engine.name(), "the engine panicked while loading: {text}");
            Err(LoadError::new(LoadErrorKind::Engine, "the engine panicked while loading"))
        }
    }
}

/// The one error to tell where no engine loads. A single engine's is told as it is; whoever says that the files are not
/// for it says nothing to the operator where another has more to say.
pub(crate) fn none_loaded(mut failures: Vec<(&'static str, LoadError)>) -> LoadError {
    let telling = failures.iter().filter(|(_, error)| error.kind() != LoadErrorKind::Foreign).count();
    if telling > 0 {
        failures.retain(|(_, error)| error.kind() != LoadErrorKind::Foreign);
    }
    let Some((_, first)) = failures.first() else {
        return LoadError::new(LoadErrorKind::Unsupported, "there is no engine to load with");
    };
    if failures.iter().all(|(_, error)| error.to_string() == first.to_string()) {
        return failures.swap_remove(0).1;
    }
    // A defect of an engine says least about the files.
    let kind = failures.iter().map(|(_, error)| error.kind()).find(|kind| *kind != LoadErrorKind::Engine);
    let texts: Vec<String> = failures.iter().map(|(name, error)| format!("{name}: {error}")).collect();
    LoadError::new(kind.unwrap_or(LoadErrorKind::Engine), texts.join("; "))
}

#[cfg(test)]
mod tests {
    use millrace_core::{LoadError, LoadErrorKind};

    use super::none_loaded;

    #[test]
    fn the_error_tells_each_engine_s_reason_once() {
        use LoadErrorKind::{Engine, Foreign, Invalid, Unsupported};
        let check = |failures: &[(&'static str, LoadErrorKind, &str)], kind: LoadErrorKind, text: &str| {
            let failures = failures.iter().map(|(name, kind, text)| (*name, LoadError::new(*kind, *text))).collect();
            let error = none_loaded(failures);
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, text));
        };
        check(&[("trees", Foreign, "a network"), ("tract", Invalid, "cut off")], Invalid, "cut off");
        check(&[("trees", Invalid, "cut off"), ("tract", Invalid, "cut off")], Invalid, "cut off");
        check(
            &[("trees", Engine, "panicked"), ("tract", Unsupported, "no operator X")],
            Unsupported,
            "trees: panicked; tract: no operator X",
        );
        check(
            &[("trees", Foreign, "a network"), ("tract", Foreign, "trees")],
            Foreign,
            "trees: a network; tract: trees",
        );
        check(&[], Unsupported, "there is no engine to load with");
    }
}
