//! From a graph to a plan: which nodes are needed, in which order values are made, what is constant already.

use std::collections::{BTreeSet, HashMap, HashSet};

use millrace_core::{Dim, LoadError, LoadErrorKind, ModelSource, Signature, TensorSpec};
use millrace_onnx::{Axis, Graph, ML_DOMAIN, Model, Node, ValueInfo, ValueKind};
use smallvec::SmallVec;

use super::constant::{self, load_error};
use super::fact::{Fact, Size};
use super::kernel::{Inputs, Kernel, Place, Scratch};
use super::node::{Input, NodeView, short};
use super::ops;
use super::value::{Kind, Value};

/// The most nodes of a file. Pipelines have some dozens.
const MAX_NODES: usize = 100_000;

/// A graph, ready to run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) signature: Signature,
    /// The kinds of the inputs, whose slots come first.
    pub(crate) inputs: Vec<Kind>,
    pub(crate) steps: Vec<Step>,
    pub(crate) outputs: Vec<Place>,
    pub(crate) constants: Vec<Value>,
    pub(crate) n_slots: usize,
    /// Bytes of values for each row.
    pub(crate) row_bytes: u64,
    /// What people may want to know, by name.
    pub(crate) notes: Vec<(String, String)>,
}

/// A node in a plan. Its outputs lie behind all slots that it reads.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) kernel: Box<dyn Kernel>,
    pub(crate) inputs: SmallVec<[Place; 4]>,
    pub(crate) first_output: usize,
    pub(crate) n_outputs: usize,
    /// The outputs of the model that need it, a bit for each.
    pub(crate) needed_by: u64,
    /// The node, for messages.
    pub(crate) name: String,
}

/// What is known under a name.
#[derive(Debug)]
struct Known {
    place: Place,
    fact: Fact,
}

/// Compiles `model`, the content of `file`.
///
/// # Errors
/// [`LoadError`] naming the node, input or constant at fault.
pub(crate) fn compile(file: &str, model: &Model<'_>, source: &ModelSource) -> Result<Plan, LoadError> {
    let graph = model.graph();
    let invalid = |text: String| LoadError::new(LoadErrorKind::Invalid, format!("{file}: {text}"));
    if model.n_functions() > 0 {
        let text = format!("{file}: functions of the model's own are not supported");
        return Err(LoadError::new(LoadErrorKind::Unsupported, text));
    }
    if graph.n_sparse() > 0 {
        let text = format!("{file}: sparse constants are not supported");
        return Err(LoadError::new(LoadErrorKind::Unsupported, text));
    }
    let nodes: Vec<Node<'_>> = graph.nodes().take(MAX_NODES + 1).collect();
    if nodes.len() > MAX_NODES {
        return Err(LoadError::new(LoadErrorKind::TooLarge, format!("{file}: more than {MAX_NODES} nodes")));
    }
    let mut builder = Builder {
        file,
        source,
        model,
        names: HashMap::new(),
        constants: Vec::new(),
        facts: Vec::new(),
        steps: Vec::new(),
        notes: Vec::new(),
        spent: 0,
    };
    builder.take_constants(&graph)?;
    let inputs = builder.take_inputs(&graph)?;
    let needed = needed(&graph, &nodes);
    for (node, is_needed) in nodes.iter().zip(needed) {
        if is_needed {
            builder.take_node(*node)?;
        }
    }
    let mut outputs = Vec::new();
    let mut specs = Vec::new();
    let mut is_mixed = None;
    for output in graph.outputs() {
        let name = output.name();
        let known =
            builder.names.get(name).ok_or_else(|| invalid(format!("nothing writes the output `{}`", short(name))))?;
        check_output(&output, &known.fact).map_err(|text| invalid(format!("output `{}`: {text}", short(name))))?;
        if known.fact.is_mixed || known.fact.counts_rows() {
            is_mixed.get_or_insert_with(|| format!("output `{}` depends on several rows at once", short(name)));
        }
        specs.push(spec(&output, &known.fact, &inputs.batch));
        outputs.push(known.place);
    }
    if outputs.is_empty() {
        return Err(invalid("the graph has no outputs".to_owned()));
    }
    let signature = Signature::new(inputs.specs, specs).map_err(|error| invalid(error.to_string()))?;
    let signature = match is_mixed {
        Some(why) => {
            builder.notes.push(("not batched".to_owned(), why));
            signature.unbatched()
        }
        None => signature,
    };
    let Builder { constants, facts, mut steps, notes, .. } = builder;
    mark_needed(&mut steps, &outputs);
    let row_bytes = facts.iter().fold(0, |total: u64, fact| total.saturating_add(fact.row_bytes()));
    Ok(Plan { signature, inputs: inputs.kinds, steps, outputs, constants, n_slots: facts.len(), row_bytes, notes })
}

/// Which nodes some output needs; nodes stand behind those they read from.
fn needed(graph: &Graph<'_>, nodes: &[Node<'_>]) -> Vec<bool> {
    let mut wanted: HashSet<&str> = graph.outputs().map(|output| output.name()).collect();
    let mut needed: Vec<bool> = nodes
        .iter()
        .rev()
        .map(|node| {
            let is_needed = node.outputs().any(|output| !output.is_empty() && wanted.contains(output));
            if is_needed {
                wanted.extend(node.inputs());
            }
            is_needed
        })
        .collect();
    needed.reverse();
    needed
}

/// Notes for each step which of the first 64 outputs need it; a model of more runs whole.
fn mark_needed(steps: &mut [Step], outputs: &[Place]) {
    if outputs.len() > 64 {
        steps.iter_mut().for_each(|step| step.needed_by = u64::MAX);
        return;
    }
    let mut slots: HashMap<usize, u64> = HashMap::new();
    for (index, place) in outputs.iter().enumerate() {
        if let Place::Slot(slot) = place {
            *slots.entry(*slot).or_default() |= 1 << index;
        }
    }
    for step in steps.iter_mut().rev() {
        let made = step.first_output..step.first_output + step.n_outputs;
        step.needed_by = made.filter_map(|slot| slots.get(&slot)).fold(0, |all, bits| all | bits);
        for place in &step.inputs {
            if let Place::Slot(slot) = place {
                *slots.entry(*slot).or_default() |= step.needed_by;
            }
        }
    }
}

/// The file says what an output is; if the nodes make something else, one of them is not what the author meant.
fn check_output(output: &ValueInfo<'_>, fact: &Fact) -> Result<(), String> {
    let declared = match output.kind() {
        ValueKind::Tensor(element) => constant::kind(element),
        ValueKind::Maps(_, values) | ValueKind::Map(_, values) => constant::kind(values),
        ValueKind::Other => return Ok(()),
    };
    match declared {
        Some(kind) if kind != fact.kind => {
            Err(format!("declared as {}, but its node makes {}", kind.name(), fact.kind.name()))
        }
        _ => Ok(()),
    }
}

fn spec(output: &ValueInfo<'_>, fact: &Fact, batch: &str) -> TensorSpec {
    let dim = |size: &Size| match size {
        Size::Rows => Dim::symbol(batch),
        Size::Fixed(size) => Dim::Fixed(*size),
        Size::Unknown => Dim::Unknown,
    };
    let shape: Vec<Dim> = match &fact.shape {
        Some(shape) => shape.iter().map(dim).collect(),
        None => output.shape().map(|axes| axes.map(|_| Dim::Unknown).collect()).unwrap_or_default(),
    };
    TensorSpec::new(output.name(), dtype(fact.kind), shape)
}

fn dtype(kind: Kind) -> millrace_core::DType {
    use millrace_core::DType;
    match kind {
        Kind::F32 => DType::Fp32,
        Kind::F64 => DType::Fp64,
        Kind::I64 => DType::Int64,
        Kind::I32 => DType::Int32,
        Kind::Bool => DType::Bool,
        Kind::Text => DType::Bytes,
    }
}

/// The model's inputs.
struct ModelInputs {
    specs: Vec<TensorSpec>,
    kinds: Vec<Kind>,
    /// The symbol of the rows.
    batch: String,
}

/// What has been compiled so far.
struct Builder<'a> {
    file: &'a str,
    source: &'a ModelSource,
    model: &'a Model<'a>,
    names: HashMap<&'a str, Known>,
    constants: Vec<Value>,
    /// One for each slot.
    facts: Vec<Fact>,
    steps: Vec<Step>,
    notes: Vec<(String, String)>,
    /// Bytes of constants.
    spent: u64,
}

impl<'a> Builder<'a> {
    fn error(&self, kind: LoadErrorKind, text: impl std::fmt::Display) -> LoadError {
        LoadError::new(kind, format!("{}: {text}", self.file))
    }

    fn define(&mut self, name: &'a str, known: Known) -> Result<(), LoadError> {
        match self.names.insert(name, known) {
            None => Ok(()),
            Some(_) => {
                Err(self.error(LoadErrorKind::Invalid, format_args!("two nodes or constants write `{}`", short(name))))
            }
        }
    }

    fn add_constant(&mut self, value: Value) -> Result<Known, LoadError> {
        self.spent = self.spent.saturating_add(value.data.bytes() as u64);
        if self.spent > self.source.memory_budget {
            let budget = self.source.memory_budget;
            return Err(self.error(
                LoadErrorKind::TooLarge,
                format_args!("its constants take more than the memory budget of {budget} bytes"),
            ));
        }
        let shape = value.shape.iter().map(|size| Size::Fixed(*size)).collect();
        let fact = Fact::new(value.data.kind(), Some(shape));
        self.constants.push(value);
        Ok(Known { place: Place::Constant(self.constants.len() - 1), fact })
    }

    fn take_constants(&mut self, graph: &Graph<'a>) -> Result<(), LoadError> {
        for tensor in graph.initializers() {
            let files = &self.source.files;
            let budget = self.source.memory_budget;
            let value = constant::value(&tensor, |name| files.read(name), budget).map_err(|error| {
                let text = format!("{}: constant `{}`: {error}", self.file, short(tensor.name()));
                LoadError::new(error.kind(), text).with_cause(error)
            })?;
            let known = self.add_constant(value)?;
            self.define(tensor.name(), known)?;
        }
        Ok(())
    }

    /// Makes slots for the inputs. Where all of them leave their first axis open, under one name or none, it is the rows.
    fn take_inputs(&mut self, graph: &Graph<'a>) -> Result<ModelInputs, LoadError> {
        let inputs: Vec<ValueInfo<'a>> =
            graph.inputs().filter(|input| !self.names.contains_key(input.name())).collect();
        if inputs.is_empty() {
            return Err(self.error(LoadErrorKind::Invalid, "the graph has no inputs"));
        }
        let mut first_names = BTreeSet::new();
        let mut symbols = HashSet::new();
        let mut is_open = true;
        for input in &inputs {
            let mut axes = input.shape().into_iter().flatten();
            match axes.next() {
                Some(Axis::Named(name)) => {
                    first_names.insert(name);
                }
                Some(Axis::Unknown) => {}
                Some(Axis::Fixed(size)) if size < 0 => {}
                Some(Axis::Fixed(_)) | None => is_open = false,
            }
            symbols.extend(axes.filter_map(|axis| match axis {
                Axis::Named(name) => Some(name),
                Axis::Fixed(_) | Axis::Unknown => None,
            }));
        }
        let is_batched =
            is_open && first_names.len() < 2 && first_names.is_disjoint(&symbols.iter().copied().collect());
        let free = || (0..).map(|n: usize| if n == 0 { "N".to_owned() } else { format!("N_{n}") });
        let batch = match first_names.first().filter(|_| is_batched) {
            Some(name) => (*name).to_owned(),
            None => free().find(|name| !symbols.contains(name.as_str())).unwrap_or_default(),
        };
        let mut made = ModelInputs { specs: Vec::new(), kinds: Vec::new(), batch };
        for (index, input) in inputs.iter().enumerate() {
            self.take_input(index, input, is_batched, &mut made)?;
        }
        Ok(made)
    }

    fn take_input(
        &mut self,
        index: usize,
        input: &ValueInfo<'a>,
        is_batched: bool,
        made: &mut ModelInputs,
    ) -> Result<(), LoadError> {
        let name = input.name();
        let kind = match input.kind() {
            ValueKind::Tensor(element) => constant::kind(element).ok_or_else(|| {
                let text = format!(
                    "input `{}` is {}; expected FP32, FP64, INT64, INT32, BOOL or BYTES",
                    short(name),
                    element.name()
                );
                self.error(LoadErrorKind::Unsupported, text)
            })?,
            _ => {
                return Err(
                    self.error(LoadErrorKind::Unsupported, format_args!("input `{}` is no tensor", short(name)))
                );
            }
        };
        let axes = input.shape().ok_or_else(|| {
            self.error(LoadErrorKind::Unsupported, format_args!("input `{}` has no shape", short(name)))
        })?;
        let (mut sizes, mut dims) = (Vec::new(), Vec::new());
        for (axis, given) in axes.take(millrace_core::MAX_RANK + 1).enumerate() {
            let fixed = match given {
                Axis::Fixed(size) => usize::try_from(size).ok(),
                Axis::Named(_) | Axis::Unknown => None,
            };
            let (size, dim) = match (fixed, given) {
                _ if axis == 0 && is_batched => (Size::Rows, Dim::symbol(&made.batch)),
                (Some(size), _) => (Size::Fixed(size), Dim::Fixed(size)),
                (None, Axis::Named(symbol)) => (Size::Unknown, Dim::symbol(symbol)),
                (None, _) => (Size::Unknown, Dim::symbol(format!("{}_{axis}", if index == 0 { "x" } else { name }))),
            };
            sizes.push(size);
            dims.push(dim);
        }
        if sizes.len() > millrace_core::MAX_RANK {
            return Err(
                self.error(LoadErrorKind::Unsupported, format_args!("input `{}` has too many axes", short(name)))
            );
        }
        made.specs.push(TensorSpec::new(name, dtype(kind), dims));
        made.kinds.push(kind);
        let fact = Fact::new(kind, Some(sizes));
        self.facts.push(fact.clone());
        self.define(name, Known { place: Place::Slot(index), fact })
    }

    fn take_node(&mut self, node: Node<'a>) -> Result<(), LoadError> {
        let domain = node.domain();
        let at = |text: String| format!("{}: {node}: {text}", self.file);
        let opset = self.model.opset(domain).ok_or_else(|| {
            LoadError::new(LoadErrorKind::Invalid, at(format!("the file imports no operator set `{}`", short(domain))))
        })?;
        let compile = ops::find(domain, node.op_type()).ok_or_else(|| {
            let there = ops::names(if domain == ML_DOMAIN { ML_DOMAIN } else { "ai.onnx" });
            let text = format!(
                "the operator {}.{} (opset {opset}) is not supported; of {} there are: {there}",
                short(domain),
                short(node.op_type()),
                if domain == ML_DOMAIN { ML_DOMAIN } else { "ai.onnx" }
            );
            LoadError::new(LoadErrorKind::Unsupported, at(text))
        })?;
        let mut places: SmallVec<[Place; 4]> = SmallVec::new();
        let mut inputs = Vec::new();
        for name in node.inputs() {
            if name.is_empty() {
                places.push(Place::Nowhere);
                inputs.push(None);
                continue;
            }
            let known = self.names.get(name).ok_or_else(|| {
                LoadError::new(
                    LoadErrorKind::Invalid,
                    at(format!("it reads `{}`, which no node before it writes", short(name))),
                )
            })?;
            places.push(known.place);
            let constant = match known.place {
                Place::Constant(index) => self.constants.get(index),
                Place::Slot(_) | Place::Nowhere => None,
            };
            inputs.push(Some(Input { fact: &known.fact, constant }));
        }
        let is_constant = inputs.iter().flatten().all(|input| input.constant.is_some());
        let is_mixed = inputs.iter().flatten().any(|input| input.fact.is_mixed);
        let counts_rows = inputs.iter().flatten().any(|input| input.fact.counts_rows());
        let view = NodeView::new(self.file, node, opset, inputs, self.source.memory_budget)?;
        let mut compiled = compile(&view)?;
        if view.n_outputs > compiled.outputs.len() {
            return Err(view.invalid(format_args!("{} outputs; it has {}", view.n_outputs, compiled.outputs.len())));
        }
        for fact in &mut compiled.outputs {
            // Operators say what they mix; what was mixed before stays so. How many rows there are is known to the few
            // operators that keep to it.
            let keeps_count = fact.contents.is_some() || node.op_type() == "ConstantOfShape";
            fact.is_mixed |= is_mixed || (counts_rows && !keeps_count);
        }
        if let Some(classes) = compiled.classes.take() {
            self.notes.retain(|(name, _)| name != "classes");
            self.notes.push(("classes".to_owned(), classes));
        }
        if is_constant {
            return self.fold(node, &*compiled.kernel, compiled.outputs.len(), &places);
        }
        let (first_output, n_outputs) = (self.facts.len(), compiled.outputs.len());
        self.facts.extend(compiled.outputs.iter().cloned());
        self.steps.push(Step {
            kernel: compiled.kernel,
            inputs: places,
            first_output,
            n_outputs,
            needed_by: 0,
            name: node.to_string(),
        });
        for ((name, fact), slot) in node.outputs().zip(compiled.outputs).zip(first_output..) {
            if !name.is_empty() {
                self.define(name, Known { place: Place::Slot(slot), fact })?;
            }
        }
        Ok(())
    }

    /// Runs a node whose inputs are all constant, now.
    fn fold(
        &mut self,
        node: Node<'a>,
        kernel: &dyn Kernel,
        n_outputs: usize,
        places: &[Place],
    ) -> Result<(), LoadError> {
        let mut outputs = vec![Value::default(); n_outputs];
        let inputs = Inputs { slots: &[], constants: &self.constants, places };
        kernel.run(&inputs, &mut outputs, &mut Scratch::default()).map_err(|fault| {
            self.error(LoadErrorKind::Invalid, format_args!("{node}: with constant inputs: {fault}"))
        })?;
        for (name, value) in node.outputs().zip(outputs) {
            if !name.is_empty() {
                let known = self.add_constant(value)?;
                self.define(name, known)?;
            }
        }
        Ok(())
    }
}

/// What reading and checking the file said, with the file's name.
pub(crate) fn parse<'a>(file: &str, bytes: &'a [u8]) -> Result<Model<'a>, LoadError> {
    Model::parse(bytes).map_err(|error| {
        let error = load_error(error);
        LoadError::new(error.kind(), format!("{file}: {error}")).with_cause(error)
    })
}
