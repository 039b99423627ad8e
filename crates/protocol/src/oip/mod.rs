//! The Open Inference Protocol v2's rules that hold over REST and gRPC alike, with Triton's extensions: names, versions,
//! parameters, inputs, outputs, the layout of raw tensors, classification, and what metadata, configuration, statistics
//! and the repository index say.
//!
//! Views are plain data. JSON keys are the HTTP front-end's, protobuf fields the gRPC one's.
//!
//! The life of a request: [`resolve`] its model; [`Parameters`]; each input through [`Inputs`]; each requested output
//! through [`Outputs`]; [`Inputs::finish`] and [`Outputs::finish`]; ask the servable; [`OutputPlan::apply`] on what comes
//! back; [`raw_bytes`] where an output leaves in binary form.

mod classification;
mod datatype;
mod failure;
mod input;
mod model;
mod output;
mod parameter;
mod raw;
mod repository;
mod resolve;
mod server;
mod settings;
mod statistics;
mod words;

pub use classification::classify;
pub use datatype::{data_type_name, data_type_number, sizes_of, spec_sizes};
pub use failure::{Failure, code, http_status};
pub use input::{Declared, Inputs};
pub use model::{ModelConfig, ModelMetadata, TensorConfig, TensorMetadata, model_config, model_metadata, platform};
pub use output::{OutputParameters, OutputPlan, Outputs, PlannedOutput};
pub use parameter::{EMPTY_FINAL_RESPONSE, EXPLAIN_PARAMETER, Parameter, Parameters, TIMING_PARAMETER};
pub use raw::{raw_bytes, raw_len, strings_from_raw, tensor_from_raw};
pub use repository::{
    IndexEntry, IndexState, check_load_parameter, check_repository, load_failure, no_control, order_model,
    repository_index,
};
pub use resolve::{is_model_ready, parse_version, resolve, resolve_name};
pub use server::{SERVER_NAME, SERVER_VERSION, ServerMetadata};
pub use settings::{LogSettings, TRACE_SETTINGS, check_trace_setting, no_shared_memory};
pub use statistics::{
    BatchRow, InferTotals, MemoryUsage, ModelStatistics, StatisticDuration, model_statistics, ready_statistics,
};
