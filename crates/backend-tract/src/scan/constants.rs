//! Values that depend on no input: the engine computes them while it loads, whatever their size.
//!
//! Sizes are followed through the operators that can make a small constant large. An operator that is not known here has
//! an unknown size, and what depends on it is not followed further.

use std::collections::HashMap;

use millrace_core::LoadError;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};

use super::{Checker, called, graph};

/// What is known of a constant.
#[derive(Debug, Clone, Default)]
struct Known {
    dims: Vec<u64>,
    /// The elements of a short one, as shapes, repeats and limits are.
    numbers: Option<Vec<f64>>,
}

impl Known {
    fn volume(&self) -> Option<u64> {
        self.dims.iter().try_fold(1_u64, |volume, dim| volume.checked_mul(*dim))
    }

    /// The elements as sizes: what is negative or broken counts as 0.
    fn sizes(&self) -> Option<Vec<u64>> {
        self.numbers.as_ref().map(|numbers| numbers.iter().map(|number| size(*number)).collect())
    }
}

/// A constant with more elements than this is no shape.
const LONGEST_SHAPE: usize = 64;

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturating: NaN and negative numbers become 0, huge ones the largest size"
)]
fn size(number: f64) -> u64 {
    number as u64
}

#[expect(clippy::cast_precision_loss, reason = "sizes above 2^53 are refused anyway, and rounding does not hide them")]
fn number(size: u64) -> f64 {
    size as f64
}

/// Checks every constant of the graph and of the graphs inside it.
///
/// # Errors
/// [`LoadError`] of kind `TooLarge` naming the node that would make the large value.
pub(super) fn check(checker: &Checker<'_>, graph: &GraphProto) -> Result<(), LoadError> {
    let mut total = 0;
    check_graph(checker, graph, &HashMap::new(), &mut total)
}

fn check_graph<'a>(
    checker: &Checker<'_>,
    graph: &'a GraphProto,
    outer: &HashMap<&'a str, Known>,
    total: &mut u64,
) -> Result<(), LoadError> {
    let mut values = outer.clone();
    for input in &graph.input {
        values.remove(input.name.as_str());
    }
    values.extend(graph.initializer.iter().map(|tensor| (tensor.name.as_str(), of_tensor(tensor))));
    for index in graph::order(graph) {
        let Some(node) = graph.node.get(index) else { continue };
        if let Some(known) = result(node, &values) {
            let volume = known.volume();
            *total = volume.and_then(|volume| total.checked_add(volume)).unwrap_or(u64::MAX);
            let limit = checker.max_tensor_bytes();
            if volume.is_none_or(|volume| volume > limit) || *total > checker.source.memory_budget {
                let dims = &known.dims;
                let text = format_args!(
                    "{} would make a constant of shape {dims:?}; the limit is {limit} bytes",
                    called(node)
                );
                return Err(checker.too_large(text));
            }
            values.extend(node.output.first().map(|output| (output.as_str(), known)));
        }
        for subgraph in graph::subgraphs(node) {
            check_graph(checker, subgraph, &values, total)?;
        }
    }
    Ok(())
}

fn of_tensor(tensor: &TensorProto) -> Known {
    let dims: Vec<u64> = tensor.dims.iter().map(|&dim| u64::try_from(dim).unwrap_or(0)).collect();
    Known { dims, numbers: elements(tensor) }
}

/// The elements of a short tensor of the types that sizes come in.
fn elements(tensor: &TensorProto) -> Option<Vec<f64>> {
    fn read<const N: usize>(raw: &[u8], element: fn([u8; N]) -> f64) -> Option<Vec<f64>> {
        (raw.len() <= LONGEST_SHAPE * N).then(|| raw.as_chunks().0.iter().copied().map(element).collect())
    }
    match DataType::try_from(tensor.data_type).ok()? {
        #[expect(clippy::cast_precision_loss, reason = "sizes above 2^53 are refused anyway")]
        DataType::Int64 => read(&tensor.raw_data, |bytes| i64::from_le_bytes(bytes) as f64),
        DataType::Int32 => read(&tensor.raw_data, |bytes| f64::from(i32::from_le_bytes(bytes))),
        DataType::Float => read(&tensor.raw_data, |bytes| f64::from(f32::from_le_bytes(bytes))),
        DataType::Double => read(&tensor.raw_data, f64::from_le_bytes),
        _ => None,
    }
}

/// The size of what `node` writes first, where it follows from constants.
fn result(node: &NodeProto, values: &HashMap<&str, Known>) -> Option<Known> {
    let input =
        |index: usize| node.input.get(index).filter(|name| !name.is_empty()).and_then(|name| values.get(name.as_str()));
    let attribute = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name);
    let shaped = |dims: Vec<u64>| Known { dims, numbers: None };
    let ints = |name: &str| {
        attribute(name).map(|found| found.ints.iter().map(|&int| u64::try_from(int).unwrap_or(0)).collect::<Vec<u64>>())
    };
    match node.op_type.as_str() {
        "Constant" => node.attribute.iter().find_map(of_attribute),
        "ConstantOfShape" => input(0)?.sizes().map(shaped),
        "RandomNormal" | "RandomUniform" => ints("shape").map(shaped),
        "Expand" => {
            let shape = shaped(input(1)?.sizes()?);
            Some(shaped(broadcast(&input(0).cloned().unwrap_or_default().dims, &shape.dims)))
        }
        "Tile" => {
            let repeats = input(1)?.sizes()?;
            let dims = input(0).map_or_else(|| vec![1; repeats.len()], |known| known.dims.clone());
            Some(shaped(dims.iter().zip(&repeats).map(|(dim, repeat)| dim.saturating_mul(*repeat)).collect()))
        }
        "Range" => {
            let scalar = |index: usize| input(index).and_then(|known| known.numbers.as_ref()?.first().copied());
            let count = (scalar(1)? - scalar(0)?) / scalar(2)?;
            Some(shaped(vec![size(count.ceil())]))
        }
        "Pad" => {
            let dims = &input(0)?.dims;
            let pads = input(1).and_then(Known::sizes).or_else(|| ints("pads"))?;
            let padded = |(axis, dim): (usize, &u64)| {
                let around = pads.get(axis).into_iter().chain(pads.get(axis + dims.len()));
                around.fold(*dim, |total, pad| total.saturating_add(*pad))
            };
            Some(shaped(dims.iter().enumerate().map(padded).collect()))
        }
        "Resize" | "Upsample" => {
            let dims = &input(0)?.dims;
            let sizes = input(3).and_then(Known::sizes).filter(|sizes| !sizes.is_empty());
            let scales = input(2).or_else(|| input(1)).and_then(|known| known.numbers.clone());
            sizes.map(shaped).or_else(|| {
                let scaled = dims.iter().zip(&scales?).map(|(dim, scale)| size(number(*dim) * scale)).collect();
                Some(shaped(scaled))
            })
        }
        "OneHot" => {
            let depth = input(1)?.sizes()?.first().copied()?;
            let mut dims = input(0)?.dims.clone();
            dims.push(depth);
            Some(shaped(dims))
        }
        "Concat" => {
            let parts = (0..node.input.len()).map(input).collect::<Option<Vec<_>>>()?;
            // How many elements there are matters here, not along which axis.
            let volume = parts.iter().try_fold(0_u64, |total, part| total.checked_add(part.volume()?));
            let numbers = parts.iter().map(|part| part.numbers.clone()).collect::<Option<Vec<_>>>();
            let numbers = numbers.map(|numbers| numbers.concat()).filter(|numbers| numbers.len() <= LONGEST_SHAPE);
            Some(Known { dims: vec![volume.unwrap_or(u64::MAX)], numbers })
        }
        "MatMul" | "MatMulInteger" => Some(shaped(product(&input(0)?.dims, &input(1)?.dims))),
        "Gemm" => {
            let is_set = |name: &str| attribute(name).is_some_and(|found| found.i != 0);
            let side = |index: usize, flipped: bool, axis: usize| {
                input(index).and_then(|known| known.dims.get(if flipped { 1 - axis } else { axis }).copied())
            };
            Some(shaped(vec![side(0, is_set("transA"), 0)?, side(1, is_set("transB"), 1)?]))
        }
        "Shape" => {
            let dims = &input(0)?.dims;
            let numbers = Some(dims.iter().map(|dim| number(*dim)).collect());
            Some(Known { dims: vec![dims.len() as u64], numbers })
        }
        "Gather" => {
            let (data, indices) = (input(0)?, input(1)?);
            let axis = attribute("axis").map_or(0, |found| usize::try_from(found.i).unwrap_or(0));
            let mut dims = data.dims.clone();
            if axis < dims.len() {
                dims.splice(axis..=axis, indices.dims.iter().copied());
            }
            Some(shaped(dims))
        }
        "Add" | "Sub" | "Mul" | "Div" => {
            let (left, right) = (input(0)?, input(1)?);
            Some(Known { dims: broadcast(&left.dims, &right.dims), numbers: arithmetic(&node.op_type, left, right) })
        }
        // The same elements, perhaps fewer.
        "Identity" | "Cast" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" | "Slice" | "Transpose" => {
            input(0).cloned()
        }
        _ => {
            let all = (0..node.input.len()).map(input).collect::<Option<Vec<_>>>()?;
            let first = all.first()?.dims.clone();
            Some(shaped(all.iter().fold(first, |dims, known| broadcast(&dims, &known.dims))))
        }
    }
}

fn of_attribute(attribute: &AttributeProto) -> Option<Known> {
    let list = |numbers: Vec<f64>| Known { dims: vec![numbers.len() as u64], numbers: Some(numbers) };
    let scalar = |number: f64| Known { dims: Vec::new(), numbers: Some(vec![number]) };
    #[expect(clippy::cast_precision_loss, reason = "sizes above 2^53 are refused anyway")]
    let float = |int: i64| int as f64;
    Some(match attribute.name.as_str() {
        "value" => of_tensor(attribute.t.as_ref()?),
        "value_int" => scalar(float(attribute.i)),
        "value_ints" => list(attribute.ints.iter().map(|&int| float(int)).collect()),
        "value_float" => scalar(f64::from(attribute.f)),
        "value_floats" => list(attribute.floats.iter().map(|&number| f64::from(number)).collect()),
        _ => return None,
    })
}

/// The shape of an element-wise operation; where the shapes do not fit, the larger size, which the engine refuses later.
fn broadcast(left: &[u64], right: &[u64]) -> Vec<u64> {
    let rank = left.len().max(right.len());
    let at = |dims: &[u64], axis: usize| (axis + dims.len()).checked_sub(rank).and_then(|axis| dims.get(axis).copied());
    (0..rank).map(|axis| at(left, axis).unwrap_or(1).max(at(right, axis).unwrap_or(1))).collect()
}

/// The shape of a matrix product.
fn product(left: &[u64], right: &[u64]) -> Vec<u64> {
    let (left_outer, right_outer) = (left.len().saturating_sub(2), right.len().saturating_sub(2));
    let mut dims = broadcast(&left[..left_outer], &right[..right_outer]);
    dims.extend(left.get(left_outer).filter(|_| left.len() > 1));
    dims.extend(right.last().filter(|_| right.len() > 1));
    dims
}

fn arithmetic(operator: &str, left: &Known, right: &Known) -> Option<Vec<f64>> {
    let (left, right) = (left.numbers.as_ref()?, right.numbers.as_ref()?);
    let length = left.len().max(right.len());
    if [left.len(), right.len()].iter().any(|&n| n != length && n != 1) {
        return None;
    }
    let at = |numbers: &[f64], index: usize| numbers[if numbers.len() == 1 { 0 } else { index }];
    let step = |index: usize| {
        let (left, right) = (at(left, index), at(right, index));
        match operator {
            "Add" => left + right,
            "Sub" => left - right,
            "Mul" => left * right,
            _ => left / right,
        }
    };
    Some((0..length).map(step).collect())
}
