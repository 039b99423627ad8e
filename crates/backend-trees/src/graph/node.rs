//! A node while it is compiled: its attributes by name and type, what is known about its inputs, and errors that say where.

use std::collections::HashMap;
use std::fmt::Display;

use millrace_core::{LoadError, LoadErrorKind};
use millrace_onnx::{Attribute, AttributeKind, Node};

use super::fact::{Fact, Size};
use super::value::{Data, Kind, Texts, Value};

/// The most attributes that a node may have; trees, the richest, have some twenty.
const MAX_ATTRIBUTES: usize = 64;

/// An input of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) fact: &'a Fact,
    /// Its value, where it is constant.
    pub(crate) constant: Option<&'a Value>,
}

/// A node to be compiled.
#[derive(Debug)]
pub(crate) struct NodeView<'a> {
    file: &'a str,
    node: Node<'a>,
    /// The version of the operator set that the node is of.
    pub(crate) opset: i64,
    pub(crate) inputs: Vec<Option<Input<'a>>>,
    pub(crate) n_outputs: usize,
    /// Bytes of memory that loading may take.
    pub(crate) budget: u64,
    attributes: HashMap<&'a str, Attribute<'a>>,
}

impl<'a> NodeView<'a> {
    pub(crate) fn new(
        file: &'a str,
        node: Node<'a>,
        opset: i64,
        inputs: Vec<Option<Input<'a>>>,
        budget: u64,
    ) -> Result<Self, LoadError> {
        let mut view =
            Self { file, node, opset, inputs, n_outputs: node.outputs().count(), budget, attributes: HashMap::new() };
        for attribute in node.attributes() {
            if view.attributes.len() == MAX_ATTRIBUTES {
                return Err(view.invalid(format_args!("more than {MAX_ATTRIBUTES} attributes")));
            }
            if view.attributes.insert(attribute.name(), attribute).is_some() {
                return Err(view.invalid(format_args!("the attribute `{}` stands twice", short(attribute.name()))));
            }
        }
        Ok(view)
    }

    /// An error about this node.
    pub(crate) fn error(&self, kind: LoadErrorKind, text: impl Display) -> LoadError {
        LoadError::new(kind, format!("{}: {}: {text}", self.file, self.node))
    }

    pub(crate) fn invalid(&self, text: impl Display) -> LoadError {
        self.error(LoadErrorKind::Invalid, text)
    }

    pub(crate) fn unsupported(&self, text: impl Display) -> LoadError {
        self.error(LoadErrorKind::Unsupported, text)
    }

    /// Says that `what` would need more than may be had.
    pub(crate) fn too_large(&self, what: impl Display) -> LoadError {
        self.error(LoadErrorKind::TooLarge, what)
    }

    /// Refuses a number of inputs or outputs that the operator does not have.
    pub(crate) fn expect(&self, inputs: std::ops::RangeInclusive<usize>, outputs: usize) -> Result<(), LoadError> {
        let n_inputs = self.inputs.len();
        if !inputs.contains(&n_inputs) || self.inputs.iter().take(*inputs.start()).any(Option::is_none) {
            let (least, most) = inputs.into_inner();
            return Err(self.invalid(format_args!("expected {least} to {most} inputs, got {n_inputs}")));
        }
        if self.n_outputs == 0 || self.n_outputs > outputs {
            return Err(self.invalid(format_args!("expected 1 to {outputs} outputs, got {}", self.n_outputs)));
        }
        Ok(())
    }

    /// The fact of input `index`, which [`NodeView::expect`] found to be there.
    pub(crate) fn fact(&self, index: usize) -> Result<&'a Fact, LoadError> {
        self.optional(index)
            .map(|input| input.fact)
            .ok_or_else(|| self.invalid(format_args!("input {index} is missing")))
    }

    pub(crate) fn optional(&self, index: usize) -> Option<Input<'a>> {
        self.inputs.get(index).copied().flatten()
    }

    /// The constant integers of input `index`, or `None` where it is left out.
    pub(crate) fn constant_ints(&self, index: usize) -> Result<Option<Vec<i64>>, LoadError> {
        let Some(input) = self.optional(index) else { return Ok(None) };
        match input.constant.map(|value| &value.data) {
            Some(Data::I64(items)) => Ok(Some(items.clone())),
            Some(Data::I32(items)) => Ok(Some(items.iter().copied().map(i64::from).collect())),
            Some(_) => Err(self.invalid(format_args!("input {index}: expected integers"))),
            None => Err(self.unsupported(format_args!("input {index} must be constant"))),
        }
    }

    /// The axes of input or attribute: the input from opset `since` on, where there is one, else the attribute.
    pub(crate) fn axes(&self, index: usize, since: i64) -> Result<Option<Vec<i64>>, LoadError> {
        if self.opset >= since { self.constant_ints(index) } else { self.ints("axes") }
    }

    fn attribute(&self, name: &str, kind: AttributeKind) -> Result<Option<&Attribute<'a>>, LoadError> {
        let Some(attribute) = self.attributes.get(name) else { return Ok(None) };
        if attribute.kind() != kind {
            let got = attribute.kind();
            return Err(self.invalid(format_args!("the attribute `{name}` is {got:?}; expected {kind:?}")));
        }
        Ok(Some(attribute))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.attributes.contains_key(name)
    }

    pub(crate) fn int(&self, name: &str) -> Result<Option<i64>, LoadError> {
        Ok(self.attribute(name, AttributeKind::Int)?.and_then(Attribute::int))
    }

    pub(crate) fn float(&self, name: &str) -> Result<Option<f32>, LoadError> {
        Ok(self.attribute(name, AttributeKind::Float)?.and_then(Attribute::float))
    }

    /// The text of the attribute, or `default`.
    pub(crate) fn word<'s>(&'s self, name: &str, default: &'s str) -> Result<&'s str, LoadError> {
        match self.attribute(name, AttributeKind::String)?.and_then(Attribute::string) {
            Some(bytes) => {
                str::from_utf8(bytes).map_err(|_| self.invalid(format_args!("the attribute `{name}` is not UTF-8")))
            }
            None => Ok(default),
        }
    }

    pub(crate) fn string(&self, name: &str) -> Result<Option<&'a [u8]>, LoadError> {
        Ok(self.attribute(name, AttributeKind::String)?.and_then(Attribute::string))
    }

    pub(crate) fn ints(&self, name: &str) -> Result<Option<Vec<i64>>, LoadError> {
        Ok(self.attribute(name, AttributeKind::Ints)?.map(|attribute| attribute.ints().collect()))
    }

    pub(crate) fn floats(&self, name: &str) -> Result<Option<Vec<f32>>, LoadError> {
        Ok(self.attribute(name, AttributeKind::Floats)?.map(|attribute| attribute.floats().collect()))
    }

    pub(crate) fn strings(&self, name: &str) -> Result<Option<Texts>, LoadError> {
        Ok(self.attribute(name, AttributeKind::Strings)?.map(|attribute| attribute.strings().collect()))
    }

    /// The byte strings of the attribute one by one, none where it is not there.
    pub(crate) fn each_string(&self, name: &str) -> Result<impl Iterator<Item = &'a [u8]> + use<'a>, LoadError> {
        Ok(self.attribute(name, AttributeKind::Strings)?.map(Attribute::strings).into_iter().flatten())
    }

    /// The tensor of the attribute.
    pub(crate) fn tensor(&self, name: &str) -> Result<Option<Value>, LoadError> {
        let Some(tensor) = self.attribute(name, AttributeKind::Tensor)?.and_then(Attribute::tensor) else {
            return Ok(None);
        };
        let no_file = |_: &str| Err::<&[u8], _>(std::io::ErrorKind::Unsupported.into());
        let value = super::constant::value(&tensor, no_file, self.budget);
        value.map(Some).map_err(|error| {
            LoadError::new(error.kind(), format!("{}: {}: the attribute `{name}`: {error}", self.file, self.node))
        })
    }

    /// The tensor of the attribute as it stands in the file.
    pub(crate) fn raw_tensor(&self, name: &str) -> Result<Option<millrace_onnx::Tensor<'a>>, LoadError> {
        Ok(self.attribute(name, AttributeKind::Tensor)?.and_then(Attribute::tensor))
    }

    /// Numbers that stand in the attribute `name` as floats, or in `name_as_tensor` as floats or doubles; the second says
    /// whether they are doubles.
    pub(crate) fn reals(&self, name: &str) -> Result<Option<(Vec<f64>, bool)>, LoadError> {
        let as_tensor = format!("{name}_as_tensor");
        if let Some(tensor) = self.tensor(&as_tensor)? {
            if self.has(name) {
                return Err(self.invalid(format_args!("both `{name}` and `{as_tensor}`")));
            }
            return match tensor.data {
                Data::F64(items) => Ok(Some((items, true))),
                Data::F32(items) => Ok(Some((items.into_iter().map(f64::from).collect(), false))),
                other => Err(self.invalid(format_args!("the attribute `{as_tensor}` is {}", other.kind().name()))),
            };
        }
        Ok(self.floats(name)?.map(|items| (items.into_iter().map(f64::from).collect(), false)))
    }

    /// Demands that `got` values are as many as `expected`.
    pub(crate) fn same_length(&self, what: &str, got: usize, expected: usize) -> Result<(), LoadError> {
        if got == expected {
            return Ok(());
        }
        Err(self.invalid(format_args!("`{what}` has {got} entries; expected {expected}")))
    }

    /// The error for an input of a kind that the operator does not take here.
    pub(crate) fn wrong_kind(&self, kind: Kind) -> LoadError {
        self.unsupported(format_args!("it does not take {} here", kind.name()))
    }

    /// `axis` counted from the front, of a value of `rank` axes.
    pub(crate) fn axis(&self, axis: i64, rank: usize) -> Result<usize, LoadError> {
        let signed = i64::try_from(rank).unwrap_or(i64::MAX);
        let front = if axis < 0 { axis.saturating_add(signed) } else { axis };
        let front = usize::try_from(front).ok().filter(|front| *front < rank);
        front.ok_or_else(|| self.invalid(format_args!("axis {axis} of {rank} axes")))
    }

    /// The rank of `fact`, which the operator must know beforehand.
    pub(crate) fn rank(&self, fact: &Fact) -> Result<usize, LoadError> {
        fact.rank().ok_or_else(|| self.unsupported("the number of axes of its input is not known"))
    }

    /// The shape of `fact`, likewise.
    pub(crate) fn shape<'f>(&self, fact: &'f Fact) -> Result<&'f [Size], LoadError> {
        fact.shape.as_deref().ok_or_else(|| self.unsupported("the number of axes of its input is not known"))
    }
}

/// A name as messages show it.
pub(crate) fn short(name: &str) -> String {
    name.chars().take(80).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
