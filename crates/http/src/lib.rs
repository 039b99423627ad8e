//! The HTTP front-end: TensorFlow Serving's REST API, health, metrics and the admin plane, over the traits of
//! `millrace-core`.
//!
//! [`http_service`] and [`admin_service`] give tower services. There is no listener here and no knowledge of what is
//! behind the traits: sockets, header limits and connections are the server's, models the registry's.
//!
//! The clock is tokio's: run the services inside a tokio runtime with time enabled.

#![forbid(unsafe_code)]

mod admin;
mod body;
mod budget;
mod clock;
mod config;
mod error;
mod gzip;
mod head;
mod health;
mod log;
pub mod metrics;
mod offload;
mod readiness;
mod response;
mod route;
mod service;
mod tfs;

pub use admin::{AdminParts, AdminService, admin_service};
pub use config::HttpConfig;
pub use readiness::{MetricsText, Readiness};
pub use response::ResponseBody;
pub use service::{ConnectionContext, HttpParts, HttpService, ServiceFuture, http_service};
