//! Engines for tests. They take `x` FP32 `[N,2]` and give `y` FP32 `[N]`; each run advances the world's clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use millrace_backend_auto::{AutoBackend, AutoConfig, Available, Clock};
use millrace_core::{
    Backend, Batch, BatchOutputs, DType, Dim, EngineChoice, EngineOutcome, Group, Instance, LoadError, LoadErrorKind,
    MemoryFiles, Model, ModelFacts, ModelSource, Prepared, RunContext, RunError, Signature, Tensor, TensorSpec,
};
use parking_lot::Mutex;

/// One clock for all engines of a test, and what they have in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    nanos: Arc<AtomicU64>,
    /// Models that are loaded now, and the most that ever were.
    alive: Arc<AtomicUsize>,
    most_alive: Arc<AtomicUsize>,
}

impl World {
    pub(crate) fn clock(&self) -> Clock {
        let nanos = Arc::clone(&self.nanos);
        Clock::new(move || Duration::from_nanos(nanos.load(Ordering::SeqCst)))
    }

    pub(crate) fn now(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::SeqCst))
    }

    /// Lets time pass.
    pub(crate) fn advance(&self, nanos: u64) {
        self.nanos.fetch_add(nanos, Ordering::SeqCst);
    }

    pub(crate) fn most_alive(&self) -> usize {
        self.most_alive.load(Ordering::SeqCst)
    }

    /// An engine that answers `y = x0 + 2 x1` and takes a microsecond for each row.
    pub(crate) fn engine(&self, name: &'static str) -> Engine {
        Engine(Arc::new(Behaviour {
            name,
            world: self.clone(),
            cost: |rows| rows as u64 * 1000,
            answer: right,
            signature: signature(),
            load_error: None,
            panics_in: None,
            memory: 100,
            facts: ModelFacts::default(),
            load_nanos: 10,
            log: Mutex::default(),
        }))
    }

    /// A choice among `engines` on this clock.
    pub(crate) fn auto(&self, engines: &[&Engine]) -> AutoBackend {
        self.configured(engines, |_| {})
    }

    pub(crate) fn configured(&self, engines: &[&Engine], configure: impl FnOnce(&mut AutoConfig)) -> AutoBackend {
        let available = Available::new(|| None);
        let mut config = AutoConfig { clock: self.clock(), available, ..AutoConfig::default() };
        configure(&mut config);
        AutoBackend::new(engines.iter().map(|engine| Arc::new((*engine).clone()) as Arc<dyn Backend>).collect(), config)
    }
}

/// What a run gives for the rows of its input.
pub(crate) type Answer = fn(&[[f32; 2]]) -> Result<Vec<f32>, RunError>;

#[expect(clippy::unnecessary_wraps, reason = "other answers fail")]
pub(crate) fn right(rows: &[[f32; 2]]) -> Result<Vec<f32>, RunError> {
    Ok(rows.iter().map(|[a, b]| a + 2.0 * b).collect())
}

pub(crate) fn signature() -> Signature {
    let spec = |name, shape: &[Dim]| TensorSpec::new(name, DType::Fp32, shape.to_vec());
    let inputs = vec![spec("x", &[Dim::symbol("N"), Dim::Fixed(2)])];
    Signature::new(inputs, vec![spec("y", &[Dim::symbol("N")])]).unwrap()
}

/// What an engine was asked to do.
#[derive(Debug, Default, Clone)]
pub(crate) struct Log {
    pub(crate) loads: usize,
    pub(crate) runs: Vec<usize>,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) inputs: Vec<[f32; 2]>,
}

#[derive(Debug, Clone)]
pub(crate) struct Engine(Arc<Behaviour>);

#[derive(Debug)]
struct Behaviour {
    name: &'static str,
    world: World,
    cost: fn(usize) -> u64,
    answer: Answer,
    signature: Signature,
    load_error: Option<(LoadErrorKind, &'static str)>,
    panics_in: Option<&'static str>,
    memory: u64,
    facts: ModelFacts,
    load_nanos: u64,
    log: Mutex<Log>,
}

impl Engine {
    fn with(self, change: impl FnOnce(&mut Behaviour)) -> Self {
        let mut behaviour = Arc::try_unwrap(self.0).expect("an engine is changed before it is used");
        change(&mut behaviour);
        Self(Arc::new(behaviour))
    }

    /// Nanoseconds of a run of so many rows.
    pub(crate) fn cost(self, cost: fn(usize) -> u64) -> Self {
        self.with(|behaviour| behaviour.cost = cost)
    }

    pub(crate) fn answer(self, answer: Answer) -> Self {
        self.with(|behaviour| behaviour.answer = answer)
    }

    pub(crate) fn signature(self, signature: Signature) -> Self {
        self.with(|behaviour| behaviour.signature = signature)
    }

    pub(crate) fn refuses_to_load(self, kind: LoadErrorKind, text: &'static str) -> Self {
        self.with(|behaviour| behaviour.load_error = Some((kind, text)))
    }

    /// Panics in `load`, `instance`, `run`, `prepare` or `admit`.
    pub(crate) fn panics_in(self, place: &'static str) -> Self {
        self.with(|behaviour| behaviour.panics_in = Some(place))
    }

    pub(crate) fn memory(self, bytes: u64) -> Self {
        self.with(|behaviour| behaviour.memory = bytes)
    }

    pub(crate) fn property(self, name: &str, value: &str) -> Self {
        self.with(|behaviour| drop(behaviour.facts.properties.insert(name.to_owned(), value.to_owned())))
    }

    pub(crate) fn log(&self) -> Log {
        self.0.log.lock().clone()
    }

    pub(crate) fn forget(&self) {
        *self.0.log.lock() = Log::default();
    }
}

impl Behaviour {
    fn perhaps_panics(&self, place: &str) {
        assert_ne!(self.panics_in, Some(place), "the engine panics, as the test asked");
    }
}

impl Backend for Engine {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn recognises(&self, source: &ModelSource) -> bool {
        source.files.list().iter().any(|(name, _)| name.ends_with(".model"))
    }

    fn load(&self, source: &ModelSource) -> Result<Arc<dyn Model>, LoadError> {
        let mut log = self.0.log.lock();
        log.loads += 1;
        log.options.clone_from(&source.options);
        drop(log);
        self.0.perhaps_panics("load");
        if let Some((kind, text)) = self.0.load_error {
            return Err(LoadError::new(kind, text));
        }
        if self.0.memory > source.memory_budget {
            return Err(LoadError::new(LoadErrorKind::TooLarge, "it does not fit"));
        }
        let world = &self.0.world;
        world.nanos.fetch_add(self.0.load_nanos, Ordering::SeqCst);
        let alive = world.alive.fetch_add(1, Ordering::SeqCst) + 1;
        world.most_alive.fetch_max(alive, Ordering::SeqCst);
        Ok(Arc::new(TestModel(Arc::clone(&self.0))))
    }
}

#[derive(Debug)]
struct TestModel(Arc<Behaviour>);

impl Drop for TestModel {
    fn drop(&mut self) {
        self.0.world.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Model for TestModel {
    fn signature(&self) -> &Signature {
        &self.0.signature
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        self.0.perhaps_panics("instance");
        Ok(Box::new(TestInstance(Arc::clone(&self.0))))
    }

    fn memory_bytes(&self) -> u64 {
        self.0.memory
    }

    fn admit(&self, _: &millrace_core::Admission) -> Result<(), millrace_core::InputError> {
        self.0.perhaps_panics("admit");
        Ok(())
    }

    fn prepared(&self, _: &Group) -> Prepared {
        Prepared::Sizes([1, 16].into_iter().collect())
    }

    fn prepare(&self, _: &Group, _: usize) -> Result<(), LoadError> {
        self.0.perhaps_panics("prepare");
        Ok(())
    }

    fn facts(&self) -> ModelFacts {
        self.0.facts.clone()
    }
}

struct TestInstance(Arc<Behaviour>);

impl Instance for TestInstance {
    fn run(&mut self, batch: &Batch, _: &RunContext<'_>) -> Result<BatchOutputs, RunError> {
        let input = batch.gather(0)?;
        let elements = input.elements::<f32>()?;
        let rows: Vec<[f32; 2]> = elements.chunks_exact(2).map(|row| [row[0], row[1]]).collect();
        self.0.world.nanos.fetch_add((self.0.cost)(rows.len()), Ordering::SeqCst);
        let mut log = self.0.log.lock();
        log.runs.push(rows.len());
        log.inputs.extend(&rows);
        drop(log);
        self.0.perhaps_panics("run");
        let answer = (self.0.answer)(&rows)?;
        Ok(BatchOutputs::all([Tensor::from_vec(&[answer.len()], answer)?]))
    }
}

/// A version with one small file.
pub(crate) fn source() -> ModelSource {
    with_content("weights")
}

pub(crate) fn with_content(content: &'static str) -> ModelSource {
    let files = MemoryFiles::default().with("the.model", content);
    ModelSource::new("fraud".parse().unwrap(), 1, Arc::new(files))
}

pub(crate) fn load(auto: &AutoBackend) -> Arc<dyn Model> {
    auto.load(&source()).unwrap()
}

pub(crate) fn choice(model: &Arc<dyn Model>) -> Arc<EngineChoice> {
    model.facts().choice.expect("whatever the choice loads says how it was chosen")
}

/// Who serves: `a`, or by rows `1:a 8:b`.
pub(crate) fn serves(model: &Arc<dyn Model>) -> String {
    match choice(model).ranges.as_slice() {
        [one] => one.engine.to_string(),
        ranges => {
            ranges.iter().map(|range| format!("{}:{}", range.rows_from, range.engine)).collect::<Vec<_>>().join(" ")
        }
    }
}

/// Why `engine` was dropped.
#[track_caller]
pub(crate) fn dropped(model: &Arc<dyn Model>, engine: &str) -> String {
    let choice = choice(model);
    match &choice.engines.iter().find(|trial| *trial.engine == *engine).unwrap().outcome {
        EngineOutcome::Dropped(reason) => reason.clone(),
        other => panic!("{engine} was {other:?}"),
    }
}

/// Runs `rows` rows of `[1, row]` and checks the answers.
#[track_caller]
pub(crate) fn runs(model: &Arc<dyn Model>, rows: usize) {
    run_by(&mut *model.instance().unwrap(), rows);
}

#[track_caller]
pub(crate) fn run_by(instance: &mut dyn Instance, rows: usize) {
    let elements: Vec<f32> = (0..rows).flat_map(|row| [1.0, row as f32]).collect();
    let input = Tensor::from_vec(&[rows, 2], elements).unwrap();
    let batch = Batch::single([input].into_iter().collect(), rows);
    let outputs = instance.run(&batch, &RunContext::plain()).unwrap();
    let expected: Vec<f32> = (0..rows).map(|row| 1.0 + 2.0 * row as f32).collect();
    assert_eq!(outputs.0[0].as_ref().unwrap().elements::<f32>().unwrap().as_ref(), expected);
}
