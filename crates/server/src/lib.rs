//! The millrace model server as a library: configuration, listeners, draining, and the parts put together.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use millrace_server::{Server, ServerConfig};
//!
//! let server = Server::start(ServerConfig::repository("models")).await?;
//! server.ready().await;
//! println!("listening on {}", server.local_addr());
//! server.drain().await;
//! # Ok(())
//! # }
//! ```
//!
//! Only this crate reads flags, the environment and the configuration file; every other crate is handed settled values.
//! What requests mean is `millrace-http`'s, what is loaded `millrace-registry`'s.

#![forbid(unsafe_code)]

mod cli;
mod config;
mod exposition;
mod histograms;
mod log;
mod machine;
mod names;
mod net;
mod panics;
mod parts;
mod port;
mod server;
mod tfs;

pub use cli::run;
pub use config::engines::EnginesConfig;
pub use config::environment::Environment;
pub use config::error::ConfigError;
pub use config::listeners::Compat;
pub use config::{LogFormat, Platform, Ready, ServerConfig};
pub use millrace_grpc::GrpcConfig;
pub use millrace_http::{FrontConfig, HttpConfig, Roles};
pub use net::{Address, AddressError, BindError, ConnectionLimits};
pub use server::{Drained, Listening, Server, ServerBuilder, StartError};
