//! One axis of a signature: a number, a symbol that a request fixes, or an expression over symbols.

use std::fmt;
use std::sync::Arc;

/// One axis as a signature declares it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Dim {
    /// Always this size.
    Fixed(usize),
    /// Any size, but the same wherever this name stands in one request.
    Symbol(Arc<str>),
    /// A size that follows from symbols, such as `(H+1)/2-5`. Outputs only.
    Expr(DimExpr),
    /// Known only once the model has run, such as the count of detections.
    Unknown,
}

impl Dim {
    /// A symbolic axis called `name`.
    pub fn symbol(name: impl AsRef<str>) -> Self {
        Self::Symbol(Arc::from(name.as_ref()))
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Symbol(name) => f.write_str(name),
            Self::Expr(expr) => write!(f, "{expr}"),
            Self::Unknown => f.write_str("?"),
        }
    }
}

/// Integer arithmetic over symbols.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DimExpr {
    /// A number, of either sign.
    Number(i64),
    /// A symbol's value.
    Symbol(Arc<str>),
    /// The sum of the terms.
    Sum(Vec<Self>),
    /// The product of the factors.
    Product(Vec<Self>),
    /// The quotient, rounded towards negative infinity.
    FloorDiv(Box<Self>, u64),
    /// The smallest of the terms.
    Min(Vec<Self>),
    /// The largest of the terms.
    Max(Vec<Self>),
}

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DimExprError {
    /// A symbol that the request did not fix.
    #[error("the symbol `{0}` has no value")]
    Unbound(Arc<str>),
    /// The value does not fit in 64 bits, or a division by zero.
    #[error("the value does not fit in 64 bits")]
    Overflow,
}

impl DimExpr {
    /// The value where `lookup` gives each symbol's size.
    ///
    /// # Errors
    /// [`DimExprError`] when a symbol is unbound or a step overflows.
    pub fn evaluate(&self, lookup: &dyn Fn(&str) -> Option<usize>) -> Result<i64, DimExprError> {
        let fold = |terms: &[Self], start: i64, step: fn(i64, i64) -> Option<i64>| {
            terms
                .iter()
                .try_fold(start, |total, term| step(total, term.evaluate(lookup)?).ok_or(DimExprError::Overflow))
        };
        match self {
            Self::Number(number) => Ok(*number),
            Self::Symbol(name) => {
                let size = lookup(name).ok_or_else(|| DimExprError::Unbound(Arc::clone(name)))?;
                i64::try_from(size).map_err(|_| DimExprError::Overflow)
            }
            Self::Sum(terms) => fold(terms, 0, i64::checked_add),
            Self::Product(factors) => fold(factors, 1, i64::checked_mul),
            Self::FloorDiv(dividend, divisor) => {
                let divisor = i64::try_from(*divisor).map_err(|_| DimExprError::Overflow)?;
                dividend.evaluate(lookup)?.checked_div_euclid(divisor).ok_or(DimExprError::Overflow)
            }
            Self::Min(terms) => fold(terms, i64::MAX, |a, b| Some(a.min(b))),
            Self::Max(terms) => fold(terms, i64::MIN, |a, b| Some(a.max(b))),
        }
    }

    /// Calls `visit` with each symbol, repeats included.
    pub fn for_each_symbol(&self, visit: &mut dyn FnMut(&Arc<str>)) {
        match self {
            Self::Number(_) => {}
            Self::Symbol(name) => visit(name),
            Self::FloorDiv(dividend, _) => dividend.for_each_symbol(visit),
            Self::Sum(terms) | Self::Product(terms) | Self::Min(terms) | Self::Max(terms) => {
                for term in terms {
                    term.for_each_symbol(visit);
                }
            }
        }
    }
}

impl fmt::Display for DimExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, terms: &[Self], between: &str| {
            for (index, term) in terms.iter().enumerate() {
                if index > 0 {
                    f.write_str(between)?;
                }
                write!(f, "{term}")?;
            }
            Ok(())
        };
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Symbol(name) => f.write_str(name),
            Self::Sum(terms) => {
                f.write_str("(")?;
                list(f, terms, "+")?;
                f.write_str(")")
            }
            Self::Product(factors) => list(f, factors, "*"),
            Self::FloorDiv(dividend, divisor) => write!(f, "{dividend}/{divisor}"),
            Self::Min(terms) => {
                f.write_str("min(")?;
                list(f, terms, ",")?;
                f.write_str(")")
            }
            Self::Max(terms) => {
                f.write_str("max(")?;
                list(f, terms, ",")?;
                f.write_str(")")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DimExpr, DimExprError};

    #[test]
    fn a_pooling_size_may_come_out_negative_but_never_wraps() {
        // (H+1)/2 - 5, the output height of a small detection network.
        let height = DimExpr::Symbol("H".into());
        let half = DimExpr::FloorDiv(Box::new(DimExpr::Sum(vec![height, DimExpr::Number(1)])), 2);
        let expr = DimExpr::Sum(vec![half, DimExpr::Number(-5)]);
        assert_eq!(expr.to_string(), "((H+1)/2+-5)");
        assert_eq!(expr.evaluate(&|_| Some(20)), Ok(5));
        assert_eq!(expr.evaluate(&|_| Some(8)), Ok(-1));
        assert_eq!(expr.evaluate(&|_| None), Err(DimExprError::Unbound("H".into())));
        assert_eq!(expr.evaluate(&|_| Some(usize::MAX)), Err(DimExprError::Overflow));
    }
}
