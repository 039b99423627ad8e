//! Metadata, configuration and statistics of models as messages.

use millrace_core::ModelRef;
use millrace_proto::inference::model_config::SchedulingChoice;
use millrace_proto::inference::model_instance_group::Kind;
use millrace_proto::inference::model_metadata_response::TensorMetadata;
use millrace_proto::inference::{
    InferBatchStatistics, InferStatistics, MemoryUsage, ModelConfig, ModelConfigRequest, ModelConfigResponse,
    ModelDynamicBatching, ModelInput, ModelInstanceGroup, ModelMetadataRequest, ModelMetadataResponse, ModelOutput,
    ModelStatistics, ModelStatisticsRequest, ModelStatisticsResponse, StatisticDuration,
};
use millrace_protocol::oip;

use super::{Answered, context, failure};
use crate::call::Call;
use crate::service::Shared;

pub(super) fn metadata(
    shared: &Shared,
    call: Call<'_>,
    request: &ModelMetadataRequest,
) -> Answered<ModelMetadataResponse> {
    let parts = &shared.parts;
    let version = oip::parse_version(&request.version).map_err(failure)?;
    let model = ModelRef { name: &request.name, version };
    let metadata = oip::model_metadata(&*parts.resolver, &*parts.catalog, &model, &context(call))?;
    let tensors = |tensors: Vec<oip::TensorMetadata>| {
        let one = |tensor: oip::TensorMetadata| TensorMetadata {
            name: tensor.name,
            datatype: tensor.dtype.name().to_owned(),
            shape: tensor.sizes,
        };
        tensors.into_iter().map(one).collect()
    };
    Ok(ModelMetadataResponse {
        name: metadata.name,
        versions: metadata.versions.iter().map(u64::to_string).collect(),
        platform: metadata.platform,
        inputs: tensors(metadata.inputs),
        outputs: tensors(metadata.outputs),
        properties: std::collections::HashMap::new(),
    })
}

pub(super) fn config(shared: &Shared, call: Call<'_>, request: &ModelConfigRequest) -> Answered<ModelConfigResponse> {
    let parts = &shared.parts;
    let version = oip::parse_version(&request.version).map_err(failure)?;
    let model = ModelRef { name: &request.name, version };
    let config = oip::model_config(&*parts.resolver, &*parts.catalog, &model, &context(call))?;
    let input = |tensor: oip::TensorConfig| ModelInput {
        name: tensor.name,
        data_type: oip::data_type_number(tensor.dtype),
        dims: tensor.dims,
        ..ModelInput::default()
    };
    let output = |tensor: oip::TensorConfig| ModelOutput {
        name: tensor.name,
        data_type: oip::data_type_number(tensor.dtype),
        dims: tensor.dims,
        ..ModelOutput::default()
    };
    let batching = config.max_queue_delay_microseconds.map(|max_queue_delay_microseconds| {
        SchedulingChoice::DynamicBatching(ModelDynamicBatching {
            max_queue_delay_microseconds,
            ..ModelDynamicBatching::default()
        })
    });
    let group = |count| ModelInstanceGroup { name: config.name.clone(), kind: Kind::Cpu.into(), count };
    let config = ModelConfig {
        instance_group: config.instance_count.map(group).into_iter().collect(),
        name: config.name,
        platform: config.platform,
        backend: config.backend,
        version_policy: None,
        max_batch_size: config.max_batch_size,
        input: config.inputs.into_iter().map(input).collect(),
        output: config.outputs.into_iter().map(output).collect(),
        scheduling_choice: batching,
    };
    Ok(ModelConfigResponse { config: Some(config) })
}

pub(super) fn statistics(
    shared: &Shared,
    _call: Call<'_>,
    request: &ModelStatisticsRequest,
) -> Answered<ModelStatisticsResponse> {
    let catalog = &*shared.parts.catalog;
    let statistics = if request.name.is_empty() {
        oip::ready_statistics(catalog)
    } else {
        let version = oip::parse_version(&request.version).map_err(failure)?;
        oip::model_statistics(catalog, &ModelRef { name: &request.name, version })?
    };
    Ok(ModelStatisticsResponse { model_stats: statistics.into_iter().map(view).collect() })
}

fn view(statistics: oip::ModelStatistics) -> ModelStatistics {
    let duration =
        |duration: oip::StatisticDuration| Some(StatisticDuration { count: duration.count, ns: duration.ns });
    let totals = statistics.inference_stats;
    let row = |row: oip::BatchRow| InferBatchStatistics {
        batch_size: row.batch_size,
        compute_input: duration(row.compute_input),
        compute_infer: duration(row.compute_infer),
        compute_output: duration(row.compute_output),
    };
    let memory = |usage: oip::MemoryUsage| MemoryUsage {
        r#type: usage.kind.to_owned(),
        id: usage.id,
        byte_size: usage.byte_size,
    };
    ModelStatistics {
        name: statistics.name,
        version: statistics.version,
        last_inference: statistics.last_inference,
        inference_count: statistics.inference_count,
        execution_count: statistics.execution_count,
        inference_stats: Some(InferStatistics {
            success: duration(totals.success),
            fail: duration(totals.fail),
            queue: duration(totals.queue),
            compute_input: duration(totals.compute_input),
            compute_infer: duration(totals.compute_infer),
            compute_output: duration(totals.compute_output),
            cache_hit: duration(oip::StatisticDuration::default()),
            cache_miss: duration(oip::StatisticDuration::default()),
        }),
        batch_stats: statistics.batch_stats.into_iter().map(row).collect(),
        memory_usage: statistics.memory_usage.into_iter().map(memory).collect(),
        response_stats: std::collections::HashMap::new(),
    }
}
