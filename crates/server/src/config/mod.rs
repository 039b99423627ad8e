//! What the server is told: complete, typed, with defaults; and how flags, environment and files become that.
//!
//! Two stages: `raw` holds what was written, in the operator's names and units; `resolve` turns it into
//! [`ServerConfig`] and refuses what cannot be. What hosting platforms say by variables is in `platform`, and which
//! listeners come of it all in `listeners`. The environment arrives as a map.

pub(crate) mod engines;
pub(crate) mod environment;
pub(crate) mod error;
pub(crate) mod listeners;
mod platform;
pub(crate) mod raw;
pub(crate) mod resolve;
pub(crate) mod value;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use millrace_batching::PoolConfig;
use millrace_grpc::GrpcConfig;
use millrace_http::{FrontConfig, HttpConfig};
use millrace_registry::{ModelSet, RegistryConfig};
use serde::Deserialize;

use self::engines::EnginesConfig;
use self::listeners::Compat;
use crate::net::{Address, ConnectionLimits};

/// Everything that [`Server::start`](crate::Server::start) is told. [`ServerConfig::repository`] has the defaults.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The addresses for clients, every protocol on each; at least one. Port 0 lets the system choose. Default:
    /// `0.0.0.0:8080`.
    pub listen: Vec<Address>,
    /// The addresses for operators; none for no admin listener. Default: `127.0.0.1:8081`.
    pub admin: Vec<Address>,
    /// Addresses that show metrics and health and nothing else. Default: none; the others show them too.
    pub metrics: Vec<Address>,
    /// The servers whose ports are opened besides, on the hosts of `listen` and `admin`. Default: none.
    pub compat: Vec<Compat>,
    /// Whether the repository verbs of the Open Inference Protocol and the reload of TensorFlow Serving are taken from
    /// clients too. TorchServe's management never is. Default: no.
    pub admin_on_data_plane: bool,
    /// Whether other processes may listen on the same addresses, for restarts that overlap. Default: no.
    pub reuse_port: bool,
    /// The permissions of the files of Unix sockets. Default: `0o660`.
    pub socket_mode: u32,
    /// How long requests are still served once draining has begun, so that load balancers notice. Default: 0.
    pub drain_delay: Duration,
    /// How long requests in flight may take after that. Default: 30 s.
    pub drain_timeout: Duration,
    /// When the server counts as ready. Default: [`Ready::Settled`].
    pub ready: Ready,
    /// Limits of connections.
    pub connections: ConnectionLimits,
    /// Limits that all protocols share.
    pub front: FrontConfig,
    /// Limits and switches of the HTTP front-end.
    pub http: HttpConfig,
    /// Limits and switches of the gRPC front-end.
    pub grpc: GrpcConfig,
    /// Where models lie and how they live.
    pub registry: RegistryConfig,
    /// The engines, and how one is chosen among them.
    pub engines: EnginesConfig,
    /// The compute threads.
    pub pool: PoolConfig,
}

impl ServerConfig {
    /// The defaults for `models`.
    pub fn new(models: ModelSet) -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)).into()],
            admin: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)).into()],
            metrics: Vec::new(),
            compat: Vec::new(),
            admin_on_data_plane: false,
            reuse_port: false,
            socket_mode: 0o660,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(30),
            ready: Ready::Settled,
            connections: ConnectionLimits::default(),
            front: FrontConfig::default(),
            http: HttpConfig::default(),
            grpc: GrpcConfig::default(),
            registry: RegistryConfig::new(models),
            engines: EnginesConfig::default(),
            pool: PoolConfig::default(),
        }
    }

    /// The defaults for every model below the folder `path`.
    pub fn repository(path: impl Into<PathBuf>) -> Self {
        Self::new(ModelSet::Repository(path.into()))
    }
}

/// When the server counts as ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Ready {
    /// When every wanted version is available or has failed.
    #[default]
    Settled,
    /// When, besides, none has failed.
    All,
}

/// The hosting platform whose contract is kept besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Platform {
    /// Amazon SageMaker: `/invocations`, and its multi-model verbs.
    Sagemaker,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One line of text per event.
    Text,
    /// One JSON object per line.
    Json,
}
