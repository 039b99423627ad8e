//! What an operator may choose about the gRPC front-end, complete and typed. Reading flags and files is the server's.

use std::time::Duration;

/// Limits and switches of the gRPC front-end.
///
/// | field | default | unit, meaning |
/// |---|---|---|
/// | `max_message_bytes` | 64 MiB | largest message of a request, as sent and unpacked; above it RESOURCE_EXHAUSTED |
/// | `max_answer_bytes` | 256 MiB | largest message of an answer; above it RESOURCE_EXHAUSTED |
/// | `message_timeout` | 30 s | a message may take this long plus what `min_message_rate` allows |
/// | `min_message_rate` | 1024 | bytes per second that a message must keep up once `message_timeout` has passed |
/// | `request_timeout` | 30 s | from the end of an inference request to its answer; after it DEADLINE_EXCEEDED |
/// | `offload_bytes` | 128 KiB | larger messages that have to be converted or packed are on a compute thread |
/// | `compress_min_bytes` | 32 KiB | smallest answer that is packed for clients that pack theirs; `None` = never |
/// | `max_stream_requests` | 64 | requests of one stream that are at work at once |
/// | `server_timing` | false | answers of one message tell their stages in `server-timing` without being asked |
/// | `tfs_tensor_content` | false | TensorFlow Serving's answers carry `tensor_content` in place of lists of values |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcConfig {
    /// The largest message of a request in bytes, both as sent and after decompression.
    pub max_message_bytes: usize,
    /// The largest message of an answer in bytes, before compression.
    pub max_answer_bytes: usize,
    /// How long a message may take from its first byte to its last, whatever its size.
    pub message_timeout: Duration,
    /// Bytes per second a message must keep up to take longer than `message_timeout`. 0 means that it never may.
    pub min_message_rate: u64,
    /// How long from the end of an inference request to its answer.
    pub request_timeout: Duration,
    /// Messages above this many bytes are converted, compressed and decompressed on a compute thread.
    pub offload_bytes: usize,
    /// The smallest answer in bytes that is compressed for a client that compressed its request and accepts the same;
    /// `None` turns that off.
    pub compress_min_bytes: Option<usize>,
    /// How many requests of one stream may be at work at once; the next one is read when one of them is done.
    pub max_stream_requests: usize,
    /// Whether answers of one message tell their stages without being asked; a call may still switch that off.
    pub server_timing: bool,
    /// Whether TensorFlow Serving's answers carry numbers as `tensor_content` in place of typed lists.
    pub tfs_tensor_content: bool,
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self {
            max_message_bytes: 64 << 20,
            max_answer_bytes: 256 << 20,
            message_timeout: Duration::from_secs(30),
            min_message_rate: 1024,
            request_timeout: Duration::from_secs(30),
            offload_bytes: 128 << 10,
            compress_min_bytes: Some(32 << 10),
            max_stream_requests: 64,
            server_timing: false,
            tfs_tensor_content: false,
        }
    }
}
