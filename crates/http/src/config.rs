//! What an operator may choose about the HTTP front-end, complete and typed. Reading flags and files is the server's.

use std::time::Duration;

use crate::platform::{SageMakerConfig, VertexConfig};

/// Limits and switches of the HTTP front-end.
///
/// | field | default | unit, meaning |
/// |---|---|---|
/// | `max_body_bytes` | 128 MiB | largest request body as sent; above it 413 |
/// | `max_decompressed_bytes` | 256 MiB | largest request body after gunzip; above it 413 |
/// | `max_answer_bytes` | 256 MiB | largest answer as text; above it 413 |
/// | `body_timeout` | 30 s | a body may take this long plus what `min_body_rate` allows; after it 408 |
/// | `min_body_rate` | 1024 | bytes per second that a body must keep up once `body_timeout` has passed |
/// | `max_json_depth` | 64 | nesting of arrays and objects in JSON that no signature explains |
/// | `max_client_batch_size` | 1024 | texts of one request to the routes of text models; above it 413 |
/// | `request_timeout` | 30 s | from the end of the body to the answer; after it 504 |
/// | `offload_bytes` | 128 KiB | larger bodies and answers are decoded and encoded on a compute thread |
/// | `gzip_min_bytes` | 32 KiB | answers from this size on are gzipped for clients that accept it; `None` = never |
/// | `server_timing` | false | answers tell their stages in `Server-Timing` without being asked |
/// | `cors` | false | TensorFlow Serving's CORS headers and `OPTIONS` answers |
/// | `sagemaker` | `None` | SageMaker's routes |
/// | `vertex` | `None` | Vertex AI's routes |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// The largest request body in bytes, as sent.
    pub max_body_bytes: u64,
    /// The largest request body in bytes, after gunzip.
    pub max_decompressed_bytes: u64,
    /// The largest answer in bytes, as text and before gzip.
    pub max_answer_bytes: usize,
    /// How long a body may take whatever its size.
    pub body_timeout: Duration,
    /// Bytes per second a body must keep up to take longer than `body_timeout`. 0 means that it never may.
    pub min_body_rate: u64,
    /// The deepest nesting of JSON arrays and objects outside of tensors.
    pub max_json_depth: usize,
    /// The most texts of one request to the routes of text models.
    pub max_client_batch_size: usize,
    /// How long from the end of the body to the answer.
    pub request_timeout: Duration,
    /// Bodies and answers above this many bytes are decoded and encoded on a compute thread.
    pub offload_bytes: usize,
    /// The smallest answer in bytes that is gzipped for clients that accept it; `None` turns that off.
    pub gzip_min_bytes: Option<usize>,
    /// Whether answers tell their stages without being asked; a request may still switch that off.
    pub server_timing: bool,
    /// Whether browsers of other origins may read the answers.
    pub cors: bool,
    /// SageMaker's routes, where they are wanted; its `/models` then stands in for the general one.
    pub sagemaker: Option<SageMakerConfig>,
    /// Vertex AI's routes, where they are wanted. They go before all others.
    pub vertex: Option<VertexConfig>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            max_body_bytes: 128 << 20,
            max_decompressed_bytes: 256 << 20,
            max_answer_bytes: 256 << 20,
            body_timeout: Duration::from_secs(30),
            min_body_rate: 1024,
            max_json_depth: 64,
            max_client_batch_size: 1024,
            request_timeout: Duration::from_secs(30),
            offload_bytes: 128 << 10,
            // Most answers are a few numbers; below this size compressing costs more than sending.
            gzip_min_bytes: Some(32 << 10),
            server_timing: false,
            cors: false,
            sagemaker: None,
            vertex: None,
        }
    }
}
