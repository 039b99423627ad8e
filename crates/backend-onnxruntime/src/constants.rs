//! Values that depend on no input: the engine computes them while it loads, however large a small file makes them.
//!
//! Shapes of constants are followed through the operators that make much of little. What is not known here is not
//! followed further: the engine has a limit of its own on what it folds, from version 1.24 on.

use std::collections::HashMap;

use millrace_core::{LoadError, LoadErrorKind, ModelSource};
use millrace_onnx::{ElementType, Graph, Model, Node, Tensor};

use crate::backend::refused;

/// The most bytes of such values where the budget does not say less.
const MOST: u64 = 8 << 30;
/// Bytes of an element, for most of them are floats.
const WIDTH: u64 = 4;
/// A constant with more elements than this is no shape.
const LONGEST_SHAPE: u64 = 64;

/// What is known of a constant.
#[derive(Debug, Clone, Default)]
struct Known {
    dims: Vec<u64>,
    /// The elements of a short one, as shapes and repeats are; negative ones count as none.
    numbers: Option<Vec<u64>>,
}

impl Known {
    fn volume(&self) -> u64 {
        self.dims.iter().fold(1, |volume: u64, dim| volume.saturating_mul(*dim))
    }

    fn shaped(dims: Vec<u64>) -> Self {
        Self { dims, numbers: None }
    }
}

/// Checks the initializers, and every constant that follows from them. Returns about how many bytes of the latter the engine
/// may come to hold beside the file's own.
///
/// # Errors
/// [`LoadError`] naming the initializer whose shape and data disagree or the node that would make a value too large.
pub(crate) fn check(file: &str, model: &Model<'_>, source: &ModelSource) -> Result<u64, LoadError> {
    let mut check = Check { file, limit: source.memory_budget.min(MOST), total: 0 };
    check.graph(model.graph(), &HashMap::new())?;
    Ok(check.total)
}

struct Check<'c> {
    file: &'c str,
    limit: u64,
    total: u64,
}

impl Check<'_> {
    fn graph<'a>(&mut self, graph: Graph<'a>, outer: &HashMap<&'a str, Known>) -> Result<(), LoadError> {
        let mut values = outer.clone();
        for input in graph.inputs() {
            values.remove(input.name());
        }
        for tensor in graph.initializers() {
            values.insert(tensor.name(), self.initializer(&tensor)?);
        }
        for node in graph.nodes() {
            if let Some(known) = result(&node, &values) {
                // What is no larger than what it is made of takes its place.
                let largest = node.inputs().filter_map(|input| values.get(input)).map(Known::volume).max().unwrap_or(0);
                let growth = known.volume().saturating_sub(largest);
                self.total = self.total.saturating_add(growth.saturating_mul(WIDTH));
                if self.total > self.limit {
                    let (dims, limit) = (&known.dims, self.limit);
                    let text =
                        format!("{node} would make a constant of shape {dims:?}; the limit for all is {limit} bytes");
                    return Err(LoadError::new(LoadErrorKind::TooLarge, format!("{}: {text}", self.file)));
                }
                values.extend(node.outputs().next().map(|output| (output, known)));
            }
            for inner in node.attributes().flat_map(|attribute| attribute.graphs().collect::<Vec<_>>()) {
                self.graph(inner, &values)?;
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
        Ok(Known { dims: shape.iter().map(|size| *size as u64).collect(), numbers: numbers(tensor) })
    }
}

/// The elements of a short tensor of integers.
fn numbers(tensor: &Tensor<'_>) -> Option<Vec<u64>> {
    let elements = tensor.n_bytes()? * 8 / tensor.element_type().bits()?;
    if elements > LONGEST_SHAPE || tensor.external().ok()?.is_some() {
        return None;
    }
    let none = |_: &str| Err::<Vec<u8>, _>(std::io::ErrorKind::NotFound.into());
    let data = tensor.data(none).ok()?;
    match tensor.element_type() {
        ElementType::Int64 => Some(data.as_chunks().0.iter().map(|bytes| size(i64::from_le_bytes(*bytes))).collect()),
        ElementType::Int32 => {
            Some(data.as_chunks().0.iter().map(|bytes| size(i32::from_le_bytes(*bytes).into())).collect())
        }
        _ => None,
    }
}

fn size(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// What `node` writes first, where its shape follows from constants.
fn result(node: &Node<'_>, values: &HashMap<&str, Known>) -> Option<Known> {
    let names: Vec<&str> = node.inputs().collect();
    let input = |index: usize| names.get(index).filter(|name| !name.is_empty()).and_then(|name| values.get(name));
    let sizes = |index: usize| input(index).and_then(|known| known.numbers.clone());
    let attribute = |name: &str| node.attributes().find(|attribute| attribute.name() == name);
    let all = || (0..names.len()).map(input).collect::<Option<Vec<_>>>();
    match node.op_type() {
        "Constant" => {
            if let Some(tensor) = attribute("value").and_then(|value| value.tensor()) {
                let dims = tensor.shape().ok()?.iter().map(|size| *size as u64).collect();
                return Some(Known { dims, numbers: numbers(&tensor) });
            }
            let ints: Vec<u64> = attribute("value_ints")?.ints().map(size).collect();
            Some(Known { dims: vec![ints.len() as u64], numbers: Some(ints) })
        }
        "ConstantOfShape" => sizes(0).map(Known::shaped),
        "RandomNormal" | "RandomUniform" => Some(Known::shaped(attribute("shape")?.ints().map(size).collect())),
        "Expand" => Some(Known::shaped(broadcast(&input(0).cloned().unwrap_or_default().dims, &sizes(1)?))),
        "Tile" => {
            let repeats = sizes(1)?;
            let dims = input(0).map_or_else(|| vec![1; repeats.len()], |known| known.dims.clone());
            Some(Known::shaped(dims.iter().zip(&repeats).map(|(dim, times)| dim.saturating_mul(*times)).collect()))
        }
        "Range" => {
            let scalar = |index: usize| sizes(index)?.first().copied();
            let (from, to, step) = (scalar(0)?, scalar(1)?, scalar(2)?);
            Some(Known::shaped(vec![to.saturating_sub(from) / step.max(1)]))
        }
        "Pad" => {
            let (dims, pads) = (&input(0)?.dims, sizes(1)?);
            let around = |axis: usize| pads.get(axis).into_iter().chain(pads.get(axis + dims.len())).copied();
            let padded = |(axis, dim): (usize, &u64)| around(axis).fold(*dim, u64::saturating_add);
            Some(Known::shaped(dims.iter().enumerate().map(padded).collect()))
        }
        "OneHot" => {
            let mut dims = input(0)?.dims.clone();
            dims.push(*sizes(1)?.first()?);
            Some(Known::shaped(dims))
        }
        "Concat" => {
            // How many elements there are matters here, not along which axis.
            let parts = all()?;
            let volume = parts.iter().fold(0_u64, |total, part| total.saturating_add(part.volume()));
            let numbers = parts.iter().map(|part| part.numbers.clone()).collect::<Option<Vec<_>>>();
            let numbers = numbers.map(|parts| parts.concat()).filter(|all| all.len() as u64 <= LONGEST_SHAPE);
            Some(Known { dims: vec![volume], numbers })
        }
        "MatMul" | "Gemm" => {
            // The last axis but one of the left by the last of the right, whichever way they are turned.
            let (left, right) = (&input(0)?.dims, &input(1)?.dims);
            let side = |dims: &[u64]| dims.iter().rev().take(2).copied().max().unwrap_or(1);
            let outer = |dims: &[u64]| dims.iter().rev().skip(2).fold(1_u64, |all, dim| all.saturating_mul(*dim));
            let shared = left.last().copied().unwrap_or(1).max(1);
            let rows = left.iter().rev().nth(1).copied().unwrap_or_else(|| side(left) / shared).max(1);
            Some(Known::shaped(vec![outer(left).max(outer(right)), rows, right.last().copied().unwrap_or(1)]))
        }
        "Identity" | "Cast" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" | "Slice" | "Transpose" => {
            input(0).cloned()
        }
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Where" | "Max" | "Min" | "Equal" | "Greater" | "Less" => {
            let all = all()?;
            let first = all.first()?.dims.clone();
            Some(Known::shaped(all.iter().fold(first, |dims, known| broadcast(&dims, &known.dims))))
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
