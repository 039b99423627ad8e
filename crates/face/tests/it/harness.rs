//! What the tests share: the networks behind queues, pictures, questions and answers.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use millrace_backend_tract::TractBackend;
use millrace_batching::{BatchConfig, BatchQueue, ComputePool, Instances, PoolConfig, Waiting};
use millrace_core::{
    Backend, Batch, BatchOutputs, InferFuture, InferRequest, InferResponse, InferResult, Instance, LoadError, Model,
    ModelName, ModelRef, OwnedModelRef, PipelineSource, Reason, Refusal, RequestContext, Resolver, RunContext,
    RunError, Servable, Signature, Signatures, Stages, Strings, Tensor,
};
use millrace_face::{PictureBudget, factories_within};
use millrace_testkit::{Gate, fixture, fixture_source};
use parking_lot::{Condvar, Mutex};

/// How long a helper waits before it calls the test failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The networks, loaded once for all tests.
static NETWORKS: LazyLock<BTreeMap<&'static str, Arc<dyn Model>>> = LazyLock::new(|| {
    let load = |name| {
        let source = fixture_source(&format!("face-models/{name}/1"));
        (name, TractBackend::default().load(&source).unwrap())
    };
    ["mtcnn_pnet", "mtcnn_rnet", "mtcnn_onet", "face_embedding"].into_iter().map(load).collect()
});

/// Which models play which roles in the fixtures.
const ROLES: [(&str, &str); 4] =
    [("pnet", "mtcnn_pnet"), ("rnet", "mtcnn_rnet"), ("onet", "mtcnn_onet"), ("embedding", "face_embedding")];

/// The real clock, which queues and pipelines run on.
#[expect(clippy::disallowed_methods, reason = "pipelines and queues run on the real clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// One question to an inner model.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) model: String,
    pub(crate) rows: usize,
    pub(crate) context: RequestContext,
    /// Rows in the run that the question rode in, once it is answered.
    pub(crate) batch_rows: Option<usize>,
}

/// The networks behind queues of their own, found by name, and a list of all that they were asked.
pub(crate) struct World {
    pub(crate) pool: ComputePool,
    models: Mutex<BTreeMap<String, Arc<dyn Servable>>>,
    questions: Arc<Questions>,
}

#[derive(Debug, Default)]
struct Questions(Mutex<Vec<Question>>, Condvar);

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Self::with_threads(2)
    }

    pub(crate) fn with_threads(threads: usize) -> Arc<Self> {
        let threads = NonZeroUsize::new(threads).unwrap();
        let pool = ComputePool::new(PoolConfig { threads, ..PoolConfig::default() });
        let questions = Arc::default();
        let world = Self { pool, models: Mutex::default(), questions };
        for (name, model) in NETWORKS.iter() {
            world.put(name, Arc::clone(model), BatchConfig::default());
        }
        Arc::new(world)
    }

    /// Puts a model in the place of the one that is called so.
    fn put(&self, name: &str, model: Arc<dyn Model>, config: BatchConfig) -> BatchQueue {
        let signatures = Signatures::single(model.signature().clone());
        let model_name: ModelName = name.parse().unwrap();
        let queue = BatchQueue::new(model, model_name.clone(), 1, config, &self.pool).unwrap();
        let (seat_queue, questions) = (queue.clone(), Arc::clone(&self.questions));
        self.serve(Arc::new(Seat { model: model_name, signatures, queue: seat_queue, questions }));
        queue
    }

    /// Puts the network called `name` behind a gate that is closed: its first run waits there, and what is asked meanwhile
    /// queues up.
    pub(crate) fn hold(&self, name: &str) -> (Gate, BatchQueue) {
        let gate = Gate::closed();
        let model = Held { network: Arc::clone(&NETWORKS[name]), gate: gate.clone() };
        let config = BatchConfig {
            instances: Instances::Exactly(NonZeroUsize::MIN),
            waiting: Waiting::Fixed(Duration::ZERO),
            ..BatchConfig::default()
        };
        (gate, self.put(name, Arc::new(model), config))
    }

    /// Puts a model that `answer` plays in the place of the one that is called so.
    pub(crate) fn fake(&self, name: &str, answer: impl Fn(InferRequest) -> InferResult + Send + Sync + 'static) {
        let signatures = Signatures::single(NETWORKS[name].signature().clone());
        self.fake_with(name, signatures, answer);
    }

    /// The same with signatures of its own.
    pub(crate) fn fake_with(
        &self,
        name: &str,
        signatures: Signatures,
        answer: impl Fn(InferRequest) -> InferResult + Send + Sync + 'static,
    ) {
        self.serve(Arc::new(Fake { model: name.parse().unwrap(), signatures, answer: Box::new(answer) }));
    }

    fn serve(&self, servable: Arc<dyn Servable>) {
        self.models.lock().insert(servable.model().to_string(), servable);
    }

    pub(crate) fn remove(&self, name: &str) {
        self.models.lock().remove(name);
    }

    /// All that the inner models were asked so far.
    pub(crate) fn questions(&self) -> Vec<Question> {
        self.questions.0.lock().clone()
    }

    /// Waits until the model called `name` was asked `count` times in all.
    pub(crate) fn wait_for(&self, name: &str, count: usize) {
        let Questions(questions, changed) = &*self.questions;
        let lacks = |asked: &mut Vec<Question>| asked.iter().filter(|it| it.model == name).count() < count;
        let waited = changed.wait_while_for(&mut questions.lock(), lacks, PATIENCE);
        assert!(!waited.timed_out(), "{name} was not asked {count} times");
    }

    /// The rows of the questions to the model called `name`, in the order they came.
    pub(crate) fn rows(&self, name: &str) -> Vec<usize> {
        self.questions().iter().filter(|question| question.model == name).map(|question| question.rows).collect()
    }

    /// The pipeline that the factory called `name` makes, with the roles it has in the fixtures.
    pub(crate) fn pipeline(self: &Arc<Self>, name: &str) -> Arc<dyn Servable> {
        self.build(name, &roles(name), &[]).unwrap()
    }

    pub(crate) fn build(
        self: &Arc<Self>,
        name: &str,
        roles: &[(&str, &str)],
        options: &[(&str, &str)],
    ) -> Result<Arc<dyn Servable>, LoadError> {
        self.build_within(&PictureBudget::default(), name, roles, options)
    }

    pub(crate) fn build_within(
        self: &Arc<Self>,
        budget: &PictureBudget,
        name: &str,
        roles: &[(&str, &str)],
        options: &[(&str, &str)],
    ) -> Result<Arc<dyn Servable>, LoadError> {
        let factory = factories_within(budget).into_iter().find(|factory| factory.name() == name).unwrap();
        factory.build(self.source(name, roles, options))
    }

    pub(crate) fn source(
        self: &Arc<Self>,
        name: &str,
        roles: &[(&str, &str)],
        options: &[(&str, &str)],
    ) -> PipelineSource {
        let model = |(role, model): &(&str, &str)| ((*role).to_owned(), model.parse::<OwnedModelRef>().unwrap());
        PipelineSource {
            model: name.parse().unwrap(),
            version: 1,
            models: roles.iter().map(model).collect(),
            options: options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            resolver: Arc::clone(self) as Arc<dyn Resolver>,
            compute: Arc::new(self.pool.clone()),
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

impl Resolver for World {
    fn resolve(&self, model: &ModelRef<'_>, _context: &RequestContext) -> Result<Arc<dyn Servable>, Refusal> {
        let found = self.models.lock().get(model.name).cloned();
        found.ok_or_else(|| Refusal::new(Reason::ModelUnknown, format!("model `{}` is unknown", model.name)))
    }
}

/// A model behind its queue.
#[derive(Debug)]
struct Seat {
    model: ModelName,
    signatures: Signatures,
    queue: BatchQueue,
    questions: Arc<Questions>,
}

impl Servable for Seat {
    fn model(&self) -> &ModelName {
        &self.model
    }

    fn version(&self) -> u64 {
        1
    }

    fn signatures(&self) -> &Signatures {
        &self.signatures
    }

    fn infer(&self, request: InferRequest) -> InferFuture {
        let (model, rows, context) = (self.model.to_string(), request.inputs[0].shape()[0], request.context);
        let answer = self.queue.infer(request);
        let Questions(questions, changed) = &*self.questions;
        let mut questions = questions.lock();
        let number = questions.len();
        questions.push(Question { model, rows, context, batch_rows: None });
        changed.notify_all();
        let questions = Arc::clone(&self.questions);
        InferFuture::boxed(async move {
            let answer = answer.await?;
            questions.0.lock()[number].batch_rows = Some(answer.stages.batch_rows);
            Ok(answer)
        })
    }
}

/// A network whose runs pass a gate.
#[derive(Debug)]
struct Held {
    network: Arc<dyn Model>,
    gate: Gate,
}

impl Model for Held {
    fn signature(&self) -> &Signature {
        self.network.signature()
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(HeldInstance { instance: self.network.instance()?, gate: self.gate.clone() }))
    }
}

struct HeldInstance {
    instance: Box<dyn Instance>,
    gate: Gate,
}

impl Instance for HeldInstance {
    fn run(&mut self, batch: &Batch, context: &RunContext<'_>) -> Result<BatchOutputs, RunError> {
        self.gate.pass();
        self.instance.run(batch, context)
    }
}

/// A model that a test plays.
struct Fake {
    model: ModelName,
    signatures: Signatures,
    answer: Box<dyn Fn(InferRequest) -> InferResult + Send + Sync>,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fake({})", self.model)
    }
}

impl Servable for Fake {
    fn model(&self) -> &ModelName {
        &self.model
    }

    fn version(&self) -> u64 {
        1
    }

    fn signatures(&self) -> &Signatures {
        &self.signatures
    }

    fn infer(&self, request: InferRequest) -> InferFuture {
        InferFuture::ready((self.answer)(request))
    }
}

/// The answer that has these tensors.
pub(crate) fn answered(outputs: impl IntoIterator<Item = Tensor>) -> InferResult {
    Ok(InferResponse { outputs: outputs.into_iter().collect(), stages: Stages::immediate(now()) })
}

/// The roles that the pipeline called `name` has in the fixtures.
pub(crate) fn roles(name: &str) -> Vec<(&'static str, &'static str)> {
    match name {
        "face_detection" => ROLES[..3].to_vec(),
        "face_recognition" => ROLES[3..].to_vec(),
        _ => ROLES.to_vec(),
    }
}

/// A file of the fixtures.
pub(crate) fn file(path: &str) -> Vec<u8> {
    fs::read(fixture(path)).unwrap()
}

pub(crate) fn astronaut() -> Vec<u8> {
    file("face/astronaut.png")
}

/// A PNG of `width` x `height` RGB pixels.
pub(crate) fn png(width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 3]) -> Vec<u8> {
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let bytes: Vec<u8> = places.flat_map(|(x, y)| pixel(x, y)).collect();
    encoded(width, height, png::ColorType::Rgb, png::BitDepth::Eight, &bytes)
}

/// A PNG of these samples.
pub(crate) fn encoded(width: u32, height: u32, color: png::ColorType, depth: png::BitDepth, samples: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    encoder.write_header().unwrap().write_image_data(samples).unwrap();
    file
}

/// A request about these files.
pub(crate) fn request(files: &[Vec<u8>]) -> InferRequest {
    let strings: Strings = files.iter().collect();
    InferRequest::new(vec![Tensor::from_strings(&[files.len()], strings).unwrap()], RequestContext::new(now()))
}

pub(crate) fn wait(future: InferFuture) -> Result<InferResponse, Refusal> {
    pollster::block_on(future)
}

pub(crate) fn ask(servable: &Arc<dyn Servable>, files: &[Vec<u8>]) -> Result<InferResponse, Refusal> {
    wait(servable.infer(request(files)))
}

/// The numbers of output `index`.
pub(crate) fn numbers(response: &InferResponse, index: usize) -> Vec<f32> {
    response.outputs[index].elements::<f32>().unwrap().into_owned()
}

/// The counts of faces, which are the first output.
pub(crate) fn counts(response: &InferResponse) -> Vec<i32> {
    response.outputs[0].elements::<i32>().unwrap().into_owned()
}

/// Asserts that the numbers differ by at most `tolerance`.
#[track_caller]
pub(crate) fn assert_near(got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len());
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= tolerance, "number {index}: got {got}, want {want}");
    }
}

pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
