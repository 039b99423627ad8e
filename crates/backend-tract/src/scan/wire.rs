//! How much memory a file takes once it is decoded, found out without decoding it.
//!
//! Two bytes on the wire can become two hundred in memory (an empty node), so a small hostile file could exhaust a large
//! machine. Only lengths are looked at here; what the fields mean is left to the other checks.

use tract_onnx::pb::{
    AttributeProto, FunctionProto, GraphProto, NodeProto, OperatorSetIdProto, SparseTensorProto,
    StringStringEntryProto, TensorAnnotation, TensorProto, TrainingInfoProto, TypeProto, ValueInfoProto,
    tensor_shape_proto,
};

/// What a field holds.
#[derive(Debug, Clone, Copy)]
enum Field {
    Message(Kind),
    /// Text or bytes.
    Blob,
    /// Numbers, perhaps packed: so many bytes of memory for one byte of wire.
    Numbers(u64),
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    ValueInfo,
    Type,
    TensorType,
    Shape,
    Dimension,
    Entry,
    Annotation,
    Training,
    Function,
    OperatorSet,
}

impl Kind {
    fn bytes(self) -> u64 {
        let size = match self {
            Self::Model => 0,
            Self::Graph => size_of::<GraphProto>(),
            Self::Node => size_of::<NodeProto>(),
            Self::Attribute => size_of::<AttributeProto>(),
            Self::Tensor => size_of::<TensorProto>(),
            Self::Sparse => size_of::<SparseTensorProto>(),
            Self::ValueInfo => size_of::<ValueInfoProto>(),
            Self::Type | Self::TensorType | Self::Shape => size_of::<TypeProto>(),
            Self::Dimension => size_of::<tensor_shape_proto::Dimension>(),
            Self::Entry => size_of::<StringStringEntryProto>(),
            Self::Annotation => size_of::<TensorAnnotation>(),
            Self::Training => size_of::<TrainingInfoProto>(),
            Self::Function => size_of::<FunctionProto>(),
            Self::OperatorSet => size_of::<OperatorSetIdProto>(),
        };
        size as u64
    }

    /// Field `number` of this message; `None` where the decoder skips it.
    fn field(self, number: u64) -> Option<Field> {
        use Field::{Blob, Message, Numbers};
        Some(match (self, number) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) | (Self::Training, 1 | 2) => Message(Self::Graph),
            (Self::Model, 8) | (Self::Function, 9) => Message(Self::OperatorSet),
            (Self::Model, 14) | (Self::Tensor, 13) | (Self::Annotation, 2) | (Self::Training, 3 | 4) => {
                Message(Self::Entry)
            }
            (Self::Model, 20) => Message(Self::Training),
            (Self::Model, 25) => Message(Self::Function),
            (Self::Graph, 1) | (Self::Function, 7) => Message(Self::Node),
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::Sparse, 1 | 2) => Message(Self::Tensor),
            (Self::Graph, 11..=13) => Message(Self::ValueInfo),
            (Self::Graph, 14) => Message(Self::Annotation),
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Message(Self::Sparse),
            (Self::Node, 5) => Message(Self::Attribute),
            (Self::Attribute, 15) | (Self::ValueInfo, 2) => Message(Self::Type),
            (Self::Type, 1) => Message(Self::TensorType),
            (Self::TensorType, 2) => Message(Self::Shape),
            (Self::Shape, 1) => Message(Self::Dimension),
            (Self::Tensor, 4 | 10) | (Self::Attribute, 7) => Numbers(1),
            (Self::Tensor, 5) => Numbers(4),
            (Self::Tensor, 1 | 7 | 11) | (Self::Attribute, 8) | (Self::Sparse, 3) => Numbers(8),
            (Self::Model, 2..=6)
            | (Self::Graph, 2 | 10)
            | (Self::Node, 1..=4 | 6 | 7)
            | (Self::Attribute, 1 | 4 | 9 | 13 | 21)
            | (Self::Tensor, 6 | 8 | 9 | 12)
            | (Self::ValueInfo, 1 | 3)
            | (Self::Type, 6)
            | (Self::Dimension, 2 | 3)
            | (Self::Entry | Self::OperatorSet | Self::Annotation, 1)
            | (Self::Entry, 2)
            | (Self::Function, 1 | 4..=6 | 8 | 10) => Blob,
            _ => return None,
        })
    }
}

/// The deepest nesting of messages that the decoder accepts.
const DEEPEST: usize = 100;

/// An upper bound of the bytes that decoding `bytes` allocates, or `None` where they are no protobuf message.
pub(super) fn decoded_bytes(bytes: &[u8]) -> Option<u64> {
    message(bytes, Kind::Model, 0)
}

fn message(mut bytes: &[u8], kind: Kind, depth: usize) -> Option<u64> {
    // Lists grow by doubling, so that up to twice their length may be reserved.
    let mut total = kind.bytes().checked_mul(2)?;
    if depth > DEEPEST {
        return Some(total); // the decoder refuses this depth, with a better word for it
    }
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let cost = match key & 7 {
            0 => {
                varint(&mut bytes)?;
                16
            }
            1 => {
                take(&mut bytes, 8)?;
                16
            }
            5 => {
                take(&mut bytes, 4)?;
                16
            }
            2 => {
                let length = varint(&mut bytes)?;
                let body = take(&mut bytes, length)?;
                match kind.field(key >> 3) {
                    Some(Field::Message(inner)) => message(body, inner, depth + 1)?,
                    Some(Field::Blob) => length.checked_add(48)?,
                    Some(Field::Numbers(growth)) => length.checked_mul(growth)?.checked_add(48)?,
                    None => 0,
                }
            }
            _ => return None,
        };
        total = total.checked_add(cost)?;
    }
    Some(total)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::decoded_bytes;

    #[test]
    fn a_small_file_of_many_empty_nodes_counts_as_large() {
        let nodes = 10_000_usize;
        let graph: Vec<u8> = [0x0a, 0x00].repeat(nodes); // field 1, length 0: a node without fields
        let mut file = vec![0x3a]; // field 7: the graph
        let mut length = graph.len();
        while length >= 0x80 {
            file.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        file.push(u8::try_from(length).unwrap());
        file.extend(&graph);
        assert!(decoded_bytes(&file).unwrap() > 100 * nodes as u64);
        assert_eq!(decoded_bytes(&file[..file.len() - 1]), None, "a cut file is no message");
    }
}
