//! The server as a part: listeners, front-end, registry and compute pool put together, and taken down in order.
//!
//! It runs on the tokio runtime that starts it. Flags, signals and what is printed are the binary's.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use millrace_batching::ComputePool;
use millrace_core::{Backend, CallerId, Catalog, Control, ModelStatus};
use millrace_http::{
    AdminParts, AdminService, ConnectionContext, HttpParts, HttpService, Readiness, ResponseBody, admin_service,
    http_service,
};
use millrace_registry::{Registry, RegistryError};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::config::{Ready, ServerConfig};
use crate::exposition::Exposition;
use crate::net::{Acceptor, Answer, BindError, Open, Phase, Phases, bind};

/// How long a cut-off client gets to take its 503.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long the registry may take to stop its threads. A load that hangs is left behind.
const REGISTRY_STOP: Duration = Duration::from_secs(2);

/// A running server. Dropping it stops it at once; [`Server::drain`] stops it in good order.
pub struct Server {
    local: SocketAddr,
    admin: Option<SocketAddr>,
    registry: Registry,
    catalog: Arc<dyn Catalog>,
    readiness: Readiness,
    phases: Phases,
    open: Open,
    late: Open,
    drain_delay: Duration,
    drain_timeout: Duration,
    tasks: Vec<JoinHandle<()>>,
}

/// Puts a [`Server`] together.
#[derive(Debug)]
pub struct ServerBuilder {
    config: ServerConfig,
    backends: Vec<Arc<dyn Backend>>,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The registry refused.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The program was built without any engine and was given none.
    #[error("this program was built without a backend: no model could be loaded; build it with the feature `tract`")]
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
        self.backends.push(backend);
        self
    }

    /// Starts listening and loading. Must be called on a tokio runtime, which then runs the server.
    ///
    /// # Errors
    /// [`StartError`] when an address is taken or there is nothing to load with.
    pub async fn start(self) -> Result<Server, StartError> {
        let Self { config, mut backends } = self;
        backends.extend(built_in());
        if backends.is_empty() {
            return Err(StartError::NoBackend);
        }
        // Addresses first: a port in use should be known before anything is loaded.
        let data = bind(config.listen, config.reuse_port)?;
        let admin = config.admin.map(|address| bind(address, config.reuse_port)).transpose()?;
        let local = data.local_addr().map_err(StartError::Address)?;
        let admin_address =
            admin.as_ref().map(tokio::net::TcpListener::local_addr).transpose().map_err(StartError::Address)?;

        // Before anything that records: handles belong to the recorder that is there when they are made.
        let exposition = Exposition::install();
        let pool = ComputePool::new(config.pool.clone());
        let registry = Registry::start(config.registry.clone(), backends, pool.clone())?;
        let catalog: Arc<dyn Catalog> = match config.ready {
            Ready::Settled => Arc::new(registry.clone()),
            Ready::All => Arc::new(AllReady(registry.clone())),
        };
        let readiness = {
            let (pool, registry) = (pool.clone(), registry.clone());
            Readiness::new(Arc::new(move || pool.is_healthy() && registry.is_alive()))
        };
        let service = http_service(HttpParts {
            resolver: Arc::new(registry.clone()),
            catalog: Arc::clone(&catalog),
            compute: Arc::new(pool),
            readiness: readiness.clone(),
            metrics_text: exposition.text(),
            config: config.http.clone(),
        });
        let (phases, open, late) = (Phases::default(), Open::default(), Open::default());
        let limits = Arc::new(config.connections.clone());
        let mut tasks = vec![tokio::spawn(exposition.clone().keep_up())];
        tasks.push(tokio::spawn(
            Acceptor {
                listener: data,
                role: "data",
                answer: Data(service),
                limits: Arc::clone(&limits),
                phases: phases.clone(),
                open: open.clone(),
                late: late.clone(),
            }
            .run(),
        ));
        if let Some(listener) = admin {
            let service = admin_service(AdminParts {
                control: Arc::new(registry.clone()),
                catalog: Arc::clone(&catalog),
                readiness: readiness.clone(),
                metrics_text: exposition.text(),
                config: config.http.clone(),
            });
            tasks.push(tokio::spawn(
                Acceptor {
                    listener,
                    role: "admin",
                    answer: Admin(service),
                    limits,
                    phases: phases.clone(),
                    open: open.clone(),
                    late: late.clone(),
                }
                .run(),
            ));
        }
        tracing::info!(address = %local, admin = admin_address.map(tracing::field::display), "listening");
        Ok(Server {
            local,
            admin: admin_address,
            registry,
            catalog,
            readiness,
            phases,
            open,
            late,
            drain_delay: config.drain_delay,
            drain_timeout: config.drain_timeout,
            tasks,
        })
    }
}

/// The engines that the program was built with.
pub(crate) fn built_in() -> Vec<Arc<dyn Backend>> {
    vec![
        #[cfg(feature = "tract")]
        Arc::new(millrace_backend_tract::TractBackend::default()),
    ]
}

impl Server {
    /// Starts a server with the engines that the program was built with. See [`ServerBuilder::start`].
    ///
    /// # Errors
    /// As [`ServerBuilder::start`].
    pub async fn start(config: ServerConfig) -> Result<Self, StartError> {
        Self::builder(config).start().await
    }

    /// Puts a server together, with engines of your own.
    pub fn builder(config: ServerConfig) -> ServerBuilder {
        ServerBuilder { config, backends: Vec::new() }
    }

    /// Where clients connect.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Where operators connect, if anywhere.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// How many connections are open, on both listeners.
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
        let _ = timeout(LAST_WORDS, self.open.none()).await;
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
            .field("local", &self.local)
            .field("admin", &self.admin)
            .field("open", &self.open.count())
            .finish_non_exhaustive()
    }
}

/// The data port.
#[derive(Clone)]
struct Data(HttpService);

/// The admin port.
#[derive(Clone)]
struct Admin(AdminService);

impl Answer for Data {
    type Body = ResponseBody;

    async fn answer(&self, request: Request<Incoming>, caller: CallerId) -> Response<ResponseBody> {
        self.0.answer(request, ConnectionContext { caller }).await
    }

    fn cut(&self) -> Response<ResponseBody> {
        cut_off()
    }
}

impl Answer for Admin {
    type Body = ResponseBody;

    async fn answer(&self, request: Request<Incoming>, _caller: CallerId) -> Response<ResponseBody> {
        self.0.answer(request).await
    }

    fn cut(&self) -> Response<ResponseBody> {
        cut_off()
    }
}

fn cut_off() -> Response<ResponseBody> {
    let body = r#"{"error": "the server is shutting down and did not finish this request in time"}"#;
    let mut response = Response::new(ResponseBody::new(body));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
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
