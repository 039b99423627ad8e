//! Names, types and shapes of inputs and outputs.

use crate::tensor::ElementType;
use crate::wire::{bodies, body, number, signed, text};

/// An input, an output or a value in between.
#[derive(Debug, Clone, Copy)]
pub struct ValueInfo<'a> {
    body: &'a [u8],
}

/// What kind of value it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// A tensor of this element type.
    Tensor(ElementType),
    /// A list of maps, as `ZipMap` makes: the type of the keys and of the values.
    Maps(ElementType, ElementType),
    /// One map.
    Map(ElementType, ElementType),
    /// Anything else: optional values, sparse tensors, sequences of tensors, or no type at all.
    Other,
}

/// One axis of a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis<'a> {
    /// A size. Negative ones come from damaged files and from exporters that mean "unknown".
    Fixed(i64),
    /// A size that all axes of this name share.
    Named(&'a str),
    /// Any size.
    Unknown,
}

impl<'a> ValueInfo<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { body }
    }

    /// The value's name.
    pub fn name(&self) -> &'a str {
        text(self.body, 1)
    }

    /// Its type.
    pub fn kind(&self) -> ValueKind {
        let Some(kind) = body(self.body, 2) else { return ValueKind::Other };
        if let Some(tensor) = body(kind, 1) {
            return ValueKind::Tensor(element(tensor));
        }
        let map = |kind: &'a [u8]| {
            let map = body(kind, 5)?;
            Some((element(map), element(body(body(map, 2)?, 1)?)))
        };
        if let Some((key, value)) = body(kind, 4).and_then(|sequence| body(sequence, 1)).and_then(map) {
            return ValueKind::Maps(key, value);
        }
        map(kind).map_or(ValueKind::Other, |(key, value)| ValueKind::Map(key, value))
    }

    /// Its axes where it is a tensor of known rank.
    pub fn shape(&self) -> Option<impl Iterator<Item = Axis<'a>> + Clone + use<'a>> {
        let shape = body(self.body, 2).and_then(|kind| body(kind, 1)).and_then(|tensor| body(tensor, 2))?;
        Some(bodies(shape, 1).map(|axis| match (number(axis, 1), text(axis, 2)) {
            (Some(size), _) => Axis::Fixed(signed(size)),
            (None, "") => Axis::Unknown,
            (None, name) => Axis::Named(name),
        }))
    }
}

fn element(message: &[u8]) -> ElementType {
    ElementType::from_number(number(message, 1).unwrap_or(0))
}
