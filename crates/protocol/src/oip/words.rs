//! The fixed texts, in one place because clients and their tests look for them.
//!
//! Foreign names are escaped and cut; names of models, inputs and outputs stand between single quotes as in Triton.

use std::fmt::{self, Display, Write};

use millrace_core::{ModelName, Reason, Refusal, Shape, TensorSpec};

use super::datatype::spec_sizes;
use crate::tfs::Bare;

/// Wrong bytes from the client.
pub(super) fn invalid(text: String) -> Refusal {
    Refusal::new(Reason::InvalidInput, text)
}

/// Well-formed, but not done here.
pub(super) fn unsupported(text: String) -> Refusal {
    Refusal::new(Reason::Unsupported, text)
}

pub(super) fn unexpected_input(model: &ModelName, name: &str, known: &[TensorSpec]) -> Refusal {
    let (name, names) = (Bare(name), Names(known));
    invalid(format!("unexpected inference input '{name}' for model '{model}'; expected: {names}"))
}

pub(super) fn unexpected_output(model: &ModelName, name: &str, known: &[TensorSpec]) -> Refusal {
    let (name, names) = (Bare(name), Names(known));
    invalid(format!("unexpected inference output '{name}' for model '{model}'; expected: {names}"))
}

pub(super) fn input_twice(name: &str) -> Refusal {
    invalid(format!("input '{}' already exists in request", Bare(name)))
}

pub(super) fn output_twice(name: &str) -> Refusal {
    invalid(format!("output '{}' already requested", Bare(name)))
}

pub(super) fn wrong_datatype(model: &ModelName, spec: &TensorSpec, got: &str) -> Refusal {
    let (name, got, expected) = (Bare(&spec.name), Bare(got), spec.dtype);
    invalid(format!("inference input '{name}' data-type is '{got}', but model '{model}' expects '{expected}'"))
}

pub(super) fn unexpected_shape(model: &ModelName, spec: &TensorSpec, got: &Shape) -> Refusal {
    let (name, expected) = (Bare(&spec.name), Sizes(spec));
    invalid(format!("unexpected shape for input '{name}' for model '{model}'. Expected {expected}, got {got}"))
}

pub(super) fn bad_shape(name: &str, why: impl Display) -> Refusal {
    invalid(format!("input '{}': {why}", Bare(name)))
}

pub(super) fn wrong_byte_size(model: &ModelName, name: &str, expected: usize, got: usize) -> Refusal {
    let name = Bare(name);
    invalid(format!("input byte size mismatch for input '{name}' for model '{model}'. Expected {expected}, got {got}"))
}

/// `expected 2 inputs but got 1 inputs for model 'M'. Got input(s) ['A'], but missing required input(s) ['B'].`
pub(super) fn missing_inputs(model: &ModelName, specs: &[TensorSpec], is_there: impl Fn(usize) -> bool) -> Refusal {
    let list = |wanted: bool| {
        let mut text = String::from("[");
        let names = specs.iter().enumerate().filter(|(index, _)| is_there(*index) == wanted);
        for (position, (_, spec)) in names.enumerate() {
            let comma = if position > 0 { "," } else { "" };
            // Writing to a string cannot fail.
            let _infallible = write!(text, "{comma}'{}'", Bare(&spec.name));
        }
        text.push(']');
        text
    };
    let (expected, got) = (specs.len(), (0..specs.len()).filter(|&index| is_there(index)).count());
    let (given, missing) = (list(true), list(false));
    invalid(format!(
        "expected {expected} inputs but got {got} inputs for model '{model}'. Got input(s) {given}, but missing required \
         input(s) {missing}."
    ))
}

/// A signature's sizes, `-1` for those that a request chooses: `[-1,4]`.
struct Sizes<'a>(&'a TensorSpec);

impl Display for Sizes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (axis, size) in spec_sizes(self.0).enumerate() {
            let comma = if axis > 0 { "," } else { "" };
            write!(f, "{comma}{size}")?;
        }
        f.write_str("]")
    }
}

/// The names there are, the first few of them.
struct Names<'a>(&'a [TensorSpec]);

impl Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 8;
        for (position, spec) in self.0.iter().take(MOST).enumerate() {
            let comma = if position > 0 { ", " } else { "" };
            write!(f, "{comma}'{}'", Bare(&spec.name))?;
        }
        if self.0.len() > MOST { write!(f, " and {} more", self.0.len() - MOST) } else { Ok(()) }
    }
}
