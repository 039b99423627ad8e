//! What an operator becomes: a kernel that turns values into values, and the facts about what it makes.

use std::fmt;

use millrace_core::RunError;
use smallvec::SmallVec;

use super::fact::Fact;
use super::value::{Sizes, Value};
use crate::forest;

/// The most elements of a value, whatever a request or a file asks for.
pub(crate) const MAX_ELEMENTS: usize = 1 << 28;

/// A compiled node.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) kernel: Box<dyn Kernel>,
    /// One for each output that the operator has, named in the file or not.
    pub(crate) outputs: Vec<Fact>,
    /// The names of the classes that it tells apart, for people.
    pub(crate) classes: Option<String>,
}

impl Compiled {
    pub(crate) fn new(kernel: impl Kernel + 'static, outputs: impl Into<Vec<Fact>>) -> Self {
        Self { kernel: Box::new(kernel), outputs: outputs.into(), classes: None }
    }
}

/// A node at work.
pub(crate) trait Kernel: fmt::Debug + Send + Sync {
    /// Computes all outputs. What they held before is of no account, but their memory may be used again.
    ///
    /// # Errors
    /// [`Fault`]; the outputs may be half done then.
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], scratch: &mut Scratch) -> Result<(), Fault>;

    /// Bytes of memory that it holds, where that is much.
    fn bytes(&self) -> usize {
        0
    }

    /// How many trees it has.
    fn n_trees(&self) -> usize {
        0
    }
}

/// Where a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Among the values of a run.
    Slot(usize),
    /// Among the model's constants.
    Constant(usize),
    /// Left out.
    Nowhere,
}

/// The inputs of a node in a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) slots: &'a [Value],
    pub(crate) constants: &'a [Value],
    pub(crate) places: &'a [Place],
}

impl<'a> Inputs<'a> {
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Input `index`, if the node has it.
    pub(crate) fn optional(&self, index: usize) -> Option<&'a Value> {
        match self.places.get(index)? {
            Place::Slot(slot) => self.slots.get(*slot),
            Place::Constant(constant) => self.constants.get(*constant),
            Place::Nowhere => None,
        }
    }

    /// Input `index`, which compilation found to be there.
    ///
    /// # Panics
    /// When it is not.
    pub(crate) fn get(&self, index: usize) -> &'a Value {
        self.optional(index).unwrap_or_else(|| panic!("input {index} was checked when the model loaded"))
    }
}

/// Memory that all nodes of an instance share.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) forest: forest::Scratch,
    pub(crate) scores: Vec<f64>,
    pub(crate) more_scores: Vec<f64>,
    pub(crate) singles: Vec<f32>,
    pub(crate) doubles: Vec<f64>,
    pub(crate) value: Value,
}

/// Why a node did not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// A value that the caller sent is wrong.
    #[error("{0}")]
    Input(String),
    /// Shapes that the file lets meet do not fit together.
    #[error("{0}")]
    Shape(String),
    /// A value would be larger than any may be.
    #[error("a value of {0} would have too many elements")]
    TooLarge(String),
}

impl Fault {
    pub(crate) fn shape(text: impl Into<String>) -> Self {
        Self::Shape(text.into())
    }

    /// The error for the request; `place` is the node.
    pub(crate) fn into_run_error(self, place: &str) -> RunError {
        match self {
            Self::Input(text) => RunError::InvalidInput(format!("{place}: {text}")),
            other => RunError::Failed(format!("{place}: {other}").into()),
        }
    }
}

/// How many elements `shape` has.
///
/// # Errors
/// [`Fault::TooLarge`].
pub(crate) fn elements(shape: &[usize]) -> Result<usize, Fault> {
    let count = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
    count.filter(|count| *count <= MAX_ELEMENTS).ok_or_else(|| Fault::TooLarge(format!("{shape:?}")))
}

/// The shape of two values combined element by element.
///
/// # Errors
/// [`Fault`] when they do not fit together.
pub(crate) fn broadcast_shape(left: &[usize], right: &[usize]) -> Result<Sizes, Fault> {
    let rank = left.len().max(right.len());
    let at = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis]);
    let mut shape: Sizes = SmallVec::with_capacity(rank);
    for axis in 0..rank {
        shape.push(match (at(left, axis), at(right, axis)) {
            (a, b) if a == b => a,
            (1, size) | (size, 1) => size,
            _ => return Err(Fault::shape(format!("{left:?} and {right:?} do not fit together"))),
        });
    }
    elements(&shape)?;
    Ok(shape)
}
