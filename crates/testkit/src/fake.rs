//! A tiny engine with a real contract, whose misbehaviour a test chooses by value.
//!
//! The model takes `x` FP32 `[N]` (or `[N,width]`) and gives `y = x * scale + offset` of the same shape. Special input
//! values make a run misbehave, so that a poisonous request can ride in a batch with good ones.

use std::panic::panic_any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ThreadId};

use millrace_core::{
    Backend, Batch, BatchOutputs, DType, Dim, Instance, LoadError, LoadErrorKind, Model, ModelSource, RunContext,
    RunError, Signature, Tensor, TensorSpec,
};
use parking_lot::Mutex;

use crate::Gate;

/// What a run does when some element of its input equals [`Misbehaviour::value`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misbehaviour {
    /// Panics.
    Panic,
    /// Returns [`RunError::InvalidInput`].
    InvalidInput,
    /// Returns [`RunError::Failed`].
    Fail,
    /// Waits at the model's hang gate.
    Hang,
    /// Returns one row too few.
    TooFewRows,
    /// Returns one row too many.
    TooManyRows,
    /// Returns FP64.
    WrongDType,
}

impl Misbehaviour {
    const ALL: [Self; 7] = [
        Self::Panic,
        Self::InvalidInput,
        Self::Fail,
        Self::Hang,
        Self::TooFewRows,
        Self::TooManyRows,
        Self::WrongDType,
    ];

    /// The input value that causes it.
    pub const fn value(self) -> f32 {
        match self {
            Self::Panic => -9001.0,
            Self::InvalidInput => -9002.0,
            Self::Fail => -9003.0,
            Self::Hang => -9004.0,
            Self::TooFewRows => -9005.0,
            Self::TooManyRows => -9006.0,
            Self::WrongDType => -9007.0,
        }
    }
}

/// Builds a [`FakeModel`].
#[derive(Debug, Clone)]
pub struct FakeModelBuilder {
    scale: f32,
    offset: f32,
    width: Option<usize>,
    batched: bool,
    memory: u64,
    gate: Gate,
    hang: Gate,
}

impl FakeModelBuilder {
    /// `y = x * scale + offset`.
    #[must_use]
    pub fn affine(mut self, scale: f32, offset: f32) -> Self {
        (self.scale, self.offset) = (scale, offset);
        self
    }

    /// Rows of `width` elements instead of scalars.
    #[must_use]
    pub fn width(mut self, width: usize) -> Self {
        self.width = Some(width);
        self
    }

    /// Never batched.
    #[must_use]
    pub fn unbatched(mut self) -> Self {
        self.batched = false;
        self
    }

    /// Claims so many bytes of memory.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// Every run passes `gate` first.
    #[must_use]
    pub fn gate(mut self, gate: Gate) -> Self {
        self.gate = gate;
        self
    }

    /// Runs with a [`Misbehaviour::Hang`] value wait at `gate`.
    #[must_use]
    pub fn hang(mut self, gate: Gate) -> Self {
        self.hang = gate;
        self
    }

    /// The model.
    ///
    /// # Panics
    /// Never: the fake's own signature is sound.
    pub fn build(self) -> Arc<FakeModel> {
        let mut shape = vec![Dim::symbol("N")];
        shape.extend(self.width.map(Dim::Fixed));
        let input = TensorSpec::new("x", DType::Fp32, shape.clone());
        let output = TensorSpec::new("y", DType::Fp32, shape);
        let signature = Signature::new(vec![input], vec![output]).expect("the fake's signature is sound");
        let signature = if self.batched { signature } else { signature.unbatched() };
        Arc::new(FakeModel {
            options: self,
            signature,
            runs: Mutex::default(),
            threads: Mutex::default(),
            instances: AtomicUsize::new(0),
        })
    }
}

/// The fake engine's model. Keeps a log of its runs.
#[derive(Debug)]
pub struct FakeModel {
    options: FakeModelBuilder,
    signature: Signature,
    runs: Mutex<Vec<usize>>,
    threads: Mutex<Vec<ThreadId>>,
    instances: AtomicUsize,
}

impl FakeModel {
    /// `y = 2 * x`, rows of one element.
    pub fn builder() -> FakeModelBuilder {
        FakeModelBuilder {
            scale: 2.0,
            offset: 0.0,
            width: None,
            batched: true,
            memory: 0,
            gate: Gate::opened(),
            hang: Gate::closed(),
        }
    }

    /// The rows of each run so far, padding included, in the order in which they began.
    pub fn runs(&self) -> Vec<usize> {
        self.runs.lock().clone()
    }

    /// The thread of each run so far, in the order in which they began.
    pub fn run_threads(&self) -> Vec<ThreadId> {
        self.threads.lock().clone()
    }

    /// How many instances were made.
    pub fn instances_made(&self) -> usize {
        self.instances.load(Ordering::SeqCst)
    }

    fn run(&self, batch: &Batch) -> Result<BatchOutputs, RunError> {
        self.runs.lock().push(batch.rows());
        self.threads.lock().push(thread::current().id());
        self.options.gate.pass();
        let input = batch.gather(0)?;
        let elements = input.elements::<f32>()?;
        let row = input.shape().row_elements();
        let mut output: Vec<f32> = elements.iter().map(|x| x * self.options.scale + self.options.offset).collect();
        let asked = Misbehaviour::ALL.into_iter().find(|kind| elements.contains(&kind.value()));
        match asked {
            None => {}
            Some(Misbehaviour::Panic) => panic_any("the fake backend panics, as the test asked"),
            Some(Misbehaviour::InvalidInput) => {
                return Err(RunError::InvalidInput("a value is out of range".to_owned()));
            }
            Some(Misbehaviour::Fail) => {
                return Err(RunError::Failed("the fake backend fails, as the test asked".into()));
            }
            Some(Misbehaviour::Hang) => self.options.hang.pass(),
            Some(Misbehaviour::TooFewRows) => output.truncate(output.len().saturating_sub(row)),
            Some(Misbehaviour::TooManyRows) => output.extend(vec![0.0; row]),
            Some(Misbehaviour::WrongDType) => {
                let wide: Vec<f64> = output.iter().map(|&y| f64::from(y)).collect();
                return Ok(BatchOutputs::all([Tensor::from_vec(input.shape(), wide)?]));
            }
        }
        let shape =
            input.shape().with_rows(output.len() / row.max(1)).map_err(|error| RunError::Failed(error.into()))?;
        Ok(BatchOutputs::all([Tensor::from_vec(&shape, output)?]))
    }
}

/// [`Model`] for a shared [`FakeModel`], so that a test keeps a handle to the log.
#[derive(Debug)]
struct Shared(Arc<FakeModel>);

impl FakeModel {
    /// The model as the registry and the batch queue take it.
    pub fn as_model(self: &Arc<Self>) -> Arc<dyn Model> {
        Arc::new(Shared(Arc::clone(self)))
    }
}

impl Model for Shared {
    fn signature(&self) -> &Signature {
        &self.0.signature
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        self.0.instances.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(FakeInstance(Arc::clone(&self.0))))
    }

    fn memory_bytes(&self) -> u64 {
        self.0.options.memory
    }
}

struct FakeInstance(Arc<FakeModel>);

impl Instance for FakeInstance {
    fn run(&mut self, batch: &Batch, _context: &RunContext<'_>) -> Result<BatchOutputs, RunError> {
        self.0.run(batch)
    }
}

/// Loads `*.fake` files: lines of `key = value`.
///
/// | key | meaning |
/// |---|---|
/// | `scale`, `offset` | numbers; `y = x * scale + offset` |
/// | `width` | elements per row |
/// | `memory` | claimed bytes |
/// | `fail` | loading fails with this text |
/// | `panic` | loading panics with this text |
///
/// A file without a last line `end` counts as cut off and fails. Every load passes the backend's gate.
#[derive(Debug, Clone)]
pub struct FakeBackend {
    load_gate: Gate,
    run_gate: Gate,
    hang: Gate,
}

impl Default for FakeBackend {
    fn default() -> Self {
        Self { load_gate: Gate::opened(), run_gate: Gate::opened(), hang: Gate::closed() }
    }
}

impl FakeBackend {
    /// The text of a file for `y = x * scale + offset`.
    pub fn file(scale: f32, offset: f32) -> String {
        format!("scale = {scale}\noffset = {offset}\nend\n")
    }

    /// Every load passes `gate` first.
    #[must_use]
    pub fn load_gate(mut self, gate: Gate) -> Self {
        self.load_gate = gate;
        self
    }

    /// Every run of every model passes `gate` first.
    #[must_use]
    pub fn run_gate(mut self, gate: Gate) -> Self {
        self.run_gate = gate;
        self
    }

    /// Runs with a [`Misbehaviour::Hang`] value wait at `gate`.
    #[must_use]
    pub fn hang(mut self, gate: Gate) -> Self {
        self.hang = gate;
        self
    }
}

impl Backend for FakeBackend {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn recognises(&self, source: &ModelSource) -> bool {
        source.files.list().iter().any(|(name, _)| name.ends_with(".fake"))
    }

    fn load(&self, source: &ModelSource) -> Result<Arc<dyn Model>, LoadError> {
        self.load_gate.pass();
        let name = source.files.list().iter().map(|(name, _)| name).find(|name| name.ends_with(".fake"));
        let name = name.ok_or_else(|| LoadError::new(LoadErrorKind::Missing, "no *.fake file"))?;
        let invalid = |message: String| LoadError::new(LoadErrorKind::Invalid, format!("{name}: {message}"));
        let bytes = source
            .files
            .read(name)
            .map_err(|error| LoadError::new(LoadErrorKind::Missing, "cannot read the file").with_cause(error))?;
        let text = std::str::from_utf8(&bytes).map_err(|error| invalid(error.to_string()))?;
        let mut lines: Vec<&str> = text.lines().collect();
        if lines.pop() != Some("end") {
            return Err(invalid("the file is cut off".to_owned()));
        }
        let mut model = FakeModel::builder().gate(self.run_gate.clone()).hang(self.hang.clone());
        for line in lines {
            let (key, value) = line.split_once(" = ").ok_or_else(|| invalid(format!("no `key = value`: {line}")))?;
            let number = || value.parse::<f32>().map_err(|error| invalid(error.to_string()));
            let count = || value.parse::<usize>().map_err(|error| invalid(error.to_string()));
            match key {
                "scale" => model.scale = number()?,
                "offset" => model.offset = number()?,
                "width" => model.width = Some(count()?),
                "memory" => model.memory = count()? as u64,
                "fail" => return Err(LoadError::new(LoadErrorKind::Unsupported, value)),
                "panic" => panic_any(value.to_owned()),
                _ => return Err(invalid(format!("unknown key {key}"))),
            }
        }
        Ok(model.build().as_model())
    }
}
