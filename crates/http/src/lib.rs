//! The HTTP front-end: every REST protocol, health, metrics and the admin plane, over the traits of `millrace-core`.
//!
//! [`http_service`] gives a tower service. There is no listener here and no knowledge of what is behind the traits:
//! sockets, header limits and connections are the server's, models the registry's. What a listener is for, it says with
//! each request, in a [`ConnectionContext`].
//!
//! The clock is tokio's: run the services inside a tokio runtime with time enabled.

#![forbid(unsafe_code)]

mod admin;
mod body;
mod coding;
mod config;
mod error;
mod exchange;
mod general;
mod head;
mod health;
mod kserve;
mod oip;
mod openapi;
mod platform;
mod response;
mod route;
mod service;
mod text;
mod tfs;
mod torchserve;

pub use config::HttpConfig;
pub use millrace_protocol::front::{ConnectionContext, Front, FrontConfig, MetricsText, Readiness, Roles};
pub use platform::{SageMakerConfig, VertexConfig};
pub use response::ResponseBody;
pub use service::{HttpParts, HttpService, ServiceFuture, http_service};
