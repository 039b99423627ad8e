//! TorchServe's rules that hold over REST and gRPC alike: version strings, errors, management orders, and the texts that
//! both carry word for word.
//!
//! TorchServe's management answers are JSON text over gRPC too, so that one text is written here. Inference bodies are
//! the front-ends'.

mod failure;
mod manage;
mod order;
mod resolve;
mod text;
mod view;

pub use failure::{Failure, kind, kind_of, rest_status};
pub use manage::{Done, PATIENCE, describe, list, register, scale, set_default, unregister};
pub use order::{Page, Register, Scale};
pub use resolve::{find_version, not_served, resolve, written_version};
pub use text::{describe_text, error_text, list_text, status_text};
pub use view::{ModelEntry, ModelPage, VersionView, Worker};

/// The text of a healthy or an unhealthy server, over REST and gRPC.
pub const fn health_text(is_healthy: bool) -> &'static str {
    if is_healthy { "{\n  \"status\": \"Healthy\"\n}\n" } else { "{\n  \"status\": \"Unhealthy\"\n}\n" }
}

#[cfg(test)]
mod tests;
