//! The axes of the inputs: each gets a number or a name, so that the engine can type the graph.

use std::collections::{HashMap, HashSet};

use millrace_core::{LoadError, MAX_RANK};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Size;
use tract_onnx::pb::type_proto::{Tensor, Value};
use tract_onnx::pb::{GraphProto, ValueInfoProto};

use super::{Checker, FirstAxes, tensors};

/// What the inputs are.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) names: Vec<String>,
    pub(super) is_symbolic: bool,
    pub(super) shares_first_axes: bool,
}

/// Names every axis of the inputs that has neither number nor usable name, and refuses impossible sizes.
///
/// # Errors
/// [`LoadError`] naming the input.
pub(super) fn settle(checker: &Checker<'_>, graph: &mut GraphProto, first_axes: FirstAxes) -> Result<Named, LoadError> {
    bound_names(graph);
    let constants: HashSet<String> = graph.initializer.iter().map(|tensor| tensor.name.clone()).collect();
    let mut symbols = Symbols::new(graph);
    let mut inputs: Vec<&mut ValueInfoProto> =
        graph.input.iter_mut().filter(|input| !constants.contains(&input.name)).collect();
    let is_only_input = inputs.len() == 1;
    let shares_first_axes =
        inputs.len() > 1 && first_axes == FirstAxes::Shared && inputs.iter_mut().all(|input| is_unnamed_first(input));
    let shared = shares_first_axes.then(|| symbols.fresh("N"));
    let mut named = Named { names: Vec::new(), is_symbolic: false, shares_first_axes };
    for input in &mut inputs {
        let name = input.name.clone();
        let Some(shape) = tensor(input).and_then(|tensor| tensor.shape.as_mut()) else {
            return Err(checker
                .unsupported(format_args!("input `{name}` has no shape; export it with one, sizes may be symbols")));
        };
        if shape.dim.len() > MAX_RANK {
            let rank = shape.dim.len();
            return Err(
                checker.unsupported(format_args!("input `{name}`: rank {rank} is above the limit of {MAX_RANK}"))
            );
        }
        for (axis, dim) in shape.dim.iter_mut().enumerate() {
            let symbol = match &dim.value {
                Some(Size::DimValue(size)) if *size >= 0 => continue,
                Some(Size::DimParam(text)) if !is_no_name(text) => symbols.usable(text),
                _ if axis == 0
                    && let Some(shared) = &shared =>
                {
                    shared.clone()
                }
                // The first axis of the only input has one likely meaning; any other axis is named after its place.
                _ if axis == 0 && is_only_input => symbols.fresh("N"),
                _ => symbols.fresh(&format!("{name}_{axis}")),
            };
            named.is_symbolic = true;
            dim.value = Some(Size::DimParam(symbol));
        }
        check_size(checker, input)?;
        named.names.push(name);
    }
    graph.output.iter().try_for_each(|output| check_size(checker, output))?;
    Ok(named)
}

fn is_no_name(text: &str) -> bool {
    matches!(text, "" | "?")
}

/// Whether `input` has a first axis, with neither number nor name.
fn is_unnamed_first(input: &mut ValueInfoProto) -> bool {
    let first = tensor(input).and_then(|tensor| tensor.shape.as_ref()?.dim.first());
    first.is_some_and(|dim| match &dim.value {
        None => true,
        Some(Size::DimValue(size)) => *size < 0,
        Some(Size::DimParam(text)) => is_no_name(text),
    })
}

fn tensor(info: &mut ValueInfoProto) -> Option<&mut Tensor> {
    match info.r#type.as_mut()?.value.as_mut()? {
        Value::TensorType(tensor) => Some(tensor),
    }
}

/// Forgets sizes in words that are too long or too deeply nested to be parsed without harm: they are hints.
fn bound_names(graph: &mut GraphProto) {
    let infos = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
    let dims = infos.filter_map(tensor).filter_map(|tensor| tensor.shape.as_mut()).flat_map(|shape| &mut shape.dim);
    for dim in dims {
        if let Some(Size::DimParam(text)) = &dim.value
            && !is_parsable(text)
        {
            dim.value = None;
        }
    }
    let attributes = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
    for subgraph in attributes.flat_map(|attribute| attribute.g.iter_mut().chain(&mut attribute.graphs)) {
        bound_names(subgraph);
    }
}

fn is_parsable(text: &str) -> bool {
    const LONGEST: usize = 200;
    const DEEPEST: usize = 12;
    text.len() <= LONGEST && text.bytes().filter(|byte| *byte == b'(').count() <= DEEPEST
}

/// The names of symbols, so that no invented one meets another.
struct Symbols {
    taken: HashSet<String>,
    renamed: HashMap<String, String>,
}

impl Symbols {
    fn new(graph: &GraphProto) -> Self {
        let mut taken = HashSet::new();
        let infos = graph.input.iter().chain(&graph.output).chain(&graph.value_info);
        for info in infos {
            if let Some(Value::TensorType(Tensor { shape: Some(shape), .. })) =
                info.r#type.as_ref().and_then(|r#type| r#type.value.as_ref())
            {
                for dim in &shape.dim {
                    if let Some(Size::DimParam(text)) = &dim.value {
                        // Words of an expression are names too.
                        taken.extend(text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').map(str::to_owned));
                    }
                }
            }
        }
        Self { taken, renamed: HashMap::new() }
    }

    /// `text` where it is an identifier; else always the same identifier in its place.
    fn usable(&mut self, text: &str) -> String {
        let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_word && text.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return text.to_owned();
        }
        if let Some(known) = self.renamed.get(text) {
            return known.clone();
        }
        let fresh = self.fresh(text);
        self.renamed.insert(text.to_owned(), fresh.clone());
        fresh
    }

    /// A new identifier like `wish`.
    fn fresh(&mut self, wish: &str) -> String {
        let mut word: String = wish.chars().take(64).map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        if !word.starts_with(|first: char| first.is_ascii_alphabetic()) {
            word.insert(0, 'D');
        }
        let mut candidate = word.clone();
        let mut count = 1;
        while !self.taken.insert(candidate.clone()) {
            count += 1;
            candidate = format!("{word}_{count}");
        }
        candidate
    }
}

/// Refuses numbers whose product no memory holds.
fn check_size(checker: &Checker<'_>, info: &ValueInfoProto) -> Result<(), LoadError> {
    let Some(Value::TensorType(tensor)) = info.r#type.as_ref().and_then(|r#type| r#type.value.as_ref()) else {
        return Ok(());
    };
    let r#type = DataType::try_from(tensor.elem_type).unwrap_or(DataType::Undefined);
    let mut bytes = Some(tensors::element_bytes(r#type).unwrap_or(1));
    for dim in tensor.shape.iter().flat_map(|shape| &shape.dim) {
        if let Some(Size::DimValue(size)) = &dim.value {
            let size = u64::try_from(*size).unwrap_or(1).max(1);
            bytes = bytes.and_then(|bytes| bytes.checked_mul(size));
        }
    }
    let limit = checker.max_tensor_bytes();
    if bytes.is_some_and(|bytes| bytes <= limit) {
        return Ok(());
    }
    let bytes = bytes.map_or_else(|| "more bytes than fit in 64 bits".to_owned(), |bytes| format!("{bytes} bytes"));
    Err(checker.too_large(format_args!("`{}`: its shape takes {bytes}; the limit is {limit}", info.name)))
}
