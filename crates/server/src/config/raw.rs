//! The configuration as written: every key optional, in the operator's names and units.
//!
//! One struct serves the file and the environment; [`Raw::over`] lays a stronger source over a weaker one. Turning
//! names into types, and refusing, is `resolve`'s.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use serde::Deserialize;

use super::listeners::Compat;
use super::value::{Bytes, List, Span};
use super::{LogFormat, Platform, Ready};

/// Declares a section: a struct of optional keys, with the list of its keys and the merge.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$key_doc:meta])* $key:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct $name {
            $($(#[$key_doc])* pub(crate) $key: Option<$type>,)*
        }

        impl $name {
            pub(crate) const KEYS: &'static [&'static str] = &[$(stringify!($key)),*];

            /// Each key from `self` where it is set, else from `weaker`.
            pub(crate) fn over(self, weaker: Self) -> Self {
                Self { $($key: self.$key.or(weaker.$key),)* }
            }
        }
    };
}

/// Declares the whole: a struct of sections, with the table of their keys and the merge.
macro_rules! sections {
    ($($section:ident: $type:ident,)*) => {
        /// A whole `millrace.toml`.
        #[derive(Debug, Clone, Default, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct Raw {
            $(pub(crate) $section: $type,)*
        }

        impl Raw {
            /// Every section and its keys.
            pub(crate) const KEYS: &'static [(&'static str, &'static [&'static str])] =
                &[$((stringify!($section), $type::KEYS)),*];

            /// Each key from `self` where it is set, else from `weaker`.
            pub(crate) fn over(self, weaker: Self) -> Self {
                Self { $($section: self.$section.over(weaker.$section),)* }
            }
        }
    };
}

sections! {
    server: RawServer,
    limits: RawLimits,
    registry: RawRegistry,
    engines: RawEngines,
    batching: RawBatching,
    compute: RawCompute,
    log: RawLog,
    metrics: RawMetrics,
}

section! {
    RawServer {
        listen: List<String>,
        admin: List<String>,
        metrics: List<String>,
        compat: List<Compat>,
        admin_on_data_plane: bool,
        platform: Platform,
        reuse_port: bool,
        socket_mode: String,
        drain_delay: Span,
        drain_timeout: Span,
        request_timeout: Span,
        ready: Ready,
        server_timing: bool,
        cors: bool,
        gzip_min_bytes: Bytes,
        offload_bytes: Bytes,
        tfs_tensor_content: bool,
    }
}

section! {
    RawLimits {
        max_body_bytes: Bytes,
        max_decompressed_bytes: Bytes,
        max_grpc_message_bytes: Bytes,
        max_json_depth: usize,
        max_client_batch_size: NonZeroUsize,
        max_receiving_bytes: Bytes,
        max_answer_bytes: Bytes,
        max_unsent_bytes: Bytes,
        max_connections: NonZeroUsize,
        max_header_bytes: Bytes,
        max_headers: NonZeroUsize,
        max_streams: NonZeroU32,
        max_stream_requests: NonZeroUsize,
        max_connection_age: Span,
        max_connection_grace: Span,
        header_timeout: Span,
        body_timeout: Span,
        min_body_rate: Bytes,
        idle_timeout: Span,
        write_timeout: Span,
    }
}

section! {
    RawRegistry {
        repository: PathBuf,
        model_config_file: PathBuf,
        stores: Vec<PathBuf>,
        watch: bool,
        poll_interval: Span,
        quiet_period: Span,
        state_dir: PathBuf,
        memory_budget: Bytes,
        max_model_bytes: Bytes,
        load_threads: NonZeroUsize,
        retry_first: Span,
        retry_max: Span,
    }
}

section! {
    RawEngines {
        onnxruntime_library: PathBuf,
        budget: Span,
        remember: bool,
    }
}

section! {
    RawBatching {
        enabled: bool,
        max_batch_size: NonZeroUsize,
        max_batch_tokens: NonZeroUsize,
        batch_timeout_micros: u64,
        max_enqueued_batches: NonZeroUsize,
        num_batch_threads: NonZeroUsize,
        allowed_batch_sizes: Vec<NonZeroUsize>,
        preferred_batch_size: Vec<NonZeroUsize>,
        max_queue_delay_microseconds: u64,
        latency_goal: Span,
        enable_large_batch_splitting: bool,
        max_queue_rows: NonZeroUsize,
        max_queue_bytes: Bytes,
        max_queue_time: Span,
        parameters_file: PathBuf,
    }
}

section! {
    RawCompute {
        threads: NonZeroUsize,
        max_replacements: usize,
        hang_grace: Span,
        hang_factor: u32,
        hang_unknown: Span,
        max_jobs: NonZeroUsize,
    }
}

section! {
    RawLog {
        format: LogFormat,
        level: String,
    }
}

section! {
    RawMetrics {
        max_series: usize,
    }
}
