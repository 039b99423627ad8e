//! What the general endpoints tell about models: which there are, and what each version has done.

use std::collections::BTreeMap;

use http::StatusCode;
use millrace_core::{Catalog, Reason, Refusal, VersionState, VersionStatus};
use millrace_protocol::tfs::Bare;
use serde::Serialize;

use super::failure;
use crate::error::Failure;
use crate::response::{Answer, json};

#[derive(Serialize)]
struct Metrics<'a> {
    metrics: ModelMetrics<'a>,
}

#[derive(Serialize)]
struct ModelMetrics<'a> {
    model_name: &'a str,
    version: String,
    is_loaded: bool,
    /// Seconds.
    load_time: Option<f64>,
    inference_count: u64,
    average_latency_ms: f64,
    /// Seconds.
    total_inference_time: f64,
}

/// `GET /models`: every model with the versions that can serve.
pub(super) fn models(catalog: &dyn Catalog) -> Answer {
    let models = catalog.models();
    let versions = |versions: &[VersionStatus]| -> Vec<String> {
        let available = versions.iter().filter(|version| version.state == VersionState::Available);
        available.map(|version| version.version.to_string()).collect()
    };
    let body: BTreeMap<_, _> = models.iter().map(|model| (model.name.as_str(), versions(&model.versions))).collect();
    document(&body)
}

/// `GET /models/{name}/metrics`: of the version asked for, or of the default one.
///
/// # Errors
/// 404 for a model or a version that is not known.
pub(super) fn metrics(catalog: &dyn Catalog, name: &str, version: Option<&str>) -> Result<Answer, Failure> {
    let unknown = || {
        let version = version.map(|version| format!(":{}", Bare(version))).unwrap_or_default();
        failure(Refusal::new(Reason::ModelUnknown, format!("Model {}{version} not found", Bare(name))))
    };
    let model = catalog.model(name).ok_or_else(unknown)?;
    let number = match version {
        Some(text) => text.parse().ok().or_else(|| model.aliases.get(text).copied()),
        None => model.default_version.or_else(|| model.versions.last().map(|version| version.version)),
    };
    let status = model.versions.iter().find(|known| Some(known.version) == number).ok_or_else(unknown)?;
    let answered = status.statistics.answered;
    let total = answered.time.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "an average is a float; 2^53 requests are enough")]
    let average_latency_ms = 1e3 * total / answered.count.max(1) as f64;
    Ok(document(&Metrics {
        metrics: ModelMetrics {
            model_name: model.name.as_str(),
            version: status.version.to_string(),
            is_loaded: status.state == VersionState::Available,
            load_time: status.load_time.map(|time| time.as_secs_f64()),
            inference_count: answered.count,
            average_latency_ms,
            total_inference_time: total,
        },
    }))
}

fn document(body: &impl Serialize) -> Answer {
    json(StatusCode::OK, serde_json::to_vec(body).expect("strings and numbers always become JSON"))
}
