//! ONNX files read in place.
//!
//! [`Model::parse`] walks the whole file once and checks its structure: field types, lengths, UTF-8 of names, nesting of
//! graphs, messages that may stand only once. What it gives back borrows the file, so that reading costs no memory however
//! the file is made, and the accessors of its parts cannot fail any more. Tensors are an exception: whether a shape and
//! its data agree is found out by [`Tensor::data`], whose caller knows how much memory it may take.
//!
//! ```
//! # fn bytes() -> Vec<u8> { vec![0x08, 0x08, 0x3a, 0x06, 0x0a, 0x04, 0x22, 0x02, b'I', b'd'] }
//! let file = bytes();
//! let model = millrace_onnx::Model::parse(&file).unwrap();
//! assert_eq!(model.ir_version(), 8);
//! assert_eq!(model.graph().nodes().next().unwrap().op_type(), "Id");
//! ```
//!
//! What operators mean, whether names are defined and whether the graph has cycles is left to those who run it.

#![forbid(unsafe_code)]

mod attribute;
mod check;
mod error;
mod external;
mod facts;
mod graph;
mod model;
mod tensor;
mod value;
mod wire;

pub use attribute::{Attribute, AttributeKind};
pub use error::OnnxError;
pub use external::External;
pub use facts::Facts;
pub use graph::{Graph, Node};
pub use model::Model;
pub use tensor::{ElementType, Tensor};
pub use value::{Axis, ValueInfo, ValueKind};

/// The operator set of trees, encoders and linear models.
pub const ML_DOMAIN: &str = "ai.onnx.ml";

/// The deepest nesting of graphs inside the attributes of nodes that [`Model::parse`] takes.
pub const MAX_GRAPH_DEPTH: usize = 32;
