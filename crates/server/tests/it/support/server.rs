//! A server in this process, on ports of the system's choice.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millrace_server::{Drained, Server, ServerConfig};
use millrace_testkit::{FakeBackend, fixture};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::{Client, Repository};

/// A running server with its runtime and, perhaps, its repository.
pub(crate) struct TestServer {
    pub(crate) server: Arc<Server>,
    runtime: Option<Runtime>,
    repository: Option<Repository>,
}

impl TestServer {
    /// The good fixtures, by the real engine.
    pub(crate) fn fixtures() -> Self {
        Self::fixtures_with(|_| {})
    }

    /// As [`fixtures`](Self::fixtures), with `configure`'s changes to the defaults.
    pub(crate) fn fixtures_with(configure: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::folder(&fixture("models"), configure)
    }

    /// The models of the folder `path`, by the real engine, with `configure`'s changes to the defaults.
    pub(crate) fn folder(path: &Path, configure: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::start(path, FakeBackend::default(), None, configure)
    }

    /// `repository`, by `backend`, with `configure`'s changes to the defaults.
    pub(crate) fn fake(
        repository: Repository,
        backend: FakeBackend,
        configure: impl FnOnce(&mut ServerConfig),
    ) -> Self {
        let path = repository.path().to_owned();
        Self::start(&path, backend, Some(repository), configure)
    }

    /// One model `double` (`y = 2 x`) and the defaults, changed by `configure`.
    pub(crate) fn double(configure: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::fake(Repository::new().fake("double", 1, 2.0, 0.0), FakeBackend::default(), configure)
    }

    fn start(
        path: &Path,
        backend: FakeBackend,
        repository: Option<Repository>,
        configure: impl FnOnce(&mut ServerConfig),
    ) -> Self {
        let this = Self::start_unready(path, backend, repository, configure);
        this.runtime().block_on(this.server.ready());
        this
    }

    /// As the others, but returns while models still load.
    pub(crate) fn start_unready(
        path: &Path,
        backend: FakeBackend,
        repository: Option<Repository>,
        configure: impl FnOnce(&mut ServerConfig),
    ) -> Self {
        let mut config = ServerConfig::repository(path);
        config.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()];
        config.admin = vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()];
        configure(&mut config);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let server = runtime.block_on(Server::builder(config).backend(Arc::new(backend)).start());
        let server = Arc::new(server.expect("the server starts"));
        Self { server, runtime: Some(runtime), repository }
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is there until the end")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.local_addr().tcp().expect("tests listen on TCP, or ask otherwise")
    }

    /// The folder that it serves.
    pub(crate) fn repository_path(&self) -> std::path::PathBuf {
        self.repository.as_ref().expect("it has a repository of its own").path().to_owned()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address())
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.server.admin_addr().and_then(millrace_server::Address::tcp).expect("there is an admin listener")
    }

    pub(crate) fn admin(&self) -> Client {
        Client::connect(self.admin_address())
    }

    /// The server is well: alive, ready, and `double` doubles.
    #[track_caller]
    pub(crate) fn is_well(&self) {
        assert_eq!(self.client().get("/v2/health/live").status, 200);
        assert_eq!(self.client().get("/v2/health/ready").status, 200);
        self.client().post(DOUBLE, r#"{"instances": [21.0]}"#).gives(&serde_json::json!({"predictions": [42.0]}));
    }

    /// The number that the metrics page gives for the first line that starts with `name`, or 0.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = self.client().get("/metrics").text();
        let line = page.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }

    /// Waits, by asking again and again, until the metric is as `wanted` says.
    #[track_caller]
    pub(crate) fn until_metric(&self, name: &str, wanted: impl Fn(f64) -> bool) {
        let begin = super::now();
        while !wanted(self.metric(name)) {
            assert!(begin.elapsed() < super::PATIENCE, "{name} stays {}", self.metric(name));
        }
    }

    /// Waits until only so many connections are open.
    #[track_caller]
    pub(crate) fn until_connected(&self, count: usize) {
        let begin = super::now();
        while self.server.n_connections() > count {
            assert!(begin.elapsed() < super::PATIENCE, "{} stay open", self.server.n_connections());
            std::thread::yield_now();
        }
    }

    pub(crate) fn begin_drain(&self) -> JoinHandle<Drained> {
        let server = Arc::clone(&self.server);
        self.runtime().spawn(async move { server.drain().await })
    }

    #[track_caller]
    pub(crate) fn wait(&self, drain: JoinHandle<Drained>) -> Drained {
        let waiting = async { tokio::time::timeout(super::PATIENCE, drain).await };
        self.runtime().block_on(waiting).expect("draining ends").expect("draining does not panic")
    }
}

/// Where `double` is asked.
pub(crate) const DOUBLE: &str = "/v1/models/double:predict";

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

/// `{"predictions": [value]}`.
pub(crate) fn prediction(value: f64) -> Value {
    serde_json::json!({"predictions": [value]})
}
