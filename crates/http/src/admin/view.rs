//! Models as the admin port shows them: everything that is known, for people and scripts.

use std::collections::BTreeMap;

use http::StatusCode;
use millrace_core::{
    Catalog, EngineChoice, EngineOutcome, EngineRange, EngineTrial, ModelStatus, TensorSpec, VersionStatus,
};
use serde::Serialize;

use crate::response::{Answer, json};

#[derive(Serialize)]
struct Models<'a> {
    models: Vec<Model<'a>>,
}

#[derive(Serialize)]
struct Model<'a> {
    name: &'a str,
    ready: bool,
    default_version: Option<u64>,
    aliases: BTreeMap<&'a str, u64>,
    overrides: &'a [String],
    versions: Vec<Version<'a>>,
}

#[derive(Serialize)]
struct Version<'a> {
    version: u64,
    state: &'static str,
    error: Option<Error<'a>>,
    backend: Option<&'a str>,
    engines: Option<Engines<'a>>,
    signatures: BTreeMap<&'a str, Signature>,
    load_seconds: Option<f64>,
    memory_bytes: u64,
    statistics: Statistics,
}

#[derive(Serialize)]
struct Error<'a> {
    code: &'static str,
    message: &'a str,
}

/// How the engines were chosen that serve a version.
#[derive(Serialize)]
struct Engines<'a> {
    reason: &'a str,
    /// Which engine runs so many rows and more.
    ranges: Vec<Range<'a>>,
    /// Measured at an earlier load of the same files.
    remembered: bool,
    trial_seconds: f64,
    tried: Vec<Tried<'a>>,
}

#[derive(Serialize)]
struct Range<'a> {
    rows_from: usize,
    engine: &'a str,
}

#[derive(Serialize)]
struct Tried<'a> {
    engine: &'a str,
    /// `chosen`, `slower` or `dropped`.
    outcome: &'static str,
    /// Why it was dropped.
    dropped: Option<&'a str>,
    load_seconds: f64,
    memory_bytes: u64,
    /// Seconds of one run by its rows.
    run_seconds: BTreeMap<usize, f64>,
    difference: Option<Difference<'a>>,
}

/// To the engine that others were compared with.
#[derive(Serialize)]
struct Difference<'a> {
    output: &'a str,
    largest: f64,
    /// The largest absolute value of that output.
    scale: f64,
}

/// Tensors in the words of the serve table, such as `x FP32[N,4]`.
#[derive(Serialize)]
struct Signature {
    inputs: Vec<String>,
    outputs: Vec<String>,
}

#[derive(Serialize)]
struct Statistics {
    answered: u64,
    failed: u64,
    refused: u64,
    rows: u64,
    batches: u64,
    queue_seconds: f64,
    compute_seconds: f64,
}

/// `{"models": […]}`.
pub(super) fn models(catalog: &dyn Catalog) -> Answer {
    let models = catalog.models();
    document(&Models { models: models.iter().map(view).collect() })
}

/// One model.
pub(super) fn model(status: &ModelStatus) -> Answer {
    document(&view(status))
}

fn view(status: &ModelStatus) -> Model<'_> {
    Model {
        name: status.name.as_str(),
        ready: status.is_ready(),
        default_version: status.default_version,
        aliases: status.aliases.iter().map(|(alias, version)| (alias.as_str(), *version)).collect(),
        overrides: &status.overrides,
        versions: status.versions.iter().map(version).collect(),
    }
}

fn version(status: &VersionStatus) -> Version<'_> {
    let texts = |specs: &[TensorSpec]| specs.iter().map(TensorSpec::to_string).collect();
    let signatures = status.signatures.iter().flat_map(|signatures| signatures.iter());
    let statistics = &status.statistics;
    let runs = statistics.all_runs();
    Version {
        version: status.version,
        state: status.state.name(),
        error: status.failure.as_ref().map(|failure| Error { code: failure.code.name(), message: &failure.message }),
        backend: status.backend.as_deref(),
        engines: status.choice.as_deref().map(engines),
        signatures: signatures
            .map(|(name, signature)| {
                (name, Signature { inputs: texts(signature.inputs()), outputs: texts(signature.outputs()) })
            })
            .collect(),
        load_seconds: status.load_time.map(|time| time.as_secs_f64()),
        memory_bytes: status.memory_bytes,
        statistics: Statistics {
            answered: statistics.answered.count,
            failed: statistics.failed.count,
            refused: statistics.refused,
            rows: statistics.rows,
            batches: runs.count,
            queue_seconds: statistics.queue.time.as_secs_f64(),
            compute_seconds: runs.compute.as_secs_f64(),
        },
    }
}

fn engines(choice: &EngineChoice) -> Engines<'_> {
    Engines {
        reason: &choice.reason,
        ranges: choice.ranges.iter().map(range).collect(),
        remembered: choice.is_remembered,
        trial_seconds: choice.took.as_secs_f64(),
        tried: choice.engines.iter().map(tried).collect(),
    }
}

fn range(range: &EngineRange) -> Range<'_> {
    Range { rows_from: range.rows_from, engine: &range.engine }
}

fn tried(trial: &EngineTrial) -> Tried<'_> {
    let (outcome, dropped) = match &trial.outcome {
        EngineOutcome::Chosen => ("chosen", None),
        EngineOutcome::Slower => ("slower", None),
        EngineOutcome::Dropped(reason) => ("dropped", Some(reason.as_str())),
    };
    let difference = trial.difference.as_ref();
    Tried {
        engine: &trial.engine,
        outcome,
        dropped,
        load_seconds: trial.load_time.as_secs_f64(),
        memory_bytes: trial.memory_bytes,
        run_seconds: trial.times.iter().map(|run| (run.rows, run.time.as_secs_f64())).collect(),
        difference: difference.map(|found| Difference {
            output: &found.output,
            largest: found.largest,
            scale: found.scale,
        }),
    }
}

fn document(body: &impl Serialize) -> Answer {
    json(StatusCode::OK, serde_json::to_vec(body).expect("strings and numbers always become JSON"))
}
