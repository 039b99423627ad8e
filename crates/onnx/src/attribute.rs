//! Attributes of nodes.

use crate::graph::Graph;
use crate::tensor::Tensor;
use crate::wire::{Fields, Value, bodies, fixed32s, signed, utf8, varints};

/// A constant that belongs to a node. Reading it as another kind than its own gives nothing.
#[derive(Debug, Clone, Copy)]
pub struct Attribute<'a> {
    body: &'a [u8],
    name: &'a str,
    reference: &'a str,
    kind: AttributeKind,
    float: f32,
    int: i64,
    string: &'a [u8],
}

/// What an attribute holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each variant is the format's own name")]
pub enum AttributeKind {
    Float,
    Int,
    String,
    Tensor,
    Graph,
    Floats,
    Ints,
    Strings,
    Tensors,
    Graphs,
    /// Sparse tensors, types, or a kind that this reader does not know.
    Other,
}

impl AttributeKind {
    fn from_number(number: u64) -> Self {
        match number {
            1 => Self::Float,
            2 => Self::Int,
            3 => Self::String,
            4 => Self::Tensor,
            5 => Self::Graph,
            6 => Self::Floats,
            7 => Self::Ints,
            8 => Self::Strings,
            9 => Self::Tensors,
            10 => Self::Graphs,
            _ => Self::Other,
        }
    }
}

impl<'a> Attribute<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        let kind = AttributeKind::Other;
        let mut attribute = Self { body, name: "", reference: "", kind, float: 0.0, int: 0, string: &[] };
        let (mut declared, mut guessed) = (None, AttributeKind::Other);
        for field in Fields::new(body) {
            match (field.number, field.value) {
                (1, Value::Bytes(bytes)) => attribute.name = utf8(bytes),
                (21, Value::Bytes(bytes)) => attribute.reference = utf8(bytes),
                (20, Value::Varint(kind)) => declared = Some(AttributeKind::from_number(kind)),
                (2, Value::Fixed32(bits)) => {
                    attribute.float = f32::from_le_bytes(bits);
                    guessed = AttributeKind::Float;
                }
                (3, Value::Varint(value)) => {
                    attribute.int = signed(value);
                    guessed = AttributeKind::Int;
                }
                (4, Value::Bytes(bytes)) => {
                    attribute.string = bytes;
                    guessed = AttributeKind::String;
                }
                (5, _) => guessed = AttributeKind::Tensor,
                (6, _) => guessed = AttributeKind::Graph,
                (7, _) => guessed = AttributeKind::Floats,
                (8, _) => guessed = AttributeKind::Ints,
                (9, _) => guessed = AttributeKind::Strings,
                (10, _) => guessed = AttributeKind::Tensors,
                (11, _) => guessed = AttributeKind::Graphs,
                _ => {}
            }
        }
        // Files of the first versions do not say the kind; then it is the field that is there.
        attribute.kind = declared.unwrap_or(guessed);
        attribute
    }

    /// The attribute's name.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// What it holds.
    pub fn kind(&self) -> AttributeKind {
        self.kind
    }

    /// Inside a function: the caller's attribute whose value this one has. Empty elsewhere.
    pub fn reference(&self) -> &'a str {
        self.reference
    }

    /// The number of a `Float`.
    pub fn float(&self) -> Option<f32> {
        (self.kind == AttributeKind::Float).then_some(self.float)
    }

    /// The number of an `Int`.
    pub fn int(&self) -> Option<i64> {
        (self.kind == AttributeKind::Int).then_some(self.int)
    }

    /// The bytes of a `String`.
    pub fn string(&self) -> Option<&'a [u8]> {
        (self.kind == AttributeKind::String).then_some(self.string)
    }

    /// The tensor of a `Tensor`.
    pub fn tensor(&self) -> Option<Tensor<'a>> {
        let is_tensor = self.kind == AttributeKind::Tensor;
        is_tensor.then(|| bodies(self.body, 5).last()).flatten().map(Tensor::new)
    }

    /// The numbers of `Floats`.
    pub fn floats(&self) -> impl Iterator<Item = f32> + Clone + use<'a> {
        fixed32s(self.body_of(AttributeKind::Floats), 7).map(f32::from_le_bytes)
    }

    /// The numbers of `Ints`.
    pub fn ints(&self) -> impl Iterator<Item = i64> + Clone + use<'a> {
        varints(self.body_of(AttributeKind::Ints), 8).map(signed)
    }

    /// The byte strings of `Strings`.
    pub fn strings(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        bodies(self.body_of(AttributeKind::Strings), 9)
    }

    /// All tensors: the one of `Tensor` or those of `Tensors`.
    pub fn tensors(&self) -> impl Iterator<Item = Tensor<'a>> + use<'a> {
        self.tensor().into_iter().chain(bodies(self.body_of(AttributeKind::Tensors), 10).map(Tensor::new))
    }

    /// All graphs: the one of `Graph` and those of `Graphs`, whatever the attribute calls itself.
    pub fn graphs(&self) -> impl Iterator<Item = Graph<'a>> + use<'a> {
        bodies(self.body, 6).chain(bodies(self.body, 11)).map(Graph::new)
    }

    /// The message where it is of `kind`, else nothing to read.
    fn body_of(&self, kind: AttributeKind) -> &'a [u8] {
        if self.kind == kind { self.body } else { &[] }
    }
}
