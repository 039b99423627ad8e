//! The server as a part: listeners, front-end, registry and compute pool put together, and taken down in order.
//!
//! It runs on the tokio runtime that starts it. Flags, signals and what is printed are the binary's.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use millrace_batching::ComputePool;
use millrace_core::{Backend, Catalog, Control, InputAdapterFactory, ModelStatus, PipelineFactory, TextFactory};
use millrace_grpc::{GrpcParts, grpc_service};
use millrace_http::{Front, FrontConfig, HttpParts, Readiness, Roles, http_service};
use millrace_registry::{Parts, Registry, RegistryError};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::config::error::ConfigError;
use crate::config::listeners::{ListenerConfig, listeners};
use crate::config::{Ready, ServerConfig};
use crate::exposition::Exposition;
use crate::net::{Acceptor, Address, BindError, BindOptions, Listener, Open, Phase, Phases, bind};
use crate::parts::{Choosing, built_in, missing_engines};
use crate::port::Port;

/// How long a cut-off client gets to take its 503.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long the registry may take to stop its threads. A load that hangs is left behind.
const REGISTRY_STOP: Duration = Duration::from_secs(2);

/// A running server. Dropping it stops it at once; [`Server::drain`] stops it in good order.
pub struct Server {
    listening: Vec<Listening>,
    registry: Registry,
    catalog: Arc<dyn Catalog>,
    readiness: Readiness,
    phases: Phases,
    open: Open,
    late: Open,
    /// Listeners.
    accepting: Open,
    drain_delay: Duration,
    drain_timeout: Duration,
    tasks: Vec<JoinHandle<()>>,
}

/// One of the addresses that a server listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// Where; the port is the one that the system chose, where it was to choose.
    pub address: Address,
    /// What is answered there.
    pub roles: Roles,
}

/// Puts a [`Server`] together.
#[derive(Debug)]
pub struct ServerBuilder {
    config: ServerConfig,
    parts: Parts,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration asks for listeners that cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The registry refused.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The program was built without any engine and was given none.
    #[error(
        "this program was built without a backend: no model could be loaded; build it with the features `tract`, `trees` and `candle`"
    )]
    NoBackend,
    /// A listener's own address could not be read.
    #[error("cannot read a listener's address")]
    Address(#[source] io::Error),
}

/// How draining ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every request in flight was answered.
    Complete,
    /// Some requests were cut off with a 503.
    Cut,
}

impl ServerBuilder {
    /// Adds an engine. Engines are asked in the order added; those that the program was built with come last.
    #[must_use]
    pub fn backend(mut self, backend: Arc<dyn Backend>) -> Self {
        self.parts.backends.push(backend);
        self
    }

    /// Adds a kind of pipeline for `kind = "pipeline"` in a `model.toml`. One of the same name goes before a built-in one.
    #[must_use]
    pub fn pipeline(mut self, factory: Arc<dyn PipelineFactory>) -> Self {
        self.parts.pipelines.push(factory);
        self
    }

    /// Adds a form of input for `[inputs.NAME]` in a `model.toml`. One of the same name goes before a built-in one.
    #[must_use]
    pub fn input(mut self, factory: Arc<dyn InputAdapterFactory>) -> Self {
        self.parts.adapters.push(factory);
        self
    }

    /// Recognises models that take text in place of what the program was built with.
    #[must_use]
    pub fn text(mut self, factory: Arc<dyn TextFactory>) -> Self {
        self.parts.text = Some(factory);
        self
    }

    /// Starts listening and loading. Must be called on a tokio runtime, which then runs the server.
    ///
    /// # Errors
    /// [`StartError`] when an address is taken or there is nothing to load with.
    pub async fn start(self) -> Result<Server, StartError> {
        let Self { config, mut parts } = self;
        let choosing = Choosing::remembering(&config.engines, config.registry.state_dir.clone());
        let built_in = built_in(choosing);
        parts.backends.extend(built_in.backends);
        parts.pipelines.extend(built_in.pipelines);
        parts.adapters.extend(built_in.adapters);
        parts.text = parts.text.or(built_in.text);
        if parts.backends.is_empty() {
            return Err(StartError::NoBackend);
        }
        for missing in missing_engines(&config.engines) {
            tracing::warn!("{missing}");
        }
        // Addresses first: a port in use should be known before anything is loaded.
        let bound = open(&config)?;
        // Before anything that records: handles belong to the recorder that is there when they are made.
        let exposition = Exposition::install();
        let pool = ComputePool::new(config.pool.clone());
        let registry = Registry::start(config.registry.clone(), parts, pool.clone())?;
        let catalog: Arc<dyn Catalog> = match config.ready {
            Ready::Settled => Arc::new(registry.clone()),
            Ready::All => Arc::new(AllReady(registry.clone())),
        };
        let readiness = {
            let (pool, registry) = (pool.clone(), registry.clone());
            Readiness::new(Arc::new(move || pool.is_healthy() && registry.is_alive()))
        };
        let front = Front::new(&roomy(&config));
        let grpc = grpc_service(GrpcParts {
            resolver: Arc::new(registry.clone()),
            catalog: Arc::clone(&catalog),
            control: Some(Arc::new(registry.clone())),
            compute: Arc::new(pool.clone()),
            readiness: readiness.clone(),
            front: front.clone(),
            config: config.grpc.clone(),
        });
        let http = http_service(HttpParts {
            resolver: Arc::new(registry.clone()),
            catalog: Arc::clone(&catalog),
            control: Some(Arc::new(registry.clone())),
            compute: Arc::new(pool),
            readiness: readiness.clone(),
            metrics_text: exposition.text(),
            front,
            config: config.http.clone(),
        });
        let (phases, open, late, accepting) = (Phases::default(), Open::default(), Open::default(), Open::default());
        let limits = Arc::new(config.connections.clone());
        let mut listening = Vec::new();
        let mut tasks = Vec::new();
        for (wish, listener) in bound {
            listening.push(Listening { address: listener.address().map_err(StartError::Address)?, roles: wish.roles });
            let acceptor = Acceptor {
                listener,
                role: wish.label(),
                answer: Port { http: http.clone(), grpc: grpc.clone(), roles: wish.roles },
                limits: Arc::clone(&limits),
                phases: phases.clone(),
                open: open.clone(),
                late: late.clone(),
            };
            tasks.push(tokio::spawn(acceptor.run(accepting.enter())));
        }
        let server = Server {
            listening,
            registry,
            catalog,
            readiness,
            phases,
            open,
            late,
            accepting,
            drain_delay: config.drain_delay,
            drain_timeout: config.drain_timeout,
            tasks,
        };
        let all: Vec<String> = server.listening.iter().map(|one| one.address.to_string()).collect();
        let admin = server.admin_addr().map(tracing::field::display);
        tracing::info!(address = %server.local_addr(), admin, all = all.join(", "), "listening");
        Ok(server)
    }
}

/// The common limits, with room for at least one of the largest bodies and answers.
fn roomy(config: &ServerConfig) -> FrontConfig {
    let bytes = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let (http, grpc) = (&config.http, &config.grpc);
    let body = http.max_body_bytes.max(bytes(grpc.max_message_bytes));
    let answer = bytes(http.max_answer_bytes.max(grpc.max_answer_bytes));
    FrontConfig {
        max_receiving_bytes: config.front.max_receiving_bytes.max(body),
        max_unsent_bytes: config.front.max_unsent_bytes.max(answer),
        ..config.front.clone()
    }
}

/// Opens every listener that `config` asks for.
fn open(config: &ServerConfig) -> Result<Vec<(ListenerConfig, Listener)>, StartError> {
    let options = BindOptions { reuse: config.reuse_port, socket_mode: config.socket_mode };
    let wishes = listeners(config)?;
    wishes.into_iter().map(|wish| Ok((wish.clone(), bind(&wish.address, &wish.wished_by, options)?))).collect()
}

impl Server {
    /// Starts a server with the engines that the program was built with. See [`ServerBuilder::start`].
    ///
    /// # Errors
    /// As [`ServerBuilder::start`].
    pub async fn start(config: ServerConfig) -> Result<Self, StartError> {
        Self::builder(config).start().await
    }

    /// Puts a server together, with engines, pipelines and forms of input of your own.
    pub fn builder(config: ServerConfig) -> ServerBuilder {
        ServerBuilder { config, parts: Parts::default() }
    }

    /// Every address that it listens on, the first one for clients first.
    pub fn listening(&self) -> &[Listening] {
        &self.listening
    }

    /// Where clients connect: the first address of [`ServerConfig::listen`].
    pub fn local_addr(&self) -> &Address {
        &self.listening[0].address
    }

    /// Where operators connect, if anywhere: the first address that takes orders.
    pub fn admin_addr(&self) -> Option<&Address> {
        self.listening.iter().find(|one| one.roles.management).map(|one| &one.address)
    }

    /// How many connections are open, on all listeners.
    pub fn n_connections(&self) -> usize {
        self.open.count() + self.late.count()
    }

    /// What is loaded.
    pub fn catalog(&self) -> Arc<dyn Catalog> {
        Arc::clone(&self.catalog)
    }

    /// Orders: load, unload, aliases, rescan.
    pub fn control(&self) -> Arc<dyn Control> {
        Arc::new(self.registry.clone())
    }

    /// Ends once every wanted version is available or has failed.
    pub async fn ready(&self) {
        self.registry.settled().await;
    }

    /// Stops in good order: not ready at once; requests are served for the drain delay; then connections finish what is
    /// in flight and new requests are refused, for at most the drain timeout; what is left after that gets a 503.
    pub async fn drain(&self) -> Drained {
        self.readiness.begin_drain();
        tracing::info!(delay = ?self.drain_delay, "draining: not ready any more");
        tokio::select! {
            () = sleep(self.drain_delay) => {}
            () = self.phases.reached(Phase::Cut) => {}
        }
        self.readiness.refuse_new();
        self.phases.advance(Phase::Finishing);
        tokio::select! {
            biased;
            () = self.open.none() => {}
            () = sleep(self.drain_timeout) => {}
            () = self.phases.reached(Phase::Cut) => {}
        }
        if self.open.count() > 0 {
            self.phases.advance(Phase::Cut);
            // Whoever does not take its 503 by then is dropped.
            let _ = timeout(LAST_WORDS, self.open.none()).await;
        }
        let _ = timeout(LAST_WORDS, self.late.none()).await;
        self.phases.advance(Phase::Gone);
        // Ports are free and the files of sockets gone before the process is.
        let _ = timeout(LAST_WORDS, async { tokio::join!(self.open.none(), self.accepting.none()) }).await;
        let cut = self.phases.n_cut();
        if cut > 0 {
            tracing::warn!(requests = cut, "requests in flight were cut off");
        }
        let registry = self.registry.clone();
        let stopped = tokio::task::spawn_blocking(move || registry.shutdown());
        if timeout(REGISTRY_STOP, stopped).await.is_err() {
            tracing::warn!("a model is still loading; leaving it");
        }
        tracing::info!("drained");
        if cut > 0 { Drained::Cut } else { Drained::Complete }
    }

    /// Cuts a running [`Server::drain`] short: what is still in flight gets a 503 now.
    pub fn cut(&self) {
        self.phases.advance(Phase::Cut);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.phases.advance(Phase::Gone);
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("listening", &self.listening)
            .field("open", &self.open.count())
            .finish_non_exhaustive()
    }
}

/// Ready only when nothing that is wanted has failed.
#[derive(Debug)]
struct AllReady(Registry);

impl Catalog for AllReady {
    fn models(&self) -> Vec<ModelStatus> {
        self.0.models()
    }

    fn model(&self, name: &str) -> Option<ModelStatus> {
        self.0.model(name)
    }

    fn is_ready(&self) -> bool {
        let all_well =
            |model: &ModelStatus| model.is_ready() && model.versions.iter().all(|version| version.failure.is_none());
        self.0.is_ready() && self.0.models().iter().all(all_well)
    }
}
