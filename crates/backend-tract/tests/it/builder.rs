//! Small ONNX files made in a test, for what is too odd to be a fixture.

use std::sync::Arc;

use millrace_core::{MemoryFiles, ModelSource};
use prost::Message;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension::Value as Size};
use tract_onnx::pb::type_proto::{Tensor, Value};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto,
};

/// A graph under construction.
#[derive(Debug, Clone, Default)]
pub(crate) struct Onnx {
    pub(crate) graph: GraphProto,
}

impl Onnx {
    /// An input: its axes are numbers or names.
    pub(crate) fn input(mut self, name: &str, r#type: DataType, axes: &[&str]) -> Self {
        self.graph.input.push(info(name, r#type, axes));
        self
    }

    pub(crate) fn output(mut self, name: &str, r#type: DataType, axes: &[&str]) -> Self {
        self.graph.output.push(info(name, r#type, axes));
        self
    }

    pub(crate) fn floats(mut self, name: &str, dims: &[i64], data: &[f32]) -> Self {
        let (name, dims, float_data) = (name.to_owned(), dims.to_vec(), data.to_vec());
        let data_type = DataType::Float as i32;
        self.graph.initializer.push(TensorProto { name, dims, data_type, float_data, ..TensorProto::default() });
        self
    }

    pub(crate) fn ints(mut self, name: &str, data: &[i64]) -> Self {
        let (name, dims) = (name.to_owned(), vec![i64::try_from(data.len()).unwrap()]);
        let (data_type, int64_data) = (DataType::Int64 as i32, data.to_vec());
        self.graph.initializer.push(TensorProto { name, dims, data_type, int64_data, ..TensorProto::default() });
        self
    }

    /// A node called after its first output; attributes are integers or lists of them.
    pub(crate) fn node(mut self, op: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, &[i64])]) -> Self {
        let attribute = |(name, ints): &(&str, &[i64])| AttributeProto {
            name: (*name).to_owned(),
            r#type: if ints.len() == 1 { AttributeType::Int as i32 } else { AttributeType::Ints as i32 },
            i: if ints.len() == 1 { ints[0] } else { 0 },
            ints: if ints.len() == 1 { Vec::new() } else { ints.to_vec() },
            ..AttributeProto::default()
        };
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        self.graph.node.push(NodeProto {
            name: format!("{}_node", outputs[0]),
            op_type: op.to_owned(),
            input: owned(inputs),
            output: owned(outputs),
            attribute: attributes.iter().map(attribute).collect(),
            ..NodeProto::default()
        });
        self
    }

    /// The file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let import = |domain: &str, version| OperatorSetIdProto { domain: domain.to_owned(), version };
        let opset_import = vec![import("", 15), import("ai.onnx.ml", 3)];
        let graph = Some(self.graph.clone());
        ModelProto { ir_version: 8, opset_import, graph, ..ModelProto::default() }.encode_to_vec()
    }

    /// A version that holds this file.
    pub(crate) fn source(&self) -> ModelSource {
        source(self.bytes())
    }
}

/// A version that holds `bytes` as its model file.
pub(crate) fn source(bytes: Vec<u8>) -> ModelSource {
    let files = MemoryFiles::default().with("model.onnx", bytes);
    ModelSource::new("built".parse().unwrap(), 1, Arc::new(files))
}

fn info(name: &str, r#type: DataType, axes: &[&str]) -> ValueInfoProto {
    let size = |axis: &&str| axis.parse().map_or_else(|_| Size::DimParam((*axis).to_owned()), Size::DimValue);
    let dim = |axis: &&str| Dimension { value: Some(size(axis)), ..Dimension::default() };
    let shape = TensorShapeProto { dim: axes.iter().map(dim).collect() };
    let tensor = Tensor { elem_type: r#type as i32, shape: Some(shape) };
    let r#type = Some(TypeProto { value: Some(Value::TensorType(tensor)), ..TypeProto::default() });
    ValueInfoProto { name: name.to_owned(), r#type, ..ValueInfoProto::default() }
}
