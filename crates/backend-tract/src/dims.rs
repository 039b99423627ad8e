//! Sizes that follow from a request: the engine's symbolic dimensions in our terms, and the check of every tensor
//! inside a model before it runs.
//!
//! The engine trusts its own arithmetic: an image so small that a convolution's output would be negative makes it read
//! outside its memory. So each distinct shape of the graph is kept here and evaluated under the request's sizes.

use std::collections::HashMap;
use std::sync::Arc;

use millrace_core::{Admission, Dim, DimExpr, Group, InputError, Signature};
use smallvec::SmallVec;
use tract_onnx::prelude::{TDim, TypedModel};

/// The dimension as a signature shows it.
pub(crate) fn to_dim(dim: &TDim) -> Dim {
    match dim {
        TDim::Val(size) => usize::try_from(*size).map_or(Dim::Unknown, Dim::Fixed),
        TDim::Sym(symbol) => Dim::symbol(symbol.to_string()),
        _ => to_expr(dim).map_or(Dim::Unknown, Dim::Expr),
    }
}

fn to_expr(dim: &TDim) -> Option<DimExpr> {
    let list = |terms: &[TDim]| terms.iter().map(to_expr).collect::<Option<Vec<_>>>();
    Some(match dim {
        TDim::Val(number) => DimExpr::Number(*number),
        TDim::Sym(symbol) => DimExpr::Symbol(Arc::from(symbol.to_string())),
        TDim::Add(terms) => DimExpr::Sum(list(terms)?),
        TDim::Mul(factors) => DimExpr::Product(list(factors)?),
        TDim::MulInt(factor, rest) => DimExpr::Product(vec![DimExpr::Number(*factor), to_expr(rest)?]),
        TDim::Div(dividend, divisor) => DimExpr::FloorDiv(Box::new(to_expr(dividend)?), *divisor),
        TDim::Min(terms) => DimExpr::Min(list(terms)?),
        TDim::Max(terms) => DimExpr::Max(list(terms)?),
        TDim::Broadcast(_) | TDim::Ge(..) | TDim::Eq(..) => return None,
    })
}

/// A dimension over numbered symbols: 0 is the rows, `1 + i` the group's value `i`. Cheap to evaluate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Size {
    Number(i64),
    Symbol(usize),
    Sum(Vec<Self>),
    Product(Vec<Self>),
    Div(Box<Self>, i64),
    Min(Vec<Self>),
    /// Also broadcasting, whose terms are 1 or all the same.
    Max(Vec<Self>),
}

impl Size {
    /// `None` for what only the run decides.
    fn new(dim: &TDim, number: &dyn Fn(&str) -> Option<usize>) -> Option<Self> {
        let list = |terms: &[TDim]| terms.iter().map(|term| Self::new(term, number)).collect::<Option<Vec<_>>>();
        Some(match dim {
            TDim::Val(value) => Self::Number(*value),
            TDim::Sym(symbol) => Self::Symbol(number(&symbol.to_string())?),
            TDim::Add(terms) => Self::Sum(list(terms)?),
            TDim::Mul(factors) => Self::Product(list(factors)?),
            TDim::MulInt(factor, rest) => Self::Product(vec![Self::Number(*factor), Self::new(rest, number)?]),
            TDim::Div(dividend, divisor) => {
                Self::Div(Box::new(Self::new(dividend, number)?), i64::try_from(*divisor).ok().filter(|by| *by > 0)?)
            }
            TDim::Min(terms) => Self::Min(list(terms)?),
            TDim::Max(terms) | TDim::Broadcast(terms) => Self::Max(list(terms)?),
            TDim::Ge(..) | TDim::Eq(..) => return None,
        })
    }

    fn evaluate(&self, values: &[i64]) -> Result<i64, Misfit> {
        let fold = |terms: &[Self], start: i64, step: fn(i64, i64) -> Option<i64>| {
            terms.iter().try_fold(start, |total, term| step(total, term.evaluate(values)?).ok_or(Misfit::TooLarge))
        };
        match self {
            Self::Number(number) => Ok(*number),
            Self::Symbol(index) => values.get(*index).copied().ok_or(Misfit::TooLarge),
            Self::Sum(terms) => fold(terms, 0, i64::checked_add),
            Self::Product(factors) => fold(factors, 1, i64::checked_mul),
            Self::Div(dividend, divisor) => {
                let dividend = dividend.evaluate(values)?;
                // The engine rounds towards zero, mathematics down. Where they differ a window is larger than what it
                // slides over, and the engine would count a place that is not there.
                if dividend < 0 && dividend % divisor != 0 {
                    return Err(Misfit::Negative(dividend.div_euclid(*divisor)));
                }
                Ok(dividend / divisor)
            }
            Self::Min(terms) => fold(terms, i64::MAX, |a, b| Some(a.min(b))),
            Self::Max(terms) => fold(terms, i64::MIN, |a, b| Some(a.max(b))),
        }
    }

    /// Whether it can never be negative, whatever sizes a request has.
    fn is_plain(&self) -> bool {
        match self {
            Self::Number(number) => *number >= 0,
            Self::Symbol(_) => true,
            Self::Sum(terms) | Self::Product(terms) | Self::Min(terms) | Self::Max(terms) => {
                terms.iter().all(Self::is_plain)
            }
            Self::Div(dividend, _) => dividend.is_plain(),
        }
    }

    fn depends_on_group(&self) -> bool {
        match self {
            Self::Number(_) => false,
            Self::Symbol(index) => *index > 0,
            Self::Sum(terms) | Self::Product(terms) | Self::Min(terms) | Self::Max(terms) => {
                terms.iter().any(Self::depends_on_group)
            }
            Self::Div(dividend, _) => dividend.depends_on_group(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Misfit {
    Negative(i64),
    TooLarge,
}

#[derive(Debug, Clone)]
struct NodeShape {
    node: Arc<str>,
    dims: Vec<Size>,
    element_bytes: u64,
}

impl NodeShape {
    /// Bytes of the tensor, or which axis does not fit.
    fn bytes(&self, values: &[i64]) -> Result<u64, (usize, Misfit)> {
        let mut bytes = self.element_bytes;
        let mut overflow = None;
        for (axis, dim) in self.dims.iter().enumerate() {
            let size = dim.evaluate(values).map_err(|misfit| (axis, misfit))?;
            let size = u64::try_from(size).map_err(|_| (axis, Misfit::Negative(size)))?;
            match bytes.checked_mul(size) {
                Some(product) => bytes = product,
                None => overflow = overflow.or(Some((axis, Misfit::TooLarge))),
            }
        }
        // Only now: a later axis of 0 or less says more about the request than an earlier product does.
        overflow.map_or(Ok(bytes), Err)
    }
}

/// Every distinct shape inside a model that a request's sizes decide.
#[derive(Debug)]
pub(crate) struct Sizes {
    shapes: Vec<NodeShape>,
    max_tensor_bytes: u64,
}

impl Sizes {
    /// Collects the shapes of `model`'s nodes.
    pub(crate) fn new(model: &TypedModel, signature: &Signature, max_tensor_bytes: u64) -> Self {
        let number = |name: &str| {
            if signature.batch_symbol().is_some_and(|batch| &**batch == name) {
                return Some(0);
            }
            signature.symbols().iter().position(|symbol| &**symbol == name).map(|index| index + 1)
        };
        let mut distinct: HashMap<Vec<Size>, NodeShape> = HashMap::new();
        let mut largest: Option<(u64, NodeShape)> = None;
        for node in model.nodes() {
            for fact in node.outputs.iter().map(|outlet| &outlet.fact) {
                let dims: Option<Vec<Size>> = fact.shape.iter().map(|dim| Size::new(dim, &number)).collect();
                let Some(dims) = dims.filter(|_| fact.konst.is_none()) else { continue };
                let element_bytes = u64::try_from(fact.datum_type.size_of()).unwrap_or(1);
                let shape = NodeShape { node: Arc::from(node.name.as_str()), dims, element_bytes };
                if shape.dims.iter().all(Size::is_plain) && !shape.dims.iter().any(Size::depends_on_group) {
                    // These all grow with the rows alone, so the largest stands for them.
                    let bytes = shape.bytes(&[1]).unwrap_or(u64::MAX);
                    if largest.as_ref().is_none_or(|(most, _)| bytes > *most) {
                        largest = Some((bytes, shape));
                    }
                    continue;
                }
                let known = distinct.entry(shape.dims.clone()).or_insert_with(|| shape.clone());
                if known.element_bytes < element_bytes {
                    *known = shape;
                }
            }
        }
        let mut shapes: Vec<NodeShape> = distinct.into_values().collect();
        shapes.sort_by(|a, b| a.node.cmp(&b.node));
        shapes.extend(largest.map(|(_, shape)| shape));
        Self { shapes, max_tensor_bytes }
    }

    /// Bytes that one row of `group` adds to the largest tensor; at least 1.
    pub(crate) fn row_bytes(&self, group: &Group) -> u64 {
        let mut values: SmallVec<[i64; 8]> = SmallVec::from_elem(1, 1);
        values.extend(group.0.iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)));
        self.shapes.iter().filter_map(|shape| shape.bytes(&values).ok()).max().unwrap_or(1).max(1)
    }

    /// Checks every shape under the request's sizes.
    ///
    /// # Errors
    /// [`InputError::OutputSize`] naming the first node with a negative or too large output.
    pub(crate) fn check(&self, admission: &Admission) -> Result<(), InputError> {
        let mut values: SmallVec<[i64; 8]> = SmallVec::new();
        values.push(i64::try_from(admission.rows).unwrap_or(i64::MAX));
        values.extend(admission.group.0.iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)));
        for shape in &self.shapes {
            let detail = match shape.bytes(&values) {
                Ok(bytes) if bytes <= self.max_tensor_bytes => continue,
                Ok(bytes) => format!("it would hold {bytes} bytes; the limit is {}", self.max_tensor_bytes),
                Err((axis, Misfit::Negative(size))) => format!("its axis {axis} would be {size}"),
                Err((axis, Misfit::TooLarge)) => format!("the size of its axis {axis} does not fit in 64 bits"),
            };
            return Err(InputError::OutputSize { output: Arc::clone(&shape.node), detail });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Misfit, Size};

    #[test]
    fn a_window_larger_than_its_image_is_negative_although_the_engine_rounds_to_zero() {
        // (H - 3) / 2 + 1: the engine makes 1 of H = 2, where no window fits.
        let numerator = Size::Sum(vec![Size::Symbol(1), Size::Number(-3)]);
        let size = Size::Sum(vec![Size::Div(Box::new(numerator), 2), Size::Number(1)]);
        assert_eq!(size.evaluate(&[1, 3]), Ok(1));
        assert_eq!(size.evaluate(&[1, 2]), Err(Misfit::Negative(-1)));
        assert_eq!(size.evaluate(&[1, 1]), Ok(0));
        assert_eq!(Size::Product(vec![Size::Symbol(1); 2]).evaluate(&[1, i64::MAX]), Err(Misfit::TooLarge));
    }
}
