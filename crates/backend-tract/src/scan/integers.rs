//! Weights in integers become `f32` once, at load, rather than at every run.
//!
//! A `DequantizeLinear` of constants is a constant. A `MatMulInteger` with constant weights, whose sums are made `f32`
//! right after it, is a product of whole numbers in `f32`: those below 2^24 are exact, larger ones are rounded as the
//! conversion would. The engine's own integer products repack their weights at each run. What is not of these forms is
//! left as it is.

use std::collections::{HashMap, HashSet};

use millrace_core::LoadError;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};

use super::Checker;

/// Replaces what has one of the forms above in the outermost graph. Constants lie in `raw_data`, and halves are `f32`.
///
/// # Errors
/// [`LoadError`] naming the node whose weights are too large as `f32`.
pub(super) fn settle(checker: &Checker<'_>, graph: &mut GraphProto) -> Result<(), LoadError> {
    let mut total = graph.initializer.iter().map(|tensor| tensor.raw_data.len() as u64).sum::<u64>();
    let made = {
        let known = Known::new(graph);
        let mut made = Made::default();
        for (index, node) in graph.node.iter().enumerate() {
            let Some(constant) = known.dequantised(node).or_else(|| known.product(node, &mut made)) else { continue };
            let bytes = constant.tensor.raw_data.len() as u64;
            total = total.saturating_add(bytes);
            if bytes > checker.max_tensor_bytes() || total > checker.source.memory_budget {
                let limit = checker.max_tensor_bytes();
                let text = format_args!(
                    "{}: its weights take {bytes} bytes as FP32; the limit is {limit}",
                    super::called(node)
                );
                return Err(checker.too_large(text));
            }
            made.replaced.insert(index, constant.instead);
            made.tensors.push(constant.tensor);
        }
        made
    };
    if made.replaced.is_empty() {
        return Ok(());
    }
    // The engine wants no order of nodes.
    let mut nodes = made.nodes;
    for (index, node) in std::mem::take(&mut graph.node).into_iter().enumerate() {
        match made.replaced.get(&index) {
            None => nodes.push(node),
            Some(instead) => nodes.extend(instead.iter().cloned()),
        }
    }
    graph.node = nodes;
    graph.initializer.extend(made.tensors);
    let mut read: HashSet<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    read_by(&graph.node, &mut read);
    graph.initializer.retain(|tensor| read.contains(tensor.name.as_str()));
    // What it says about the products is no longer so.
    graph.value_info.retain(|info| !made.retyped.contains(&info.name));
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

/// What the rewriting made so far.
#[derive(Debug, Default)]
struct Made {
    tensors: Vec<TensorProto>,
    /// What stands in the place of a node.
    replaced: HashMap<usize, Vec<NodeProto>>,
    /// Further nodes, and what they are made from.
    nodes: Vec<NodeProto>,
    centred: HashMap<(String, String), String>,
    /// Values of another type than before.
    retyped: HashSet<String>,
}

/// A constant, and the nodes instead of the one that it comes from.
#[derive(Debug)]
struct Constant {
    tensor: TensorProto,
    instead: Vec<NodeProto>,
}

/// The graph by name.
#[derive(Debug)]
struct Known<'a> {
    constants: HashMap<&'a str, &'a TensorProto>,
    readers: HashMap<&'a str, Vec<&'a NodeProto>>,
    /// The scalars among the values that no constant is: zero points of a quantisation while the model runs.
    scalars: HashSet<&'a str>,
    outputs: HashSet<&'a str>,
    names: HashSet<&'a str>,
}

impl<'a> Known<'a> {
    fn new(graph: &'a GraphProto) -> Self {
        let inputs: HashSet<&str> = graph.input.iter().map(|input| input.name.as_str()).collect();
        let constants = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor));
        let mut readers: HashMap<&str, Vec<&NodeProto>> = HashMap::new();
        let mut names: HashSet<&str> = inputs.clone();
        let mut scalars = HashSet::new();
        for node in &graph.node {
            node.input.iter().for_each(|name| readers.entry(name.as_str()).or_default().push(node));
            names.extend(node.input.iter().chain(&node.output).map(String::as_str));
            if node.op_type == "DynamicQuantizeLinear" {
                scalars.extend(node.output.get(2).map(String::as_str));
            }
        }
        // What an inner graph reads stays as it is: it counts as one more reader, of no form known here.
        for node in &graph.node {
            for inner in super::graph::subgraphs(node) {
                let mut read = HashSet::new();
                read_by(&inner.node, &mut read);
                read.extend(inner.output.iter().map(|output| output.name.as_str()));
                read.iter().for_each(|name| readers.entry(name).or_default().push(node));
                names.extend(read);
            }
        }
        Self {
            // One that is an input too may be replaced by a request.
            constants: constants.filter(|(name, _)| !inputs.contains(name)).collect(),
            readers,
            scalars,
            outputs: graph.output.iter().map(|output| output.name.as_str()).collect(),
            names,
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
    fn dequantised(&self, node: &NodeProto) -> Option<Constant> {
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
        Some(Constant { tensor: floats(output, &integers.dims, &numbers), instead: Vec::new() })
    }

    /// `MatMulInteger` of numbers minus their zero point, and of constants.
    fn product(&self, node: &NodeProto, made: &mut Made) -> Option<Constant> {
        if node.op_type != "MatMulInteger" {
            return None;
        }
        let (Some(left), Some(output)) = (node.input.first(), node.output.first()) else { return None };
        let weights = self.constant(node, 1)?;
        let becomes_float =
            |reader: &&NodeProto| reader.op_type == "Cast" && int(reader, "to") == Some(DataType::Float as i64);
        let readers = self.readers.get(output.as_str())?;
        if weights.dims.len() < 2 || self.outputs.contains(output.as_str()) || !readers.iter().all(becomes_float) {
            return None;
        }
        let zero = match Self::has(node, 3) {
            true => Some(Along::new(self.constant(node, 3)?, weights, weights.dims.len() - 1)?),
            false => None,
        };
        if Self::has(node, 2) {
            let name = node.input[2].as_str();
            let is_one = self.constants.get(name).is_some_and(|tensor| tensor.dims.iter().all(|size| *size == 1));
            if !is_one && !self.scalars.contains(name) {
                return None;
            }
        }
        let numbers = numbers(weights)?;
        let value = |(place, number): (usize, &f32)| number - zero.as_ref().map_or(0.0, |zero| zero.at(place));
        let numbers: Vec<f32> = numbers.iter().enumerate().map(value).collect();
        let fresh = |wish: String| {
            let mut name = wish;
            while self.names.contains(name.as_str()) || self.constants.contains_key(name.as_str()) {
                name.push('\'');
            }
            name
        };
        let point = node.input.get(2).cloned().unwrap_or_default();
        let centred = made.centred.get(&(left.clone(), point.clone())).cloned().unwrap_or_else(|| {
            let wide = fresh(format!("{left} as f32"));
            made.nodes.push(cast(left, &wide));
            let mut centred = wide.clone();
            if !point.is_empty() {
                let (wide_point, name) =
                    (fresh(format!("{left}: {point} as f32")), fresh(format!("{left} from {point}")));
                made.nodes.push(cast(&point, &wide_point));
                made.nodes.push(plain("Sub", &[&wide, &wide_point], &name));
                centred = name;
            }
            made.centred.insert((left.clone(), point), centred.clone());
            centred
        });
        let name = fresh(format!("{output}: weights as f32"));
        made.retyped.insert(output.clone());
        Some(Constant {
            tensor: floats(&name, &weights.dims, &numbers),
            instead: vec![plain("MatMul", &[&centred, &name], output)],
        })
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

fn plain(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        name: output.to_owned(),
        op_type: operator.to_owned(),
        input: inputs.iter().map(|&input| input.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

fn cast(input: &str, output: &str) -> NodeProto {
    let to = AttributeProto {
        name: "to".to_owned(),
        r#type: AttributeType::Int as i32,
        i: DataType::Float as i64,
        ..AttributeProto::default()
    };
    NodeProto { attribute: vec![to], ..plain("Cast", &[input], output) }
}

fn int(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|attribute| attribute.name == name).map(|attribute| attribute.i)
}
