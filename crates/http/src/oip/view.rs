//! Metadata, configuration, statistics and the repository index as documents.

use std::collections::BTreeMap;

use http::StatusCode;
use millrace_core::Catalog;
use millrace_protocol::oip::{
    IndexEntry, IndexState, InferTotals, ModelConfig, ModelMetadata, ModelStatistics, ServerMetadata,
    StatisticDuration, TensorConfig, TensorMetadata,
};
use serde::Serialize;

use crate::response::{Answer, json};

#[derive(Serialize)]
struct Server<'a> {
    name: &'a str,
    version: &'a str,
    extensions: &'a [&'a str],
}

#[derive(Serialize)]
struct Models<'a> {
    models: Vec<&'a str>,
}

#[derive(Serialize)]
struct ModelReady<'a> {
    name: &'a str,
    ready: bool,
}

#[derive(Serialize)]
struct Metadata<'a> {
    name: &'a str,
    versions: Vec<String>,
    platform: &'a str,
    inputs: Vec<TensorView<'a>>,
    outputs: Vec<TensorView<'a>>,
}

#[derive(Serialize)]
struct TensorView<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [i64],
}

#[derive(Serialize)]
struct Config<'a> {
    name: &'a str,
    platform: &'a str,
    backend: &'a str,
    max_batch_size: i32,
    input: Vec<InputConfig<'a>>,
    output: Vec<OutputConfig<'a>>,
    instance_group: Vec<InstanceGroup<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dynamic_batching: Option<DynamicBatching>,
}

#[derive(Serialize)]
struct InputConfig<'a> {
    name: &'a str,
    data_type: &'static str,
    format: &'static str,
    dims: &'a [i64],
    optional: bool,
}

#[derive(Serialize)]
struct OutputConfig<'a> {
    name: &'a str,
    data_type: &'static str,
    dims: &'a [i64],
    label_filename: &'static str,
}

#[derive(Serialize)]
struct InstanceGroup<'a> {
    name: &'a str,
    kind: &'static str,
    count: i32,
}

#[derive(Serialize)]
struct DynamicBatching {
    max_queue_delay_microseconds: u64,
}

#[derive(Serialize)]
struct Statistics<'a> {
    model_stats: Vec<Version<'a>>,
}

#[derive(Serialize)]
struct Version<'a> {
    name: &'a str,
    version: &'a str,
    last_inference: u64,
    inference_count: u64,
    execution_count: u64,
    inference_stats: Totals,
    /// For decoupled models, of which there are none.
    response_stats: BTreeMap<String, ()>,
    batch_stats: Vec<Batch>,
    memory_usage: Vec<Memory>,
}

#[derive(Serialize)]
struct Totals {
    success: Duration,
    fail: Duration,
    queue: Duration,
    compute_input: Duration,
    compute_infer: Duration,
    compute_output: Duration,
    cache_hit: Duration,
    cache_miss: Duration,
}

#[derive(Serialize)]
struct Batch {
    batch_size: u64,
    compute_input: Duration,
    compute_infer: Duration,
    compute_output: Duration,
}

#[derive(Serialize)]
struct Duration {
    count: u64,
    ns: u64,
}

#[derive(Serialize)]
struct Memory {
    #[serde(rename = "type")]
    kind: &'static str,
    id: i64,
    byte_size: u64,
}

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
}

pub(super) fn server(metadata: &ServerMetadata) -> Answer {
    let ServerMetadata { name, version, extensions } = metadata;
    document(&Server { name, version, extensions })
}

/// Every known model, ready or not.
pub(super) fn models(catalog: &dyn Catalog) -> Answer {
    let models = catalog.models();
    document(&Models { models: models.iter().map(|model| model.name.as_str()).collect() })
}

pub(super) fn model_ready(name: &str, ready: bool) -> Answer {
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, text(&ModelReady { name, ready }))
}

pub(super) fn metadata(metadata: &ModelMetadata) -> Answer {
    fn tensors(tensors: &[TensorMetadata]) -> Vec<TensorView<'_>> {
        tensors.iter().map(|it| TensorView { name: &it.name, datatype: it.dtype.name(), shape: &it.sizes }).collect()
    }
    document(&Metadata {
        name: &metadata.name,
        versions: metadata.versions.iter().map(u64::to_string).collect(),
        platform: &metadata.platform,
        inputs: tensors(&metadata.inputs),
        outputs: tensors(&metadata.outputs),
    })
}

pub(super) fn config(config: &ModelConfig) -> Answer {
    let inputs = config.inputs.iter().map(|it| {
        let TensorConfig { name, dims, .. } = it;
        InputConfig { name, data_type: it.data_type(), format: "FORMAT_NONE", dims, optional: false }
    });
    let outputs = config.outputs.iter().map(|it| {
        let TensorConfig { name, dims, .. } = it;
        OutputConfig { name, data_type: it.data_type(), dims, label_filename: "" }
    });
    let groups = config.instance_count.iter();
    let delay = config.max_queue_delay_microseconds;
    document(&Config {
        name: &config.name,
        platform: &config.platform,
        backend: &config.backend,
        max_batch_size: config.max_batch_size,
        input: inputs.collect(),
        output: outputs.collect(),
        instance_group: groups.map(|&count| InstanceGroup { name: &config.name, kind: "KIND_CPU", count }).collect(),
        dynamic_batching: delay.map(|delay| DynamicBatching { max_queue_delay_microseconds: delay }),
    })
}

pub(super) fn statistics(statistics: &[ModelStatistics]) -> Answer {
    document(&Statistics { model_stats: statistics.iter().map(version).collect() })
}

fn version(statistics: &ModelStatistics) -> Version<'_> {
    let duration = |it: StatisticDuration| Duration { count: it.count, ns: it.ns };
    let InferTotals { success, fail, queue, compute_input, compute_infer, compute_output } = statistics.inference_stats;
    let never = StatisticDuration::default();
    Version {
        name: &statistics.name,
        version: &statistics.version,
        last_inference: statistics.last_inference,
        inference_count: statistics.inference_count,
        execution_count: statistics.execution_count,
        inference_stats: Totals {
            success: duration(success),
            fail: duration(fail),
            queue: duration(queue),
            compute_input: duration(compute_input),
            compute_infer: duration(compute_infer),
            compute_output: duration(compute_output),
            cache_hit: duration(never),
            cache_miss: duration(never),
        },
        response_stats: BTreeMap::new(),
        batch_stats: statistics
            .batch_stats
            .iter()
            .map(|row| Batch {
                batch_size: row.batch_size,
                compute_input: duration(row.compute_input),
                compute_infer: duration(row.compute_infer),
                compute_output: duration(row.compute_output),
            })
            .collect(),
        memory_usage: statistics
            .memory_usage
            .iter()
            .map(|it| Memory { kind: it.kind, id: it.id, byte_size: it.byte_size })
            .collect(),
    }
}

pub(super) fn index(entries: &[IndexEntry]) -> Answer {
    let entry = |it: &IndexEntry| (it.version.map(|version| version.to_string()), it.state.map(IndexState::name));
    let view = |it| {
        let (version, state) = entry(it);
        Entry { name: it.name.as_str(), version, state, reason: &it.reason }
    };
    document(&entries.iter().map(view).collect::<Vec<_>>())
}

fn document(body: &impl Serialize) -> Answer {
    json(StatusCode::OK, text(body))
}

fn text(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("strings and numbers always become JSON")
}
