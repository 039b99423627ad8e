//! The one walk over the whole file that lets everybody else trust it.

use crate::MAX_GRAPH_DEPTH;
use crate::error::{OnnxError, shown};
use crate::wire::{Field, Fields, Value, text, varint};

/// The messages whose inside is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    SequenceType,
    MapType,
    Shape,
    Dimension,
    Entry,
    OperatorSet,
    Function,
}

/// What a field must be.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// One message, at most once.
    One(Kind),
    /// Any number of messages.
    Many(Kind),
    Text,
    Blob,
    Varint,
    Fixed32,
    /// A list of numbers, packed or not.
    Varints,
    Fixed32s,
    Fixed64s,
}

impl Kind {
    /// Field `number` of this message; `None` where nobody reads it.
    fn form(self, number: u64) -> Option<Form> {
        use Form::{Blob, Fixed32, Fixed32s, Fixed64s, Many, One, Text, Varint, Varints};
        Some(match (self, number) {
            (Self::Model, 1 | 5) | (Self::OperatorSet, 2) => Varint,
            (Self::Model, 2..=4 | 6) => Text,
            (Self::Model, 7) | (Self::Attribute, 6) => One(Self::Graph),
            (Self::Model, 8) | (Self::Function, 9) => Many(Self::OperatorSet),
            (Self::Model, 14) | (Self::Tensor, 13) => Many(Self::Entry),
            (Self::Model, 25) => Many(Self::Function),
            (Self::Function, 1 | 4 | 5 | 10) => Text,
            (Self::Graph, 1) | (Self::Function, 7) => Many(Self::Node),
            (Self::Graph, 2) | (Self::Node, 1..=4 | 7) | (Self::ValueInfo, 1) => Text,
            (Self::Graph, 5) | (Self::Attribute, 10) => Many(Self::Tensor),
            (Self::Graph, 11..=13) => Many(Self::ValueInfo),
            (Self::Graph, 15) | (Self::Attribute, 23) => Many(Self::Sparse),
            (Self::Node, 5) => Many(Self::Attribute),
            (Self::Attribute, 1 | 21) | (Self::OperatorSet, 1) | (Self::Entry, 1 | 2) => Text,
            (Self::Attribute, 2) => Fixed32,
            (Self::Attribute, 3 | 20) => Varint,
            (Self::Attribute, 4 | 9) => Blob,
            (Self::Attribute, 5) | (Self::Sparse, 1 | 2) => One(Self::Tensor),
            (Self::Attribute, 7) => Fixed32s,
            (Self::Attribute, 8) => Varints,
            (Self::Attribute, 11) => Many(Self::Graph),
            (Self::Attribute, 22) => One(Self::Sparse),
            (Self::Tensor, 1 | 5 | 7 | 11) | (Self::Sparse, 3) => Varints,
            (Self::Tensor, 2 | 14) => Varint,
            (Self::Tensor, 4) => Fixed32s,
            (Self::Tensor, 6 | 9) => Blob,
            (Self::Tensor, 8) => Text,
            (Self::Tensor, 10) => Fixed64s,
            (Self::ValueInfo, 2) | (Self::SequenceType, 1) | (Self::MapType, 2) => One(Self::Type),
            (Self::Type, 1) => One(Self::TensorType),
            (Self::Type, 4) => One(Self::SequenceType),
            (Self::Type, 5) => One(Self::MapType),
            (Self::TensorType | Self::MapType, 1) | (Self::Dimension, 1) => Varint,
            (Self::TensorType, 2) => One(Self::Shape),
            (Self::Shape, 1) => Many(Self::Dimension),
            (Self::Dimension, 2) => Text,
            _ => return None,
        })
    }
}

/// Types of sequences of maps of sequences: nobody nests them deeper.
const MAX_TYPE_DEPTH: usize = 16;

/// Checks the whole file.
///
/// # Errors
/// [`OnnxError`] with the part of the file at fault.
pub(crate) fn check(file: &[u8]) -> Result<(), OnnxError> {
    if file.is_empty() {
        return Err(OnnxError::damaged("the file", "it is empty"));
    }
    Place { what: "the model", outer: None, message: file, kind: Kind::Model }.check(0, 0)
}

/// Where the walk is; the chain is turned into words only for an error.
#[derive(Clone, Copy)]
struct Place<'a> {
    what: &'static str,
    outer: Option<&'a Self>,
    message: &'a [u8],
    kind: Kind,
}

impl Place<'_> {
    fn check(&self, graphs: usize, types: usize) -> Result<(), OnnxError> {
        if graphs > MAX_GRAPH_DEPTH {
            let detail = format!("graphs nested deeper than {MAX_GRAPH_DEPTH} inside one another");
            return Err(OnnxError::Unsupported { place: self.words(), detail });
        }
        if types > MAX_TYPE_DEPTH {
            return Err(self.damaged("a type nested too deep"));
        }
        let mut seen = 0_u64;
        let mut fields = Fields::new(self.message);
        for field in &mut fields {
            self.check_field(field, &mut seen, graphs, types)?;
        }
        if fields.is_damaged() { Err(self.damaged("a field is cut off or has no known form")) } else { Ok(()) }
    }

    fn check_field(&self, field: Field<'_>, seen: &mut u64, graphs: usize, types: usize) -> Result<(), OnnxError> {
        let Some(form) = self.kind.form(field.number) else { return Ok(()) };
        match (form, field.value) {
            (Form::One(kind) | Form::Many(kind), Value::Bytes(message)) => {
                if matches!(form, Form::One(_)) {
                    let bit = 1_u64 << (field.number & 63);
                    if *seen & bit != 0 {
                        return Err(self.damaged("a part that may stand once stands twice"));
                    }
                    *seen |= bit;
                }
                let inner = Place { what: kind.what(), outer: Some(self), message, kind };
                inner.check(graphs + usize::from(kind == Kind::Graph), types + usize::from(kind == Kind::Type))
            }
            (Form::Text, Value::Bytes(bytes)) if str::from_utf8(bytes).is_err() => {
                Err(self.damaged("a text is not UTF-8"))
            }
            (Form::Varints, Value::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    varint(&mut packed).ok_or_else(|| self.damaged("a list of numbers is cut off"))?;
                }
                Ok(())
            }
            (Form::Fixed32s, Value::Bytes(packed)) if packed.len() % 4 != 0 => {
                Err(self.damaged("a list of numbers is cut off"))
            }
            (Form::Fixed64s, Value::Bytes(packed)) if packed.len() % 8 != 0 => {
                Err(self.damaged("a list of numbers is cut off"))
            }
            (Form::Text | Form::Blob | Form::Fixed32s | Form::Fixed64s, Value::Bytes(_))
            | (Form::Varint | Form::Varints, Value::Varint(_))
            | (Form::Fixed32 | Form::Fixed32s, Value::Fixed32(_))
            | (Form::Fixed64s, Value::Fixed64(_)) => Ok(()),
            _ => Err(self.damaged("a field has another form than it must")),
        }
    }

    fn damaged(&self, detail: &'static str) -> OnnxError {
        OnnxError::damaged(self.words(), detail)
    }

    /// The innermost parts that have a name.
    fn words(&self) -> String {
        let name = match self.kind {
            Kind::Node => Some((text(self.message, 3), text(self.message, 4))),
            Kind::Attribute | Kind::ValueInfo => Some((text(self.message, 1), "")),
            Kind::Tensor => Some((text(self.message, 8), "")),
            _ => None,
        };
        let own = match name {
            Some((name, "")) => format!("{} `{}`", self.what, shown(name)),
            Some((name, operator)) => format!("{} `{}` ({})", self.what, shown(name), shown(operator)),
            None => self.what.to_owned(),
        };
        match (self.kind, self.outer) {
            (Kind::Node | Kind::Model | Kind::Graph, _) | (_, None) => own,
            (_, Some(outer)) if outer.kind == Kind::Graph || outer.kind == Kind::Model => own,
            (_, Some(outer)) => format!("{}, {own}", outer.words()),
        }
    }
}

impl Kind {
    fn what(self) -> &'static str {
        match self {
            Self::Model => "the model",
            Self::Graph => "the graph",
            Self::Node => "node",
            Self::Attribute => "attribute",
            Self::Tensor => "tensor",
            Self::Sparse => "a sparse tensor",
            Self::ValueInfo => "value",
            Self::Type | Self::TensorType | Self::SequenceType | Self::MapType => "its type",
            Self::Shape | Self::Dimension => "its shape",
            Self::Entry => "a property",
            Self::OperatorSet => "an operator set",
            Self::Function => "a function",
        }
    }
}
