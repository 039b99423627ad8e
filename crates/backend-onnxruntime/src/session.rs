//! Sessions: one of one thread that all instances of a model run at once, and one of several threads for lone rows.

use std::ffi::{CStr, CString};

use bytes::Bytes;
use millrace_core::{LoadError, LoadErrorKind, Tensor};
use ort::Error;
use ort::environment::Environment;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::input::Gathered;
use crate::options::{Options, Provider};
use crate::raw;

/// A session and what a run of it needs.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) session: Session,
    /// How many threads a run takes, the calling one included.
    pub(crate) threads: usize,
    input_names: Vec<CString>,
    output_names: Vec<CString>,
    memory: MemoryInfo<'static>,
    /// Runs take turns where the engine does not promise that a device takes several at once.
    turns: Option<Mutex<()>>,
}

/// What a session is made from.
pub(crate) struct Parts<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) options: &'a Options,
    /// The execution providers that the library has, of those that the options ask for.
    pub(crate) providers: &'a [Provider],
    pub(crate) model: &'a [u8],
    pub(crate) external: &'a [(CString, Bytes)],
}

impl Runner {
    /// Makes a session whose runs take `threads` threads.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) fn new(parts: &Parts<'_>, threads: usize) -> Result<Self, Error> {
        let mut builder = builder(parts, threads)?;
        let session = raw::commit(&mut builder, parts.model, parts.external)?;
        let names = |outlets: &[ort::value::Outlet]| {
            outlets.iter().map(|outlet| CString::new(outlet.name())).collect::<Result<Vec<_>, _>>()
        };
        let (input_names, output_names) = (names(session.inputs())?, names(session.outputs())?);
        let memory = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Arena, MemoryType::Default)?;
        let turns = (parts.providers != [Provider::Cpu]).then(Mutex::default);
        Ok(Self { session, threads, input_names, output_names, memory, turns })
    }

    /// Runs on `inputs`, in order, for the outputs of which `wanted` is true; the others stay `None`.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) fn run(
        &self,
        inputs: &[Gathered<'_>],
        wanted: &dyn Fn(usize) -> bool,
    ) -> Result<SmallVec<[Option<Tensor>; 2]>, Error> {
        let inputs = inputs.iter().map(|input| input.bind(&self.memory));
        let inputs = inputs.collect::<Result<SmallVec<[raw::Input<'_>; 4]>, _>>()?;
        let names: SmallVec<[&CStr; 2]> = (0..self.output_names.len())
            .filter(|index| wanted(*index))
            .map(|index| &*self.output_names[index])
            .collect();
        let turn = self.turns.as_ref().map(Mutex::lock);
        let outputs = raw::run(&self.session, &self.input_names, &inputs, &names)?;
        drop(turn);
        let mut outputs = outputs.into_iter();
        Ok((0..self.output_names.len()).map(|index| if wanted(index) { outputs.next() } else { None }).collect())
    }
}

fn builder(parts: &Parts<'_>, threads: usize) -> Result<SessionBuilder, Error> {
    let options = parts.options;
    let mut builder = Session::builder(parts.environment)?
        .with_optimization_level(options.optimization)?
        .with_intra_threads(threads)?
        .with_inter_threads(1)?
        .with_parallel_execution(false)?
        // Threads that wait for work by turning in circles would take the cores of other models.
        .with_config_entry("session.intra_op.allow_spinning", "0")?
        // Data beside the model comes from memory. What would be looked for in spite of that is not found.
        .with_config_entry("session.model_external_initializers_file_folder_path", NOWHERE)?
        // A constant that a small file describes may be larger than any memory.
        .with_config_entry("optimization.constant_folding_max_output_size_in_bytes", LARGEST_FOLDED)?;
    if !options.memory_arena {
        builder = builder.with_memory_pattern(false)?;
    }
    let cpu = ort::ep::CPU::default().with_arena_allocator(options.memory_arena).build().error_on_failure();
    for provider in parts.providers {
        let chosen = match provider {
            Provider::Cpu => cpu.clone(),
            Provider::Cuda => ort::ep::CUDA::default().build().error_on_failure(),
            Provider::TensorRt => ort::ep::TensorRT::default().build().error_on_failure(),
            Provider::OpenVino => ort::ep::OpenVINO::default().build().error_on_failure(),
        };
        builder = builder.with_execution_providers([chosen])?;
    }
    Ok(builder)
}

const NOWHERE: &str = "/nonexistent";
const LARGEST_FOLDED: &str = "268435456";

/// The providers that `options` asks for and the library has.
///
/// # Errors
/// [`LoadError`] when none of them is there.
pub(crate) fn providers(options: &Options, built_in: &[String]) -> Result<Vec<Provider>, LoadError> {
    let is_there = |provider: &&Provider| built_in.iter().any(|name| name == provider.library_name());
    let found: Vec<Provider> = options.providers.iter().filter(is_there).copied().collect();
    let missing: Vec<&str> =
        options.providers.iter().filter(|provider| !is_there(provider)).map(|provider| provider.name()).collect();
    if missing.is_empty() {
        return Ok(found);
    }
    let (missing, has) = (missing.join(", "), built_in.join(", "));
    if found.is_empty() {
        let text = format!("option `execution_providers`: this library has no {missing}; it has {has}");
        return Err(LoadError::new(LoadErrorKind::Unsupported, text));
    }
    tracing::warn!("option `execution_providers`: this onnxruntime library has no {missing}; it has {has}");
    Ok(found)
}
