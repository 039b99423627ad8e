//! Weights in integers become `f32` once, at load, rather than at every run: a `DequantizeLinear` of constants is a
//! constant.
//!
//! `MatMulInteger` is left to the engine. As a product of whole numbers in `f32` it was tried: with the conversions around
//! it, a dynamically quantised MiniLM took half as long again.

use std::collections::{HashMap, HashSet};

use millrace_core::LoadError;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use super::Checker;

/// Replaces what has this form in the outermost graph. Constants lie in `raw_data`, and halves are `f32`.
///
/// # Errors
/// [`LoadError`] naming the node whose weights are too large as `f32`.
pub(super) fn settle(checker: &Checker<'_>, graph: &mut GraphProto) -> Result<(), LoadError> {
    let mut total = graph.initializer.iter().map(|tensor| tensor.raw_data.len() as u64).sum::<u64>();
    let mut made = Vec::new();
    {
        let known = Known::new(graph);
        for (index, node) in graph.node.iter().enumerate() {
            let Some(tensor) = known.dequantised(node) else { continue };
            let bytes = tensor.raw_data.len() as u64;
            total = total.saturating_add(bytes);
            if bytes > checker.max_tensor_bytes() || total > checker.source.memory_budget {
                let limit = checker.max_tensor_bytes();
                let called = super::called(node);
                return Err(checker.too_large(format_args!(
                    "{called}: its weights take {bytes} bytes as FP32; the limit is {limit}"
                )));
            }
            made.push((index, tensor));
        }
    }
    if made.is_empty() {
        return Ok(());
    }
    for (index, tensor) in made.into_iter().rev() {
        graph.node.remove(index);
        graph.initializer.push(tensor);
    }
    let mut read: HashSet<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    read_by(&graph.node, &mut read);
    graph.initializer.retain(|tensor| read.contains(tensor.name.as_str()));
    Ok(())
}

fn read_by<'a>(nodes: &'a [NodeProto], read: &mut HashSet<&'a str>) {
    for node in nodes {
        read.extend(node.input.iter().map(String::as_str));
        for graph in super::graph::subgraphs(node) {
            read.extend(graph.output.iter().map(|output| output.name.as_str()));
            read_by(&graph.node, read);
        }
    }
}

/// What is known of the graph.
#[derive(Debug)]
struct Known<'a> {
    constants: HashMap<&'a str, &'a TensorProto>,
    outputs: HashSet<&'a str>,
}

impl<'a> Known<'a> {
    fn new(graph: &'a GraphProto) -> Self {
        let inputs: HashSet<&str> = graph.input.iter().map(|input| input.name.as_str()).collect();
        let constants = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor));
        Self {
            // One that is an input too may be replaced by a request.
            constants: constants.filter(|(name, _)| !inputs.contains(name)).collect(),
            outputs: graph.output.iter().map(|output| output.name.as_str()).collect(),
        }
    }

    fn constant(&self, node: &NodeProto, slot: usize) -> Option<&'a TensorProto> {
        self.constants.get(node.input.get(slot)?.as_str()).copied()
    }

    /// Whether `node` has an input in this place.
    fn has(node: &NodeProto, slot: usize) -> bool {
        node.input.get(slot).is_some_and(|name| !name.is_empty())
    }

    /// `(x - zero point) * scale` of constants.
    fn dequantised(&self, node: &NodeProto) -> Option<TensorProto> {
        if node.op_type != "DequantizeLinear" || int(node, "block_size").unwrap_or(0) != 0 {
            return None;
        }
        let (integers, scale) = (self.constant(node, 0)?, self.constant(node, 1)?);
        let output = node.output.first().filter(|name| !self.outputs.contains(name.as_str()))?;
        let axis = int(node, "axis").unwrap_or(1);
        let rank = i64::try_from(integers.dims.len()).ok()?;
        let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?;
        let scale = Along::new(scale, integers, axis)?;
        let zero = match Self::has(node, 2) {
            true => Some(Along::new(self.constant(node, 2)?, integers, axis)?),
            false => None,
        };
        let numbers = numbers(integers)?;
        let value = |(place, number): (usize, &f32)| {
            (number - zero.as_ref().map_or(0.0, |zero| zero.at(place))) * scale.at(place)
        };
        let numbers: Vec<f32> = numbers.iter().enumerate().map(value).collect();
        Some(floats(output, &integers.dims, &numbers))
    }
}

/// One number for a whole tensor, or one for each place along an axis of it.
#[derive(Debug)]
struct Along {
    numbers: Vec<f32>,
    /// Elements from one place to the next.
    step: usize,
}

impl Along {
    fn new(tensor: &TensorProto, of: &TensorProto, axis: usize) -> Option<Self> {
        let numbers = numbers(tensor)?;
        if numbers.len() == 1 {
            return Some(Self { numbers, step: 1 });
        }
        let size = usize::try_from(*of.dims.get(axis)?).ok()?;
        let inner = of.dims[axis + 1..].iter().map(|dim| usize::try_from(*dim).unwrap_or(0)).product();
        (tensor.dims.len() == 1 && numbers.len() == size && inner > 0).then_some(Self { numbers, step: inner })
    }

    fn at(&self, place: usize) -> f32 {
        self.numbers[place / self.step % self.numbers.len()]
    }
}

/// The elements of a constant of integers of at most 32 bits, or of `f32`.
fn numbers(tensor: &TensorProto) -> Option<Vec<f32>> {
    fn read<const N: usize>(raw: &[u8], number: fn([u8; N]) -> f32) -> Vec<f32> {
        raw.as_chunks().0.iter().copied().map(number).collect()
    }
    #[expect(clippy::cast_precision_loss, reason = "biases beyond 2^24 are rounded, as the operator itself does")]
    fn wide(bytes: [u8; 4]) -> f32 {
        i32::from_le_bytes(bytes) as f32
    }
    let raw = &tensor.raw_data;
    let numbers = match DataType::try_from(tensor.data_type).ok()? {
        DataType::Float => read(raw, f32::from_le_bytes),
        DataType::Int8 => read(raw, |bytes| i8::from_le_bytes(bytes).into()),
        DataType::Uint8 => read(raw, |bytes| u8::from_le_bytes(bytes).into()),
        DataType::Int16 => read(raw, |bytes| i16::from_le_bytes(bytes).into()),
        DataType::Uint16 => read(raw, |bytes| u16::from_le_bytes(bytes).into()),
        DataType::Int32 => read(raw, wide),
        _ => return None,
    };
    Some(numbers).filter(|numbers| !numbers.is_empty())
}

fn floats(name: &str, dims: &[i64], numbers: &[f32]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.to_vec(),
        data_type: DataType::Float as i32,
        raw_data: numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        ..TensorProto::default()
    }
}

fn int(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|attribute| attribute.name == name).map(|attribute| attribute.i)
}
