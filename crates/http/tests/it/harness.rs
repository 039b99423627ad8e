//! A server's worth of parts in memory: small models that run inline, a catalog that tests write, and a client.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use millrace_core::{
    Alias, Batch, Catalog, Code, Control, ControlFuture, DType, EngineChoice, InferFuture, InferRequest, InferResponse,
    Model, ModelName, ModelRef, ModelStatus, Reason, Refusal, RegisterFuture, Registered, Registration, RequestContext,
    Resolver, RunContext, Servable, Signature, Signatures, Stages, TENSORS, Tensor, TensorList, TensorSpec,
    TextProcessor, Total, VersionFailure, VersionState, VersionStatus,
};
use millrace_http::{
    ConnectionContext, Front, FrontConfig, HttpConfig, HttpParts, HttpService, MetricsText, Readiness, Roles,
    http_service,
};
pub(crate) use millrace_testkit::spec;
use millrace_testkit::{FakeModel, FakeServable, FullQueue, InlineCompute, resolve_among};
use parking_lot::Mutex;
use serde_json::Value;

/// The answer whose outputs are `outputs`.
pub(crate) fn answered(outputs: impl IntoIterator<Item = Tensor>) -> InferFuture {
    let stages = Stages::immediate(tokio::time::Instant::now().into_std());
    InferFuture::ready(Ok(InferResponse { outputs: outputs.into_iter().collect(), stages }))
}

/// A signature over `inputs` and `outputs`.
pub(crate) fn signature(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> Signature {
    Signature::new(inputs, outputs).unwrap()
}

/// The models that a test's server has.
#[derive(Debug, Default)]
pub(crate) struct Models {
    versions: Vec<Arc<dyn Servable>>,
    statuses: Mutex<BTreeMap<String, ModelStatus>>,
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
        self,
        name: &str,
        version: u64,
        signature: Signature,
        answer: impl Fn(InferRequest) -> InferFuture + Send + Sync + 'static,
    ) -> Self {
        self.serving(name, version, Signatures::single(signature), None, answer)
    }

    /// The version added last refuses every request that is announced; those that are not it answers.
    pub(crate) fn closed(mut self, refusal: Refusal) -> Self {
        let version = self.versions.pop().expect("a version was added");
        self.versions.push(Arc::new(FullQueue::new(version, refusal)));
        self
    }

    /// A version whose text `text` turns into the inputs of `network`, which answers through `answer`.
    pub(crate) fn text(
        self,
        name: &str,
        version: u64,
        (text, network): (Arc<dyn TextProcessor>, Signature),
        answer: impl Fn(InferRequest) -> InferFuture + Send + Sync + 'static,
    ) -> Self {
        let outputs = text.outputs().iter().map(|index| network.outputs()[*index].clone());
        let form = signature(text.inputs().to_vec(), outputs.collect());
        self.serving(name, version, Signatures::single(form).with(TENSORS, network), Some(text), answer)
    }

    fn serving(
        mut self,
        name: &str,
        version: u64,
        signatures: Signatures,
        text: Option<Arc<dyn TextProcessor>>,
        answer: impl Fn(InferRequest) -> InferFuture + Send + Sync + 'static,
    ) -> Self {
        let model: ModelName = name.parse().unwrap();
        let status = self.status_of(&model);
        status.versions.push(VersionStatus {
            backend: Some(Arc::from("fake")),
            signatures: Some(Arc::new(signatures.clone())),
            memory_bytes: 17,
            ..VersionStatus::new(version, VersionState::Available)
        });
        status.default_version = status.default_version.max(Some(version));
        self.versions.push(Arc::new(FakeServable::new(model, version, signatures, answer).with_text(text)));
        self
    }

    /// A version that runs testkit's fake engine: `y = x * scale + offset`, FP32 `[N]`.
    pub(crate) fn affine(self, name: &str, version: u64, scale: f32, offset: f32) -> Self {
        let model = FakeModel::builder().affine(scale, offset).build().as_model();
        let signature = model.signature().clone();
        self.version(name, version, signature, move |request| run(&*model, request))
    }

    /// A version that gives back its only input.
    pub(crate) fn identity(self, name: &str, input: TensorSpec, output: &str) -> Self {
        let output = TensorSpec { name: Arc::from(output), ..input.clone() };
        self.version(name, 1, signature(vec![input], vec![output]), |request| answered(request.inputs))
    }

    /// A version of FP32 `[N]` that answers with `refusal`.
    pub(crate) fn refusing(self, name: &str, refusal: Refusal) -> Self {
        let x = spec("x", DType::Fp32, &[-1]);
        let y = spec("y", DType::Fp32, &[-1]);
        self.version(name, 1, signature(vec![x], vec![y]), move |_| InferFuture::refused(refusal.clone()))
    }

    /// A model that is known, in `state`, and refused by the resolver.
    pub(crate) fn unavailable(
        mut self,
        name: &str,
        state: VersionState,
        failure: Option<&str>,
        refusal: Refusal,
    ) -> Self {
        let model: ModelName = name.parse().unwrap();
        let failure = failure.map(|text| VersionFailure { code: Code::FailedPrecondition, message: text.to_owned() });
        self.status_of(&model).versions.push(VersionStatus { failure, ..VersionStatus::new(1, state) });
        self.refused.insert(name.to_owned(), refusal);
        self
    }

    /// The version's engines were chosen so.
    pub(crate) fn chosen(self, name: &str, choice: EngineChoice) -> Self {
        let choice = Some(Arc::new(choice));
        self.statuses
            .lock()
            .get_mut(name)
            .unwrap()
            .versions
            .iter_mut()
            .for_each(|version| version.choice = choice.clone());
        self
    }

    /// The version has answered so much.
    pub(crate) fn having_answered(self, name: &str, version: u64, answered: Total) -> Self {
        let mut statuses = self.statuses.lock();
        let status = statuses.get_mut(name).unwrap();
        let known = status.versions.iter_mut().find(|known| known.version == version).unwrap();
        known.statistics.answered = answered;
        drop(statuses);
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

    /// Every order is refused.
    pub(crate) fn refusing_orders(mut self, refusal: Refusal) -> Self {
        self.order_refusal = Some(refusal);
        self
    }

    fn status_of(&mut self, model: &ModelName) -> &mut ModelStatus {
        self.statuses.get_mut().entry(model.to_string()).or_insert_with(|| ModelStatus::new(model.clone()))
    }

    fn order(&self, text: String) -> ControlFuture {
        self.orders.lock().push(text);
        let result = self.order_refusal.clone().map_or(Ok(()), Err);
        Box::pin(async move { result })
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
        resolve_among(model, &self.statuses.lock(), &self.versions)
    }
}

impl Catalog for Models {
    fn models(&self) -> Vec<ModelStatus> {
        self.statuses.lock().values().cloned().collect()
    }

    fn model(&self, name: &str) -> Option<ModelStatus> {
        self.statuses.lock().get(name).cloned()
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
        if let Some(status) = self.statuses.lock().get_mut(model.as_str())
            && alias.as_str() == Alias::DEFAULT
        {
            status.default_version = Some(version);
        }
        self.order(format!("alias {model} {alias} {version}"))
    }

    fn remove_alias(&self, model: &ModelName, alias: &Alias) -> ControlFuture {
        self.order(format!("no alias {model} {alias}"))
    }

    fn rescan(&self) -> ControlFuture {
        self.order("rescan".to_owned())
    }

    fn scale(&self, model: &ModelName, version: Option<u64>, executors: usize) -> ControlFuture {
        let mut statuses = self.statuses.lock();
        let status = statuses.get_mut(model.as_str()).unwrap();
        let version = version.or(status.default_version);
        let known = status.versions.iter_mut().find(|known| Some(known.version) == version).unwrap();
        known.executors = Some(executors);
        self.order(format!("scale {model} {version:?} {executors}"))
    }

    /// A store that has every path but those that begin with `absent`, a version 1 each.
    fn register(&self, registration: Registration) -> RegisterFuture {
        let path = registration.path.clone();
        let order = format!("register {path} as {:?}", registration.name.as_ref().map(ModelName::as_str));
        let ordered = self.order(order);
        let stem = path.rsplit('/').next().unwrap_or_default();
        let name = registration.name.clone().unwrap_or_else(|| stem.parse().unwrap());
        let mut statuses = self.statuses.lock();
        let refusal = if path.contains("://") || path.starts_with('/') || path.contains("..") {
            Some(Refusal::new(Reason::InvalidInput, "not a path below a store"))
        } else if path.starts_with("absent") {
            Some(Refusal::new(Reason::ModelUnknown, "nothing there"))
        } else if path.starts_with("huge") {
            Some(Refusal::new(Reason::TooLarge, "it needs more memory than there is"))
        } else if statuses.contains_key(name.as_str()) {
            Some(Refusal::new(Reason::Exists, format!("Model version 1 is already registered for model {name}")))
        } else {
            let mut status = ModelStatus { path, default_version: Some(1), ..ModelStatus::new(name.clone()) };
            let executors = registration.executors;
            status.versions.push(VersionStatus { executors, ..VersionStatus::new(1, VersionState::Available) });
            statuses.insert(name.to_string(), status);
            None
        };
        Box::pin(async move {
            ordered.await?;
            refusal.map_or(Ok(Registered { model: name, version: 1 }), Err)
        })
    }

    fn unregister(&self, model: &ModelName, version: Option<u64>) -> ControlFuture {
        let mut statuses = self.statuses.lock();
        let status = statuses.get_mut(model.as_str()).unwrap();
        status.versions.retain(|known| version.is_some_and(|version| known.version != version));
        self.order(format!("unregister {model} {version:?}"))
    }
}

/// The services over one set of models, and handles to what is behind them.
pub(crate) struct TestServer {
    pub(crate) service: HttpService,
    pub(crate) models: Arc<Models>,
    pub(crate) compute: Arc<InlineCompute>,
    pub(crate) readiness: Readiness,
    pub(crate) live: Arc<AtomicBool>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// Panics unless this is a TensorFlow Serving error of `status` whose text contains `words`.
    #[track_caller]
    pub(crate) fn refuses(&self, status: u16, words: &str) {
        assert_eq!(self.status, status, "{:?}", self.body);
        assert_eq!(self.headers["content-type"], "application/json");
        let body = self.json();
        assert_eq!(body.as_object().map(serde_json::Map::len), Some(1), "{body}");
        let text = body["error"].as_str().expect("an error text");
        assert!(text.contains(words), "`{text}` does not say `{words}`");
    }

    /// Panics unless this is a TorchServe error of `status` and `kind` whose message contains `words`.
    #[track_caller]
    pub(crate) fn is_torchserve_error(&self, status: u16, kind: &str, words: &str) {
        assert_eq!(self.status, status, "{:?}", self.body);
        assert_eq!(self.headers["content-type"], "application/json");
        let body = self.json();
        assert_eq!((&body["code"], &body["type"]), (&Value::from(status), &Value::from(kind)), "{body}");
        let text = body["message"].as_str().expect("a message");
        assert!(text.contains(words), "`{text}` does not say `{words}`");
        assert!(text.chars().all(|character| matches!(character, ' '..='~' | '…')), "{text:?}");
    }

    /// Panics unless this is a 200 with `body`, as JSON.
    #[track_caller]
    pub(crate) fn gives(&self, body: &Value) {
        assert_eq!(self.status, 200, "{:?}", self.body);
        assert_eq!(self.headers["content-type"], "application/json");
        assert_eq!(self.json(), *body);
    }
}

impl TestServer {
    /// The services over `models`, with defaults.
    pub(crate) fn new(models: Models) -> Self {
        Self::with(models, |_| {})
    }

    /// The services over `models`, with a changed configuration.
    pub(crate) fn with(models: Models, change: impl FnOnce(&mut HttpConfig)) -> Self {
        Self::with_front(models, &FrontConfig::default(), change)
    }

    /// The same, with other bounds on what requests hold together.
    pub(crate) fn with_front(models: Models, front: &FrontConfig, change: impl FnOnce(&mut HttpConfig)) -> Self {
        let mut config = HttpConfig::default();
        change(&mut config);
        let (models, compute) = (Arc::new(models), Arc::new(InlineCompute::default()));
        let live = Arc::new(AtomicBool::new(true));
        let flag = Arc::clone(&live);
        let readiness = Readiness::new(Arc::new(move || flag.load(Ordering::SeqCst)));
        let metrics_text = MetricsText::new(|| "# the page\n".to_owned());
        let parts = HttpParts {
            resolver: models.clone(),
            catalog: models.clone(),
            compute: compute.clone(),
            readiness: readiness.clone(),
            control: Some(models.clone()),
            metrics_text,
            front: Front::new(front),
            config,
        };
        Self { service: http_service(parts), models, compute, readiness, live }
    }

    /// Sends `request` to the data port.
    pub(crate) async fn send<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        collect(self.service.answer(request, ConnectionContext::default()).await).await
    }

    /// `method` on `path` with `body` and headers.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        self.send(request(method, path, headers, body)).await
    }

    /// `GET`.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], "").await
    }

    /// `POST /v1/models/{model}:predict`; `model` may go on with a version.
    pub(crate) async fn predict(&self, model: &str, body: impl Into<Bytes>) -> Answer {
        self.ask(Method::POST, &format!("/v1/models/{model}:predict"), &[], body).await
    }

    /// `method` on `path` of the admin port.
    pub(crate) async fn order(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        let operator = ConnectionContext { roles: Roles::ADMIN, ..ConnectionContext::default() };
        collect(self.service.answer(request(method, path, &[], body), operator).await).await
    }

    /// `method` on `path` of a listener for operators, with headers.
    pub(crate) async fn manage(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let operator = ConnectionContext { roles: Roles::ADMIN, ..ConnectionContext::default() };
        collect(self.service.answer(request(method, path, headers, body), operator).await).await
    }

    /// The orders given so far.
    pub(crate) fn orders(&self) -> Vec<String> {
        self.models.orders.lock().clone()
    }
}

/// A request as hyper would hand it on.
pub(crate) fn request(
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).unwrap()
}

async fn collect(response: http::Response<millrace_http::ResponseBody>) -> Answer {
    let (parts, body) = response.into_parts();
    let expected = body.size_hint().exact().unwrap();
    let body = body.collect().await.unwrap().to_bytes();
    assert_eq!(body.len() as u64, expected, "the length that hyper announces is the true one");
    Answer { status: parts.status, headers: parts.headers, body }
}

/// The models of most tests.
pub(crate) fn models() -> Models {
    let (a, b) = (spec("a", DType::Int32, &[-1]), spec("b", DType::Int32, &[-1, 2]));
    let (s, d) = (spec("s", DType::Int32, &[-1]), spec("d", DType::Int32, &[-1]));
    let scalar = || vec![spec("x", DType::Fp32, &[])];
    let total = |request: InferRequest| {
        let sum: f32 = request.inputs[0].elements::<f32>().unwrap().iter().sum();
        answered([Tensor::from_vec(&[], vec![sum]).unwrap()])
    };
    let half = |request: InferRequest| {
        let x = request.inputs[0].elements::<f32>().unwrap()[0];
        answered([Tensor::from_vec(&[], vec![x / 2.0]).unwrap()])
    };
    Models::new()
        .affine("half_plus_two", 1, 0.5, 2.0)
        .affine("half_plus_two", 2, 0.5, 3.0)
        .alias("half_plus_two", "stable", 1)
        .version("sum_diff", 1, signature(vec![a, b], vec![s, d]), sum_diff)
        .identity("ints", spec("x", DType::Int32, &[-1]), "y")
        .identity("strings", spec("x", DType::Bytes, &[-1]), "y")
        .identity("files", spec("x", DType::Bytes, &[-1]), "y_bytes")
        .identity("halves", spec("x", DType::Fp16, &[-1]), "y")
        .identity("pairs", spec("x", DType::Fp32, &[-1, 2]), "y")
        .version("half_scalar", 1, signature(scalar(), vec![spec("y", DType::Fp32, &[])]), half)
        .version("total", 1, signature(vec![spec("x", DType::Fp32, &[-1])], vec![spec("y", DType::Fp32, &[])]), total)
        .unavailable(
            "loading",
            VersionState::Loading,
            None,
            Refusal::new(Reason::Loading, "model `loading` is loading"),
        )
        .unavailable(
            "failed",
            VersionState::End,
            Some("node `Conv_3` is not supported"),
            Refusal::new(Reason::NotReady, "model `failed` has no version that can serve"),
        )
}

/// `s = a + b[0] + b[1]`, `d = a - b[0] - b[1]`.
#[expect(clippy::needless_pass_by_value, reason = "it stands where an answerer stands")]
fn sum_diff(request: InferRequest) -> InferFuture {
    let (a, b) = (request.inputs[0].elements::<i32>().unwrap(), request.inputs[1].elements::<i32>().unwrap());
    let pairs = a.iter().zip(b.chunks(2)).map(|(a, b)| (a + b[0] + b[1], a - b[0] - b[1]));
    let (s, d): (Vec<i32>, Vec<i32>) = pairs.unzip();
    let tensors: TensorList = [s, d].into_iter().map(|list| Tensor::from_vec(&[list.len()], list).unwrap()).collect();
    answered(tensors)
}
