//! The signature of a session: what the engine says about its inputs and outputs, in our terms.
//!
//! Axes without a usable name get one, so that all engines call the same axis the same: the first axis of the only input
//! is `N`, any other is named after its input and place. Where a file leaves the first axes of its outputs (or of several
//! inputs) without a name, whether they are the batch is a guess, and `probe` finds out.

use std::collections::{HashMap, HashSet};

use millrace_core::{DType, Dim, LoadError, LoadErrorKind, MAX_RANK, Quoted, Signature, TensorSpec};
use millrace_onnx::{Axis, Graph, ValueInfo};
use ort::session::Session;
use ort::value::{Outlet, ValueType};

use crate::convert::dtype_of;

/// How to read first axes without a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstAxes {
    /// As the batch: one axis, along which the rows of all inputs and outputs lie.
    Batch,
    /// Each as an axis of its own.
    Apart,
}

/// A signature and what it stands on.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) signature: Signature,
    /// Whether some first axis was taken for the batch although the file does not say so.
    pub(crate) is_guess: bool,
}

/// The signature of `session`, whose file holds `graph`.
///
/// # Errors
/// [`LoadError`] naming the input or output that no request or answer can carry.
pub(crate) fn read(
    session: &Session,
    graph: Graph<'_>,
    ranks: &HashMap<String, usize>,
    first_axes: FirstAxes,
) -> Result<Read, LoadError> {
    let unsupported = |text: String| LoadError::new(LoadErrorKind::Unsupported, text);
    if session.inputs().is_empty() {
        return Err(unsupported("the graph has no input; a request would have nothing to say".to_owned()));
    }
    let mut names = Names::new(graph);
    let mut is_guess = false;
    let is_only_input = session.inputs().len() == 1;
    let unnamed_first = |outlet: &Outlet| matches!(axes(outlet).first(), Some(Known::Unnamed));
    let shared = (!is_only_input && first_axes == FirstAxes::Batch && session.inputs().iter().all(unnamed_first))
        .then(|| names.fresh("N"));
    is_guess |= shared.is_some();
    let mut inputs = Vec::new();
    for outlet in session.inputs() {
        let name = outlet.name();
        let dtype = dtype("input", outlet)?;
        if !has_shape(name, graph.inputs()) {
            let text = format!("input {} has no shape; export it with one, sizes may be symbols", Quoted(name));
            return Err(unsupported(text));
        }
        let dim = |(axis, known): (usize, Known)| match known {
            Known::Fixed(size) => Dim::Fixed(size),
            Known::Named(text) => Dim::symbol(names.usable(&text)),
            Known::Unnamed => match &shared {
                Some(shared) if axis == 0 => Dim::symbol(shared),
                // The first axis of the only input has one likely meaning.
                _ if axis == 0 && is_only_input => Dim::symbol(names.fresh("N")),
                _ => Dim::symbol(names.fresh(&format!("{name}_{axis}"))),
            },
        };
        let shape: Vec<Dim> = axes(outlet).into_iter().enumerate().map(dim).collect();
        inputs.push(spec("input", name, dtype, shape)?);
    }
    let known: HashSet<Dim> = inputs.iter().flat_map(|spec: &TensorSpec| spec.shape.iter().cloned()).collect();
    let batch = shared_first(&inputs).filter(|_| first_axes == FirstAxes::Batch);
    let mut outputs = Vec::new();
    for outlet in session.outputs() {
        let dtype = dtype("output", outlet)?;
        let mut axes = axes(outlet);
        // The engine shows a tensor of unknown rank as one of none; a trial has told the rank.
        if axes.is_empty() && !has_shape(outlet.name(), graph.outputs()) {
            axes = vec![Known::Unnamed; ranks.get(outlet.name()).copied().unwrap_or(0)];
        }
        let dim = |(axis, known_axis): (usize, Known)| {
            let dim = match known_axis {
                Known::Fixed(size) => Dim::Fixed(size),
                Known::Named(text) => Dim::symbol(names.usable(&text)),
                Known::Unnamed => Dim::Unknown,
            };
            match (&batch, dim) {
                // A size that no input fixes is known only after the run; or it is the batch under another name.
                (_, dim @ Dim::Symbol(_)) if known.contains(&dim) => dim,
                (Some(batch), Dim::Symbol(_) | Dim::Unknown) if axis == 0 => {
                    is_guess = true;
                    batch.clone()
                }
                (_, Dim::Symbol(_)) => Dim::Unknown,
                (_, dim) => dim,
            }
        };
        let shape: Vec<Dim> = axes.into_iter().enumerate().map(dim).collect();
        outputs.push(spec("output", outlet.name(), dtype, shape)?);
    }
    let signature =
        Signature::new(inputs, outputs).map_err(|error| LoadError::new(LoadErrorKind::Invalid, error.to_string()))?;
    Ok(Read { signature, is_guess })
}

/// Whether the file says how many axes the tensor `name` has.
fn has_shape<'a>(name: &str, mut infos: impl Iterator<Item = ValueInfo<'a>>) -> bool {
    infos.find(|info| info.name() == name).is_some_and(|info| info.shape().is_some())
}

/// Outputs whose rank neither the file nor the engine knows.
pub(crate) fn of_unknown_rank(session: &Session, graph: Graph<'_>) -> Vec<String> {
    let unshaped = |outlet: &&Outlet| axes(outlet).is_empty() && !has_shape(outlet.name(), graph.outputs());
    session.outputs().iter().filter(unshaped).map(|outlet| outlet.name().to_owned()).collect()
}

/// The symbol that is the first axis of every input and stands nowhere else among them.
fn shared_first(inputs: &[TensorSpec]) -> Option<Dim> {
    let first = inputs.first()?.shape.first()?;
    let is_shared = matches!(first, Dim::Symbol(_)) && inputs.iter().all(|spec| spec.shape.first() == Some(first));
    let is_elsewhere = inputs.iter().any(|spec| spec.shape.iter().skip(1).any(|dim| dim == first));
    (is_shared && !is_elsewhere).then(|| first.clone())
}

fn spec(what: &str, name: &str, dtype: DType, shape: Vec<Dim>) -> Result<TensorSpec, LoadError> {
    if shape.len() > MAX_RANK {
        let text = format!("{what} {}: rank {} is above the limit of {MAX_RANK}", Quoted(name), shape.len());
        return Err(LoadError::new(LoadErrorKind::Unsupported, text));
    }
    let mut fixed = shape.iter().map(|dim| if let Dim::Fixed(size) = dim { (*size).max(1) } else { 1 });
    let bytes = fixed.try_fold(dtype.size().unwrap_or(1), usize::checked_mul);
    if bytes.is_none_or(|bytes| isize::try_from(bytes).is_err()) {
        let text = format!("{what} {}: its shape takes more bytes than fit in 64 bits", Quoted(name));
        return Err(LoadError::new(LoadErrorKind::TooLarge, text));
    }
    Ok(TensorSpec::new(name, dtype, shape))
}

fn dtype(what: &str, outlet: &Outlet) -> Result<DType, LoadError> {
    let name = Quoted(outlet.name());
    let text = match outlet.dtype() {
        ValueType::Tensor { ty, .. } => match dtype_of(*ty) {
            Some(dtype) => return Ok(dtype),
            None => format!("{what} {name} is {ty}, which no request can carry"),
        },
        ValueType::Sequence(_) | ValueType::Map { .. } => format!(
            "{what} {name} is {}, not a tensor; export without ZipMap (`zipmap=False`), or use the engine `trees`",
            outlet.dtype()
        ),
        ValueType::Optional(_) => format!("{what} {name} is {}, not a tensor", outlet.dtype()),
    };
    Err(LoadError::new(LoadErrorKind::Unsupported, text))
}

/// One axis as the engine tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    Fixed(usize),
    Named(String),
    Unnamed,
}

fn axes(outlet: &Outlet) -> Vec<Known> {
    let ValueType::Tensor { shape, dimension_symbols, .. } = outlet.dtype() else { return Vec::new() };
    let axis = |(axis, size): (usize, &i64)| match (usize::try_from(*size), dimension_symbols.get(axis)) {
        (Ok(size), _) => Known::Fixed(size),
        (Err(_), Some(name)) if !matches!(name.as_str(), "" | "?") => Known::Named(name.clone()),
        (Err(_), _) => Known::Unnamed,
    };
    shape.iter().enumerate().map(axis).collect()
}

/// The names of axes, so that no invented one meets another.
struct Names {
    taken: HashSet<String>,
    renamed: HashMap<String, String>,
}

impl Names {
    fn new(graph: Graph<'_>) -> Self {
        let mut taken = HashSet::new();
        for info in graph.inputs().chain(graph.outputs()).chain(graph.values()) {
            for axis in info.shape().into_iter().flatten() {
                if let Axis::Named(text) = axis {
                    // Words of an expression are names too.
                    taken.extend(text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').map(str::to_owned));
                }
            }
        }
        Self { taken, renamed: HashMap::new() }
    }

    /// `text` where it is a word; else always the same word in its place.
    fn usable(&mut self, text: &str) -> String {
        let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_word && text.len() <= 64 && text.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return text.to_owned();
        }
        if let Some(known) = self.renamed.get(text) {
            return known.clone();
        }
        let fresh = self.fresh(text);
        self.renamed.insert(text.to_owned(), fresh.clone());
        fresh
    }

    /// A new word like `wish`.
    fn fresh(&mut self, wish: &str) -> String {
        let mut word: String = wish.chars().take(64).map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        if !word.starts_with(|first: char| first.is_ascii_alphabetic()) {
            word.insert(0, 'D');
        }
        let numbered = (2..).map(|count| format!("{word}_{count}"));
        let free = std::iter::once(word.clone()).chain(numbered).find(|candidate| !self.taken.contains(candidate));
        let free = free.unwrap_or(word);
        self.taken.insert(free.clone());
        free
    }
}
