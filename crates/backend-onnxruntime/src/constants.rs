//! Values that depend on no input: the engine computes them while it loads, however large a small file makes them.
//!
//! Shapes of constants are followed through the operators that make much of little. What is not known here is not
//! followed further: the engine has a limit of its own on what it folds, from version 1.24 on.

use std::collections::HashMap;

use millrace_core::{LoadError, LoadErrorKind, ModelSource};
use millrace_onnx::{ElementType, Graph, Model, Node, Tensor};

use crate::backend::refused;

/// The most bytes of such values, and how many for each byte of the files: weights of 4 bits may become wide ones.
const MOST: u64 = 1 << 30;
const MOST_FOR_A_BYTE: u64 = 8;
/// A constant with more elements than this is no shape.
const LONGEST_SHAPE: u64 = 64;

/// What is known of a constant.
#[derive(Debug, Clone)]
struct Known {
    element: ElementType,
    dims: Vec<u64>,
    /// The elements of a short list of integers, as shapes and repeats are.
    numbers: Option<Vec<i64>>,
}

impl Known {
    fn volume(&self) -> u64 {
        self.dims.iter().fold(1, |volume: u64, dim| volume.saturating_mul(*dim))
    }

    /// Bytes in the engine's memory, where every element has whole ones, except for what strings point to.
    fn bytes(&self) -> u64 {
        const STRING: u64 = 32;
        self.volume().saturating_mul(self.element.bits().map_or(STRING, |bits| bits.div_ceil(8)))
    }

    fn shaped(element: ElementType, dims: Vec<u64>) -> Self {
        Self { element, dims, numbers: None }
    }

    fn of(tensor: &Tensor<'_>, shape: &[usize]) -> Self {
        let dims = shape.iter().map(|size| *size as u64).collect();
        Self { element: tensor.element_type(), dims, numbers: numbers(tensor) }
    }

    /// The numbers as sizes; negative ones count as none.
    fn sizes(&self) -> Option<Vec<u64>> {
        self.numbers.as_ref().map(|numbers| numbers.iter().map(|number| size(*number)).collect())
    }
}

/// The constants that a graph sees: its own, and those of the graphs around it. A graph costs what stands in itself,
/// however much stands around it.
struct Scope<'s, 'a> {
    /// `None` for a name that hides one of the graphs around.
    own: HashMap<&'a str, Option<Known>>,
    around: Option<&'s Self>,
}

impl Scope<'_, '_> {
    fn get(&self, name: &str) -> Option<&Known> {
        let mut scope = Some(self);
        while let Some(here) = scope {
            if let Some(known) = here.own.get(name) {
                return known.as_ref();
            }
            scope = here.around;
        }
        None
    }
}

/// Checks the initializers, and every constant that follows from them. Returns about how many bytes of the latter the engine
/// may come to hold beside the file's own.
///
/// # Errors
/// [`LoadError`] naming the initializer whose shape and data disagree or the node that would make a value too large.
pub(crate) fn check(file: &str, model: &Model<'_>, source: &ModelSource) -> Result<u64, LoadError> {
    let files = source.files.list().iter().fold(0_u64, |total, (_, size)| total.saturating_add(*size));
    let most = MOST.saturating_add(files.saturating_mul(MOST_FOR_A_BYTE));
    let mut check = Check { file, limit: source.memory_budget.min(most), total: 0 };
    check.graph(model.graph(), None)?;
    Ok(check.total)
}

struct Check<'c> {
    file: &'c str,
    /// Bytes, for all together.
    limit: u64,
    total: u64,
}

impl Check<'_> {
    fn graph<'a>(&mut self, graph: Graph<'a>, around: Option<&Scope<'_, 'a>>) -> Result<(), LoadError> {
        let mut scope = Scope { own: graph.inputs().map(|input| (input.name(), None)).collect(), around };
        for tensor in graph.initializers() {
            scope.own.insert(tensor.name(), Some(self.initializer(&tensor)?));
        }
        for node in graph.nodes() {
            if let Some(known) = result(&node, &scope) {
                // What is no larger than what it is made of takes its place.
                let largest = node.inputs().filter_map(|input| scope.get(input)).map(Known::bytes).max().unwrap_or(0);
                self.total = self.total.saturating_add(known.bytes().saturating_sub(largest));
                if self.total > self.limit {
                    let (dims, limit) = (&known.dims, self.limit);
                    let text =
                        format!("{node} would make a constant of shape {dims:?}; the limit for all is {limit} bytes");
                    return Err(LoadError::new(LoadErrorKind::TooLarge, format!("{}: {text}", self.file)));
                }
                scope.own.extend(node.outputs().next().map(|output| (output, Some(known))));
            }
            for inner in node.attributes().flat_map(|attribute| attribute.graphs().collect::<Vec<_>>()) {
                self.graph(inner, Some(&scope))?;
            }
        }
        Ok(())
    }

    /// Bytes that lie in the file must be as many as the shape says; the engine reads others only after such a check.
    fn initializer(&self, tensor: &Tensor<'_>) -> Result<Known, LoadError> {
        let shape = tensor.shape().map_err(|error| refused(self.file, &error))?;
        let is_outside = tensor.external().map_err(|error| refused(self.file, &error))?.is_some();
        if let (Some(raw), Some(bytes), false) = (tensor.raw(), tensor.n_bytes(), is_outside)
            && raw.len() as u64 != bytes
        {
            let (name, got) = (millrace_core::Quoted(tensor.name()), raw.len());
            let text =
                format!("{}: initializer {name}: its shape and type ask for {bytes} bytes, got {got}", self.file);
            return Err(LoadError::new(LoadErrorKind::Invalid, text));
        }
        Ok(Known::of(tensor, &shape))
    }
}

/// The elements of a short tensor of integers.
fn numbers(tensor: &Tensor<'_>) -> Option<Vec<i64>> {
    let elements = tensor.n_bytes()?.saturating_mul(8) / tensor.element_type().bits()?;
    if elements > LONGEST_SHAPE || tensor.external().ok()?.is_some() {
        return None;
    }
    let none = |_: &str| Err::<Vec<u8>, _>(std::io::ErrorKind::NotFound.into());
    let data = tensor.data(none).ok()?;
    match tensor.element_type() {
        ElementType::Int64 => Some(data.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()),
        ElementType::Int32 => Some(data.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes).into()).collect()),
        _ => None,
    }
}

fn size(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// What `node` writes first, where its shape follows from constants.
fn result(node: &Node<'_>, scope: &Scope<'_, '_>) -> Option<Known> {
    let mut known = followed(node, scope)?;
    if known.dims.len() as u64 > LONGEST_SHAPE {
        // No engine has tensors of such a rank; what matters here is the size.
        known.dims = vec![known.volume()];
    }
    Some(known)
}

fn followed(node: &Node<'_>, scope: &Scope<'_, '_>) -> Option<Known> {
    let names: Vec<&str> = node.inputs().collect();
    let input = |index: usize| names.get(index).filter(|name| !name.is_empty()).and_then(|name| scope.get(name));
    let sizes = |index: usize| input(index).and_then(Known::sizes);
    // An input that is not known is taken for one of floats.
    let element = |index: usize| input(index).map_or(ElementType::Fp32, |known| known.element);
    let like = |index: usize, dims: Vec<u64>| Some(Known::shaped(element(index), dims));
    let attribute = |name: &str| node.attributes().find(|attribute| attribute.name() == name);
    let named = |name: &str| attribute(name).and_then(|value| value.int()).map(ElementType::from_onnx);
    let all = || (0..names.len()).map(input).collect::<Option<Vec<_>>>();
    match node.op_type() {
        "Constant" => {
            if let Some(tensor) = attribute("value").and_then(|value| value.tensor()) {
                return Some(Known::of(&tensor, &tensor.shape().ok()?));
            }
            let ints = attribute("value_ints")?;
            let dims = vec![ints.ints().count() as u64];
            let numbers = (dims[0] <= LONGEST_SHAPE).then(|| ints.ints().collect());
            Some(Known { element: ElementType::Int64, dims, numbers })
        }
        "ConstantOfShape" => {
            let value = attribute("value").and_then(|value| value.tensor());
            Some(Known::shaped(value.map_or(ElementType::Fp32, |value| value.element_type()), sizes(0)?))
        }
        "RandomNormal" | "RandomUniform" => {
            let dims = attribute("shape")?.ints().map(size).collect();
            Some(Known::shaped(named("dtype").unwrap_or(ElementType::Fp32), dims))
        }
        "Expand" => like(0, broadcast(input(0).map_or(&[], |known| &known.dims), &sizes(1)?)),
        "Tile" => {
            let repeats = sizes(1)?;
            let dims = input(0).map_or_else(|| vec![1; repeats.len()], |known| known.dims.clone());
            like(0, dims.iter().zip(&repeats).map(|(dim, times)| dim.saturating_mul(*times)).collect())
        }
        "Range" => {
            let scalar = |index: usize| input(index)?.numbers.as_ref()?.first().copied();
            let (from, to, step) = (scalar(0)?, scalar(1)?, scalar(2)?);
            let is_empty = if step < 0 { from <= to } else { to <= from };
            let steps = to.abs_diff(from).div_ceil(step.unsigned_abs().max(1));
            like(0, vec![if is_empty { 0 } else { steps }])
        }
        "Pad" => {
            let (dims, pads) = (&input(0)?.dims, sizes(1)?);
            let around = |axis: usize| pads.get(axis).into_iter().chain(pads.get(axis + dims.len())).copied();
            let padded = |(axis, dim): (usize, &u64)| around(axis).fold(*dim, u64::saturating_add);
            like(0, dims.iter().enumerate().map(padded).collect())
        }
        "OneHot" => {
            let mut dims = input(0)?.dims.clone();
            dims.push(*sizes(1)?.first()?);
            like(2, dims)
        }
        "Concat" => {
            // How many elements there are matters here, not along which axis.
            let parts = all()?;
            let volume = parts.iter().fold(0_u64, |total, part| total.saturating_add(part.volume()));
            let joined = || parts.iter().map(|part| part.numbers.clone()).collect::<Option<Vec<_>>>();
            let numbers = (volume <= LONGEST_SHAPE).then(joined).flatten().map(|parts| parts.concat());
            Some(Known { element: element(0), dims: vec![volume], numbers })
        }
        "MatMul" | "Gemm" => {
            // The last axis but one of the left by the last of the right, whichever way they are turned.
            let (left, right) = (&input(0)?.dims, &input(1)?.dims);
            let side = |dims: &[u64]| dims.iter().rev().take(2).copied().max().unwrap_or(1);
            let outer = |dims: &[u64]| dims.iter().rev().skip(2).fold(1_u64, |all, dim| all.saturating_mul(*dim));
            let shared = left.last().copied().unwrap_or(1).max(1);
            let rows = left.iter().rev().nth(1).copied().unwrap_or_else(|| side(left) / shared).max(1);
            like(0, vec![outer(left).max(outer(right)), rows, right.last().copied().unwrap_or(1)])
        }
        "Cast" => Some(Known { element: named("to").unwrap_or(ElementType::Other), ..input(0)?.clone() }),
        "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" | "Slice" | "Transpose" => input(0).cloned(),
        operator @ ("Add" | "Sub" | "Mul" | "Div" | "Pow" | "Where" | "Max" | "Min" | "Equal" | "Greater" | "Less") => {
            let all = all()?;
            let first = all.first()?.dims.clone();
            let dims = all.iter().fold(first, |dims, known| broadcast(&dims, &known.dims));
            match operator {
                "Equal" | "Greater" | "Less" => Some(Known::shaped(ElementType::Bool, dims)),
                // Its first input says which of the others.
                "Where" => like(1, dims),
                _ => like(0, dims),
            }
        }
        _ => None,
    }
}

/// The shape of an element-wise operation; where the shapes do not fit, the larger size, which the engine refuses later.
fn broadcast(left: &[u64], right: &[u64]) -> Vec<u64> {
    let rank = left.len().max(right.len());
    let at = |dims: &[u64], axis: usize| (axis + dims.len()).checked_sub(rank).and_then(|axis| dims.get(axis).copied());
    (0..rank).map(|axis| at(left, axis).unwrap_or(1).max(at(right, axis).unwrap_or(1))).collect()
}

#[cfg(test)]
mod tests;
