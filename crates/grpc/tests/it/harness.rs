//! A server's worth of parts in memory: small models that run inline, a catalog that tests write, and two ways to ask:
//! whole requests without a socket, and real clients over HTTP/2.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use millrace_core::{
    Alias, Batch, Catalog, Control, ControlFuture, DType, InferFuture, InferRequest, InferResponse, Model, ModelName,
    ModelRef, ModelStatus, Refusal, RegisterFuture, Registered, Registration, RequestContext, Resolver, RunContext,
    Servable, Signature, Signatures, Stages, Tensor, TensorSpec, VersionState, VersionStatus, Wanted,
};
use millrace_grpc::{GrpcConfig, GrpcParts, GrpcService, grpc_service};
use millrace_protocol::front::{ConnectionContext, Front, FrontConfig, Readiness, Roles};
pub(crate) use millrace_testkit::spec;
use millrace_testkit::{FakeModel, FakeServable, FullQueue, InlineCompute, resolve_among};
use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpListener;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::{Channel, Endpoint};

/// The answer whose outputs are `outputs`.
pub(crate) fn answered(outputs: impl IntoIterator<Item = Tensor>) -> InferFuture {
    let stages = Stages::immediate(tokio::time::Instant::now().into_std());
    InferFuture::ready(Ok(InferResponse { outputs: outputs.into_iter().collect(), stages }))
}

/// The models that a test's server has.
#[derive(Debug, Default)]
pub(crate) struct Models {
    versions: Vec<Arc<dyn Servable>>,
    statuses: BTreeMap<String, ModelStatus>,
    /// Refusals by model name, before any version is looked for.
    refused: BTreeMap<String, Refusal>,
    unsettled: AtomicBool,
    orders: Mutex<Vec<String>>,
    /// What every order gives, if not success.
    order_refusal: Option<Refusal>,
}

impl Models {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A version that answers through `answer`.
    pub(crate) fn version(
        mut self,
        name: &str,
        version: u64,
        signature: Signature,
        answer: impl Fn(InferRequest) -> InferFuture + Send + Sync + 'static,
    ) -> Self {
        let model: ModelName = name.parse().unwrap();
        let signatures = Signatures::single(signature);
        let status = self.status_of(&model);
        status.versions.push(VersionStatus {
            backend: Some(Arc::from("fake")),
            signatures: Some(Arc::new(signatures.clone())),
            memory_bytes: 17,
            max_batch_size: 8,
            ..VersionStatus::new(version, VersionState::Available)
        });
        status.default_version = status.default_version.max(Some(version));
        self.versions.push(Arc::new(FakeServable::new(model, version, signatures, answer)));
        self
    }

    /// A version that runs testkit's fake engine: `y = x * scale + offset`, FP32 `[N]`.
    pub(crate) fn affine(self, name: &str, version: u64, scale: f32, offset: f32) -> Self {
        let model = FakeModel::builder().affine(scale, offset).build().as_model();
        let signature = model.signature().clone();
        self.version(name, version, signature, move |request| run(&*model, request))
    }

    /// A version that gives back its inputs; input `x` comes back as `x_out`.
    pub(crate) fn identity(self, name: &str, inputs: Vec<TensorSpec>) -> Self {
        let output = |input: &TensorSpec| TensorSpec { name: format!("{}_out", input.name).into(), ..input.clone() };
        let outputs = inputs.iter().map(output).collect();
        let signature = Signature::new(inputs, outputs).unwrap();
        self.version(name, 1, signature, |request| match request.wanted {
            Wanted::All => answered(request.inputs),
            Wanted::Only(indices) => answered(indices.into_iter().map(|index| request.inputs[index].clone())),
        })
    }

    /// A version of FP32 `[N]` that answers with `refusal`.
    pub(crate) fn refusing(self, name: &str, refusal: Refusal) -> Self {
        self.scalar(name, move |_| InferFuture::refused(refusal.clone()))
    }

    /// A version of FP32 `[N]`, `x` to `y`, that answers through `answer`.
    pub(crate) fn scalar(
        self,
        name: &str,
        answer: impl Fn(InferRequest) -> InferFuture + Send + Sync + 'static,
    ) -> Self {
        let (x, y) = (spec("x", DType::Fp32, &[-1]), spec("y", DType::Fp32, &[-1]));
        self.version(name, 1, Signature::new(vec![x], vec![y]).unwrap(), answer)
    }

    /// The version added last refuses every request that is announced; those that are not it answers.
    pub(crate) fn closed(mut self, refusal: Refusal) -> Self {
        let version = self.versions.pop().expect("a version was added");
        self.versions.push(Arc::new(FullQueue::new(version, refusal)));
        self
    }

    /// A model that is known, in `state`, and refused by the resolver.
    pub(crate) fn unavailable(mut self, name: &str, state: VersionState, refusal: Refusal) -> Self {
        let model: ModelName = name.parse().unwrap();
        self.status_of(&model).versions.push(VersionStatus::new(1, state));
        self.refused.insert(name.to_owned(), refusal);
        self
    }

    /// A model that is known as `status` and has no version to ask.
    pub(crate) fn status(mut self, status: ModelStatus) -> Self {
        self.statuses.insert(status.name.to_string(), status);
        self
    }

    /// Sets an alias.
    pub(crate) fn alias(mut self, name: &str, alias: &str, version: u64) -> Self {
        let model: ModelName = name.parse().unwrap();
        self.status_of(&model).aliases.insert(alias.parse().unwrap(), version);
        self
    }

    /// The first scan has not settled.
    pub(crate) fn unsettled(self) -> Self {
        self.unsettled.store(true, Ordering::SeqCst);
        self
    }

    /// The first scan settles.
    pub(crate) fn settle(&self) {
        self.unsettled.store(false, Ordering::SeqCst);
    }

    /// Every order is refused.
    pub(crate) fn refusing_orders(mut self, refusal: Refusal) -> Self {
        self.order_refusal = Some(refusal);
        self
    }

    fn status_of(&mut self, model: &ModelName) -> &mut ModelStatus {
        self.statuses.entry(model.to_string()).or_insert_with(|| ModelStatus::new(model.clone()))
    }

    /// Takes an order down.
    pub(crate) fn order(&self, text: String) -> ControlFuture {
        self.orders.lock().push(text);
        let result = self.order_refusal.clone().map_or(Ok(()), Err);
        Box::pin(async move { result })
    }

    /// The orders given so far.
    pub(crate) fn orders(&self) -> Vec<String> {
        self.orders.lock().clone()
    }
}

fn run(model: &dyn Model, request: InferRequest) -> InferFuture {
    let rows = model.signature().check(&request.inputs).unwrap().rows;
    let batch = Batch::single(request.inputs, rows);
    let outputs = model.instance().unwrap().run(&batch, &RunContext::plain()).unwrap();
    answered(outputs.0.into_iter().flatten())
}

impl Resolver for Models {
    fn resolve(&self, model: &ModelRef<'_>, _context: &RequestContext) -> Result<Arc<dyn Servable>, Refusal> {
        if let Some(refusal) = self.refused.get(model.name) {
            return Err(refusal.clone());
        }
        resolve_among(model, &self.statuses, &self.versions)
    }
}

impl Catalog for Models {
    fn models(&self) -> Vec<ModelStatus> {
        self.statuses.values().cloned().collect()
    }

    fn model(&self, name: &str) -> Option<ModelStatus> {
        self.statuses.get(name).cloned()
    }

    fn is_ready(&self) -> bool {
        !self.unsettled.load(Ordering::SeqCst)
    }
}

impl Control for Models {
    fn load(&self, model: &ModelName, version: Option<u64>) -> ControlFuture {
        self.order(format!("load {model} {version:?}"))
    }

    fn unload(&self, model: &ModelName, version: Option<u64>) -> ControlFuture {
        self.order(format!("unload {model} {version:?}"))
    }

    fn set_alias(&self, model: &ModelName, alias: &Alias, version: u64) -> ControlFuture {
        self.order(format!("alias {model} {alias} {version}"))
    }

    fn remove_alias(&self, model: &ModelName, alias: &Alias) -> ControlFuture {
        self.order(format!("no alias {model} {alias}"))
    }

    fn rescan(&self) -> ControlFuture {
        self.order("rescan".to_owned())
    }

    fn scale(&self, model: &ModelName, version: Option<u64>, executors: usize) -> ControlFuture {
        self.order(format!("scale {model} {version:?} {executors}"))
    }

    fn register(&self, registration: Registration) -> RegisterFuture {
        let model = registration.name.clone().unwrap_or_else(|| registration.path.parse().unwrap());
        let order = self.order(format!("register {registration:?}"));
        Box::pin(async move { order.await.map(|()| Registered { model, version: 1 }) })
    }

    fn replace(&self, models: Vec<millrace_core::WantedModel>) -> ControlFuture {
        self.order(format!("replace {models:?}"))
    }
}

/// The service over one set of models, and handles to what is behind it.
pub(crate) struct TestServer {
    pub(crate) service: GrpcService,
    pub(crate) models: Arc<Models>,
    pub(crate) compute: Arc<InlineCompute>,
    pub(crate) readiness: Readiness,
    pub(crate) roles: Roles,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    /// The messages, prefix and all, unless they were compressed.
    pub(crate) messages: Vec<Bytes>,
    pub(crate) compressed: bool,
    pub(crate) trailers: HeaderMap,
}

impl Answer {
    /// gRPC's status number.
    #[track_caller]
    pub(crate) fn code(&self) -> u32 {
        let status = self.trailers.get("grpc-status").expect("a status");
        status.to_str().unwrap().parse().unwrap()
    }

    /// The status message.
    pub(crate) fn text(&self) -> String {
        self.trailers.get("grpc-message").map(|text| text.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    /// Panics unless this is a refusal with `code` whose text contains `words`.
    #[track_caller]
    pub(crate) fn refuses(&self, code: tonic::Code, words: &str) {
        assert_eq!(tonic::Code::from_i32(self.code().cast_signed()), code, "{}", self.text());
        assert!(self.messages.is_empty());
        assert!(self.text().contains(words), "`{}` does not say `{words}`", self.text());
    }

    /// The only message of a call that ended well.
    #[track_caller]
    pub(crate) fn gives<M: Message + Default>(&self) -> M {
        assert_eq!(self.code(), 0, "{}", self.text());
        assert_eq!(self.messages.len(), 1);
        M::decode(self.messages[0].clone()).unwrap()
    }
}

impl TestServer {
    /// The service over `models`, with defaults.
    pub(crate) fn new(models: Models) -> Self {
        Self::with(models, |_| {})
    }

    /// The service over `models`, with a changed configuration.
    pub(crate) fn with(models: Models, change: impl FnOnce(&mut GrpcConfig)) -> Self {
        Self::with_front(models, &FrontConfig::default(), change)
    }

    /// The same, with other bounds on what requests hold together.
    pub(crate) fn with_front(models: Models, front: &FrontConfig, change: impl FnOnce(&mut GrpcConfig)) -> Self {
        let mut config = GrpcConfig::default();
        change(&mut config);
        let (models, compute) = (Arc::new(models), Arc::new(InlineCompute::default()));
        let readiness = Readiness::default();
        let parts = GrpcParts {
            resolver: models.clone(),
            catalog: models.clone(),
            control: Some(models.clone()),
            compute: compute.clone(),
            readiness: readiness.clone(),
            front: Front::new(front),
            config,
        };
        Self { service: grpc_service(parts), models, compute, readiness, roles: Roles::DATA }
    }

    /// On a listener with other roles.
    pub(crate) fn roles(mut self, roles: Roles) -> Self {
        self.roles = roles;
        self
    }

    fn connection(&self) -> ConnectionContext {
        ConnectionContext { roles: self.roles, ..ConnectionContext::default() }
    }

    /// A call of `path` whose body comes in `pieces`, prefixes and all.
    pub(crate) async fn send(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        pieces: impl IntoIterator<Item = Bytes>,
    ) -> Answer {
        self.stream(path, headers, tokio_stream::iter(pieces.into_iter().collect::<Vec<_>>())).await
    }

    /// The same with pieces that come when they come.
    pub(crate) async fn stream(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        pieces: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Answer {
        let pieces = pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
        let mut request = Request::post(path).header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(StreamBody::new(pieces)).unwrap();
        collect(self.service.answer(request, self.connection()).await).await
    }

    /// A call of `path` with one message.
    pub(crate) async fn ask(&self, path: &str, message: &impl Message) -> Answer {
        self.send(path, &[], [framed(&message.encode_to_vec())]).await
    }

    /// A client's connection over a real socket.
    pub(crate) async fn connect(&self) -> Channel {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (service, connection) = (self.service.clone(), self.connection());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service.clone();
                let answer = service_fn(move |request: Request<Incoming>| {
                    let service = service.clone();
                    async move { Ok::<_, Infallible>(service.answer(request, connection).await) }
                });
                let builder = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(async move { builder.serve_connection(TokioIo::new(stream), answer).await });
            }
        });
        Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
    }
}

/// A message with its prefix.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    prefixed(0, message)
}

/// A message with a prefix that begins with `flag`.
pub(crate) fn prefixed(flag: u8, message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    Bytes::from([&[flag], &length[..], message].concat())
}

async fn collect(response: http::Response<millrace_grpc::GrpcBody>) -> Answer {
    let (head, body) = response.into_parts();
    assert_eq!(head.status, 200, "gRPC says how a call went in its trailers");
    assert_eq!(head.headers["content-type"], "application/grpc");
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_else(|| head.headers.clone());
    let mut rest = body.to_bytes();
    let (mut messages, mut compressed) = (Vec::new(), false);
    while !rest.is_empty() {
        let prefix = rest.split_to(5);
        compressed |= prefix[0] == 1;
        messages.push(rest.split_to(u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize));
    }
    Answer { headers: head.headers, messages, compressed, trailers }
}
