//! What a model takes and gives: named tensors with symbolic shapes, and the check that a request fits.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::{DType, Dim, DimExprError, ModelName, Quoted, Reason, Refusal, Shape, Tensor, TensorList};

/// The signature that a request means when it names none.
pub const SERVING_DEFAULT: &str = "serving_default";

/// The signature by which a model whose callers give something else (pictures, text) takes what its network takes.
pub const TENSORS: &str = "tensors";

/// One input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name that requests and answers use.
    pub name: Arc<str>,
    /// The element type.
    pub dtype: DType,
    /// The axes, outermost first.
    pub shape: Vec<Dim>,
    /// The axis along which independent rows lie, if any. [`Signature::new`] sets it.
    pub batch_axis: Option<usize>,
    /// For an output whose number of rows differs from instance to instance: the output that counts them. The rows of all
    /// instances then follow one another along the first axis, which is [`Dim::Unknown`].
    pub ragged_by: Option<Arc<str>>,
    /// The record that a ragged output is a field of: a front-end that answers in objects gives each instance a list of
    /// this name, with one object for each row.
    pub record: Option<Arc<str>>,
}

impl TensorSpec {
    /// An input or output without a batch axis yet.
    pub fn new(name: impl AsRef<str>, dtype: DType, shape: impl Into<Vec<Dim>>) -> Self {
        let (name, shape) = (Arc::from(name.as_ref()), shape.into());
        Self { name, dtype, shape, batch_axis: None, ragged_by: None, record: None }
    }

    /// The same as an output whose rows are counted, instance by instance, by the output `counts`: INT32 or INT64 with
    /// the batch axis alone.
    #[must_use]
    pub fn ragged_by(mut self, counts: impl AsRef<str>) -> Self {
        self.ragged_by = Some(Arc::from(counts.as_ref()));
        self
    }

    /// The same as a field of the records called `record`.
    #[must_use]
    pub fn in_record(mut self, record: impl AsRef<str>) -> Self {
        self.record = Some(Arc::from(record.as_ref()));
        self
    }
}

/// Written as `x FP32[N,4]`.
impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.name, self.dtype, Axes(&self.shape))?;
        match &self.ragged_by {
            Some(counts) => write!(f, " ragged by {counts}"),
            None => Ok(()),
        }
    }
}

struct Axes<'a>(&'a [Dim]);

impl fmt::Display for Axes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (axis, dim) in self.0.iter().enumerate() {
            if axis > 0 {
                f.write_str(",")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

/// Named inputs and outputs of one entry point of a model.
///
/// A signature is *batched* when the first axis of every input and every output is one and the same symbol, which
/// stands nowhere else: then rows of different requests may share a run. Ragged outputs have the batch axis of the output
/// that counts their rows.
///
/// Cheap to clone, and cheap to compare with its clones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature(Arc<Body>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Body {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    /// Every symbol of the inputs but the batch one, in order of first appearance; a [`Group`] has a value for each.
    symbols: Vec<Arc<str>>,
    batch: Option<Arc<str>>,
    /// Symbols whose values may differ between the requests of a run.
    mixed: Vec<Mixed>,
}

/// A symbol whose values may differ between the requests of a run, and where a request shows its own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mixed {
    symbol: Arc<str>,
    /// Its place in `symbols`.
    index: usize,
    input: usize,
    axis: usize,
}

/// Inputs and outputs that do not make a signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Two inputs or two outputs of one name.
    #[error("the name `{0}` stands for two tensors")]
    Duplicate(Arc<str>),
    /// An input axis that is an expression or unknown.
    #[error("input `{0}`: an axis must be a number or a symbol")]
    InputAxis(Arc<str>),
    /// An output axis over a symbol that no input fixes.
    #[error("output `{output}`: the symbol `{symbol}` stands in no input")]
    Unbound {
        /// The output.
        output: Arc<str>,
        /// The symbol.
        symbol: Arc<str>,
    },
    /// A symbol that cannot be mixed.
    #[error("the symbol `{symbol}` cannot differ between the requests of a run: {detail}")]
    Mixed {
        /// The symbol.
        symbol: Arc<str>,
        /// Why not.
        detail: String,
    },
    /// A ragged output whose rows nothing counts, or a record of an output that is not ragged.
    #[error("output `{output}`: {detail}")]
    Ragged {
        /// The output.
        output: Arc<str>,
        /// What is wrong and what would be right.
        detail: String,
    },
}

/// The value of every symbol but the batch one, in the order of [`Signature::symbols`]. Requests of one group can share
/// a run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Group(pub SmallVec<[usize; 4]>);

/// What checking a request against a signature found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Rows along the batch axis; 1 where the signature is not batched.
    pub rows: usize,
    /// The values of the other symbols.
    pub group: Group,
}

impl Signature {
    /// Builds a signature and finds its batch axis.
    ///
    /// # Errors
    /// [`SignatureError`] when a name stands twice, an input axis is neither number nor symbol, or an output axis uses a
    /// symbol that no input has.
    pub fn new(mut inputs: Vec<TensorSpec>, mut outputs: Vec<TensorSpec>) -> Result<Self, SignatureError> {
        for specs in [&inputs, &outputs] {
            let mut seen = HashSet::new();
            if let Some(twice) = specs.iter().find(|spec| !seen.insert(&spec.name)) {
                return Err(SignatureError::Duplicate(Arc::clone(&twice.name)));
            }
        }
        let mut symbols: Vec<Arc<str>> = Vec::new();
        for input in &inputs {
            for dim in &input.shape {
                match dim {
                    Dim::Symbol(symbol) if !symbols.contains(symbol) => symbols.push(Arc::clone(symbol)),
                    Dim::Symbol(_) | Dim::Fixed(_) => {}
                    Dim::Expr(_) | Dim::Unknown => return Err(SignatureError::InputAxis(Arc::clone(&input.name))),
                }
            }
        }
        for output in &outputs {
            if let Some(symbol) = symbols_of(&output.shape).into_iter().find(|symbol| !symbols.contains(symbol)) {
                return Err(SignatureError::Unbound { output: Arc::clone(&output.name), symbol });
            }
        }
        for output in &outputs {
            check_ragged(output, &outputs).map_err(|detail| {
                let output = Arc::clone(&output.name);
                SignatureError::Ragged { output, detail }
            })?;
        }
        let batch = batch_symbol(&inputs, &outputs);
        let axis = batch.is_some().then_some(0);
        for spec in inputs.iter_mut().chain(&mut outputs) {
            spec.batch_axis = axis.filter(|_| spec.ragged_by.is_none());
        }
        symbols.retain(|symbol| Some(symbol) != batch.as_ref());
        Ok(Self(Arc::new(Body { inputs, outputs, symbols, batch, mixed: Vec::new() })))
    }

    /// The same signature, never batched: for a model whose rows are not independent although its shapes look so.
    #[must_use]
    pub fn unbatched(mut self) -> Self {
        let body = Arc::make_mut(&mut self.0);
        if let Some(batch) = body.batch.take() {
            body.symbols.insert(0, batch);
        }
        body.mixed.clear();
        for spec in body.inputs.iter_mut().chain(&mut body.outputs) {
            spec.batch_axis = None;
        }
        self
    }

    /// The same signature for a model that runs requests together although they differ in the value of `symbol`: texts of
    /// different lengths, say. Its instances get parts of different shapes, and give outputs with an axis `symbol` as long
    /// as the longest of the batch; [`Batch::split`](crate::Batch::split) cuts each part's share to its own length.
    ///
    /// # Errors
    /// [`SignatureError::Mixed`] for a signature that is not batched, a symbol that no input has, and an output with an
    /// expression over it.
    pub fn mixed(mut self, symbol: &str) -> Result<Self, SignatureError> {
        let fault = |detail: &str| SignatureError::Mixed { symbol: Arc::from(symbol), detail: detail.to_owned() };
        if !self.is_batched() {
            return Err(fault("the signature is not batched"));
        }
        let is_it = |dim: &Dim| matches!(dim, Dim::Symbol(known) if **known == *symbol);
        let place = self.0.inputs.iter().enumerate().find_map(|(input, spec)| {
            let axis = spec.shape.iter().position(is_it)?;
            Some((input, axis))
        });
        let index = self.0.symbols.iter().position(|known| **known == *symbol);
        let (Some((input, axis)), Some(index)) = (place, index) else {
            return Err(fault("no input has an axis of that name, apart from the batch"));
        };
        for output in &self.0.outputs {
            let mut has_expression = false;
            for dim in &output.shape {
                if let Dim::Expr(expr) = dim {
                    expr.for_each_symbol(&mut |known| has_expression |= **known == *symbol);
                }
            }
            if has_expression {
                return Err(fault(&format!("the sizes of output `{}` are reckoned from it", output.name)));
            }
        }
        let body = Arc::make_mut(&mut self.0);
        if body.mixed.iter().all(|known| *known.symbol != *symbol) {
            body.mixed.push(Mixed { symbol: Arc::from(symbol), index, input, axis });
        }
        Ok(self)
    }

    /// Whether requests that differ in the value of some symbol may share a run.
    pub fn is_mixed(&self) -> bool {
        !self.0.mixed.is_empty()
    }

    /// The group of `admission` as far as sharing a run goes: mixed symbols count as 0.
    pub fn shared_group(&self, admission: &Admission) -> Group {
        let mut group = admission.group.clone();
        for mixed in &self.0.mixed {
            if let Some(value) = group.0.get_mut(mixed.index) {
                *value = 0;
            }
        }
        group
    }

    /// For each axis of `output` that is a mixed symbol: the axis, and its size in a request with `inputs`.
    pub(crate) fn own_sizes(&self, output: &TensorSpec, inputs: &[Tensor]) -> SmallVec<[(usize, usize); 2]> {
        let mut sizes = SmallVec::new();
        for (axis, dim) in output.shape.iter().enumerate() {
            let Dim::Symbol(symbol) = dim else { continue };
            let Some(mixed) = self.0.mixed.iter().find(|mixed| mixed.symbol == *symbol) else { continue };
            let size = inputs.get(mixed.input).and_then(|tensor| tensor.shape().get(mixed.axis).copied());
            sizes.extend(size.map(|size| (axis, size)));
        }
        sizes
    }

    /// The inputs in order.
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.0.inputs
    }

    /// The outputs in order.
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.0.outputs
    }

    /// The input symbols other than the batch one, in the order of a [`Group`]'s values.
    pub fn symbols(&self) -> &[Arc<str>] {
        &self.0.symbols
    }

    /// The symbol of the batch axis where the signature is batched.
    pub fn batch_symbol(&self) -> Option<&Arc<str>> {
        self.0.batch.as_ref()
    }

    /// Whether rows of several requests may share a run.
    pub fn is_batched(&self) -> bool {
        self.0.batch.is_some()
    }

    /// The position of input `name`.
    pub fn input_index(&self, name: &str) -> Option<usize> {
        self.0.inputs.iter().position(|spec| &*spec.name == name)
    }

    /// The position of output `name`.
    pub fn output_index(&self, name: &str) -> Option<usize> {
        self.0.outputs.iter().position(|spec| &*spec.name == name)
    }

    /// The value of `symbol` in a request of `admission`.
    pub fn symbol_value(&self, admission: &Admission, symbol: &str) -> Option<usize> {
        if self.0.batch.as_deref() == Some(symbol) {
            return Some(admission.rows);
        }
        let index = self.0.symbols.iter().position(|known| &**known == symbol)?;
        admission.group.0.get(index).copied()
    }

    /// Puts named tensors into the signature's order.
    ///
    /// # Errors
    /// [`InputError`] when a name is unknown or given twice, or an input is missing.
    pub fn arrange<N: AsRef<str>>(
        &self,
        named: impl IntoIterator<Item = (N, Tensor)>,
    ) -> Result<TensorList, InputError> {
        let mut slots: SmallVec<[Option<Tensor>; 4]> = SmallVec::from_elem(None, self.0.inputs.len());
        for (name, tensor) in named {
            let name = name.as_ref();
            let index = self.input_index(name).ok_or_else(|| self.unknown_input(name))?;
            if slots[index].replace(tensor).is_some() {
                return Err(InputError::Duplicate { input: Arc::clone(&self.0.inputs[index].name) });
            }
        }
        let take = |(slot, spec): (Option<Tensor>, &TensorSpec)| {
            slot.ok_or_else(|| InputError::Missing { input: Arc::clone(&spec.name) })
        };
        slots.into_iter().zip(&self.0.inputs).map(take).collect()
    }

    /// The error for an input that the signature does not have.
    pub fn unknown_input(&self, name: &str) -> InputError {
        let known = self.0.inputs.iter().map(|spec| spec.name.as_ref()).collect::<Vec<_>>().join(", ");
        InputError::Unknown { input: Quoted(name).to_string(), known }
    }

    /// Checks a request's inputs, in the signature's order: count, dtypes, ranks, sizes, symbols that must agree, and
    /// that every output's size comes out as a size. Costs no allocation where shapes are short.
    ///
    /// # Errors
    /// [`InputError`], naming the input, what was expected and what was given.
    pub fn check(&self, inputs: &[Tensor]) -> Result<Admission, InputError> {
        if inputs.len() != self.0.inputs.len() {
            return Err(InputError::Count { expected: self.0.inputs.len(), got: inputs.len() });
        }
        let mut rows = None;
        let mut group: SmallVec<[Option<usize>; 4]> = SmallVec::from_elem(None, self.0.symbols.len());
        for (spec, tensor) in self.0.inputs.iter().zip(inputs) {
            if spec.dtype != tensor.dtype() {
                let input = Arc::clone(&spec.name);
                return Err(InputError::DType { input, expected: spec.dtype, got: tensor.dtype() });
            }
            if spec.shape.len() != tensor.shape().len() {
                return Err(InputError::shape(spec, tensor));
            }
            for (dim, &size) in spec.shape.iter().zip(tensor.shape().iter()) {
                let slot = match dim {
                    Dim::Fixed(expected) if *expected == size => continue,
                    Dim::Fixed(_) | Dim::Expr(_) | Dim::Unknown => return Err(InputError::shape(spec, tensor)),
                    Dim::Symbol(symbol) if self.0.batch.as_ref() == Some(symbol) => &mut rows,
                    Dim::Symbol(symbol) => match self.0.symbols.iter().position(|known| known == symbol) {
                        Some(index) => &mut group[index],
                        None => return Err(InputError::shape(spec, tensor)),
                    },
                };
                let first = *slot.get_or_insert(size);
                if first != size {
                    let symbol = dim.to_string();
                    return Err(InputError::Symbol {
                        input: Arc::clone(&spec.name),
                        symbol,
                        expected: first,
                        got: size,
                    });
                }
            }
        }
        let rows = if self.is_batched() { rows.unwrap_or(0) } else { 1 };
        if rows == 0 {
            return Err(InputError::NoRows);
        }
        let group = Group(group.into_iter().map(Option::unwrap_or_default).collect());
        let admission = Admission { rows, group };
        for output in &self.0.outputs {
            self.output_shape(output, &admission)?;
        }
        Ok(admission)
    }

    /// The shape of `output` for a request of `admission`, or `None` where it is known only after the run.
    ///
    /// # Errors
    /// [`InputError::OutputSize`] when a size comes out negative or the whole does not fit in memory.
    pub fn output_shape(&self, output: &TensorSpec, admission: &Admission) -> Result<Option<Shape>, InputError> {
        let lookup = |symbol: &str| self.symbol_value(admission, symbol);
        let failed = |detail: String| InputError::OutputSize { output: Arc::clone(&output.name), detail };
        let mut sizes: SmallVec<[usize; 8]> = SmallVec::new();
        for dim in &output.shape {
            let size = match dim {
                Dim::Fixed(size) => *size,
                Dim::Symbol(symbol) => {
                    lookup(symbol).ok_or_else(|| failed(DimExprError::Unbound(Arc::clone(symbol)).to_string()))?
                }
                Dim::Expr(expr) => {
                    let value = expr.evaluate(&lookup).map_err(|error| failed(error.to_string()))?;
                    usize::try_from(value).map_err(|_| failed(format!("the axis {expr} would be {value}")))?
                }
                Dim::Unknown => return Ok(None),
            };
            sizes.push(size);
        }
        Shape::new(&sizes).map(Some).map_err(|error| failed(error.to_string()))
    }
}

fn symbols_of(shape: &[Dim]) -> Vec<Arc<str>> {
    let mut found = Vec::new();
    for dim in shape {
        match dim {
            Dim::Symbol(symbol) => found.push(Arc::clone(symbol)),
            Dim::Expr(expr) => expr.for_each_symbol(&mut |symbol| found.push(Arc::clone(symbol))),
            Dim::Fixed(_) | Dim::Unknown => {}
        }
    }
    found
}

/// The symbol that is the first axis of every tensor and stands nowhere else.
fn batch_symbol(inputs: &[TensorSpec], outputs: &[TensorSpec]) -> Option<Arc<str>> {
    let Dim::Symbol(candidate) = inputs.first()?.shape.first()? else { return None };
    let fits = |spec: &TensorSpec| match spec.shape.split_first() {
        Some((Dim::Symbol(first), rest)) => first == candidate && !symbols_of(rest).contains(candidate),
        _ => false,
    };
    let mut even = outputs.iter().filter(|spec| spec.ragged_by.is_none()).peekable();
    let all = even.peek().is_some() && inputs.iter().chain(even).all(fits);
    all.then(|| Arc::clone(candidate))
}

/// Checks that `output`, if ragged, has rows that another output counts.
fn check_ragged(output: &TensorSpec, outputs: &[TensorSpec]) -> Result<(), String> {
    let Some(counts) = &output.ragged_by else {
        return match &output.record {
            Some(record) => Err(format!("a field of the record `{record}` must be ragged")),
            None => Ok(()),
        };
    };
    if output.shape.first() != Some(&Dim::Unknown) {
        return Err("the first axis of a ragged output must be unknown".to_owned());
    }
    let Some(counts) = outputs.iter().find(|spec| spec.name == *counts) else {
        return Err(format!("no output `{counts}` counts its rows"));
    };
    let is_count = matches!(counts.dtype, DType::Int32 | DType::Int64)
        && counts.ragged_by.is_none()
        && matches!(counts.shape.as_slice(), [Dim::Symbol(_)]);
    if !is_count {
        return Err(format!("`{counts}` cannot count its rows: expected INT32 or INT64 with the batch axis alone"));
    }
    let Some(record) = &output.record else { return Ok(()) };
    if outputs.iter().any(|spec| spec.name == *record) {
        return Err(format!("its record `{record}` has the name of an output"));
    }
    let is_other = |spec: &&TensorSpec| spec.record == output.record && spec.ragged_by != output.ragged_by;
    match outputs.iter().find(is_other) {
        Some(other) => {
            Err(format!("the record `{record}` needs one count, but its field `{}` has another", other.name))
        }
        None => Ok(()),
    }
}

/// The named signatures of a servable. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signatures(Vec<(Arc<str>, Signature)>);

impl Signatures {
    /// One signature, under the name [`SERVING_DEFAULT`].
    pub fn single(signature: Signature) -> Self {
        Self(vec![(Arc::from(SERVING_DEFAULT), signature)])
    }

    /// Adds a signature under another name; a name that exists is replaced.
    #[must_use]
    pub fn with(mut self, name: impl AsRef<str>, signature: Signature) -> Self {
        let name = name.as_ref();
        match self.0.iter_mut().find(|(known, _)| &**known == name) {
            Some((_, old)) => *old = signature,
            None => self.0.push((Arc::from(name), signature)),
        }
        self
    }

    /// The position and signature called `name`; an empty name means [`SERVING_DEFAULT`].
    pub fn find(&self, name: &str) -> Option<(usize, &Signature)> {
        let name = if name.is_empty() { SERVING_DEFAULT } else { name };
        self.iter().enumerate().find_map(|(index, (known, signature))| (known == name).then_some((index, signature)))
    }

    /// The signature at `index`, as an [`InferRequest`](crate::InferRequest) carries it.
    pub fn get(&self, index: usize) -> Option<&Signature> {
        self.0.get(index).map(|(_, signature)| signature)
    }

    /// Names and signatures, [`SERVING_DEFAULT`] first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Signature)> {
        self.0.iter().map(|(name, signature)| (name.as_ref(), signature))
    }
}

/// Why a request's inputs do not fit a signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// An input is not there.
    #[error("input `{input}` is missing")]
    Missing {
        /// The input.
        input: Arc<str>,
    },
    /// An input that the model does not have; `input` is quoted already.
    #[error("unknown input {input}; expected: {known}")]
    Unknown {
        /// The name given, quoted.
        input: String,
        /// The names that exist.
        known: String,
    },
    /// An input was given twice.
    #[error("input `{input}` was given twice")]
    Duplicate {
        /// The input.
        input: Arc<str>,
    },
    /// Another number of inputs than the signature has.
    #[error("expected {expected} inputs, got {got}")]
    Count {
        /// The signature's.
        expected: usize,
        /// The request's.
        got: usize,
    },
    /// The wrong element type.
    #[error("input `{input}`: expected {expected}, got {got}")]
    DType {
        /// The input.
        input: Arc<str>,
        /// The signature's dtype.
        expected: DType,
        /// The request's.
        got: DType,
    },
    /// The wrong rank or a fixed size that differs.
    #[error("input `{input}`: expected shape {expected}, got {got}")]
    Shape {
        /// The input.
        input: Arc<str>,
        /// The signature's shape.
        expected: String,
        /// The request's.
        got: Shape,
    },
    /// Two axes that share a symbol differ in size.
    #[error("input `{input}`: axis {symbol} is {got}, but another axis {symbol} of this request is {expected}")]
    Symbol {
        /// The input with the second value.
        input: Arc<str>,
        /// The symbol.
        symbol: String,
        /// The first value.
        expected: usize,
        /// The second.
        got: usize,
    },
    /// A batch of zero rows.
    #[error("the batch has 0 rows; expected at least 1")]
    NoRows,
    /// The value of one instance is wrong: a picture that cannot be decoded, say.
    #[error("input `{input}`, instance {index}: {detail}")]
    Instance {
        /// The input.
        input: Arc<str>,
        /// Which instance, counted from 0 along the batch axis.
        index: usize,
        /// What is wrong and what would be right.
        detail: String,
    },
    /// The inputs are so small or so large that an output has no size.
    #[error("the inputs are too small or too large for output `{output}`: {detail}")]
    OutputSize {
        /// The output.
        output: Arc<str>,
        /// The axis and its value.
        detail: String,
    },
}

impl InputError {
    fn shape(spec: &TensorSpec, tensor: &Tensor) -> Self {
        let expected = Axes(&spec.shape).to_string();
        Self::Shape { input: Arc::clone(&spec.name), expected, got: tensor.shape().clone() }
    }

    /// The refusal for a caller of `model`.
    pub fn refusal(&self, model: &ModelName) -> Refusal {
        Refusal::new(Reason::InvalidInput, format!("model `{model}`: {self}"))
    }
}
