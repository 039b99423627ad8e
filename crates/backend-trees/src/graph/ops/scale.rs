//! Operators of `ai.onnx.ml` over each number or each row of numbers: scaling, filling gaps, comparing with a limit.

use millrace_core::LoadError;

use crate::graph::fact::Fact;
use crate::graph::kernel::{Compiled, Fault, Inputs, Kernel, Scratch};
use crate::graph::node::NodeView;
use crate::graph::value::{Data, Item, Kind, Value};

/// The facts that these operators share: numbers in, floats out, one column for each entry of a list in an attribute.
fn numbers_fact<'a>(node: &NodeView<'a>) -> Result<&'a Fact, LoadError> {
    node.expect(1..=1, 1)?;
    let fact = node.fact(0)?;
    if matches!(fact.kind, Kind::Text | Kind::Bool) {
        return Err(node.wrong_kind(fact.kind));
    }
    Ok(fact)
}

/// Whether a list of `length` gives one value for all columns, or one for each; the width may be known only later.
fn check_columns(node: &NodeView<'_>, what: &str, length: usize, fact: &Fact) -> Result<(), LoadError> {
    match last_size(fact) {
        _ if length == 0 => Err(node.invalid(format_args!("`{what}` is empty"))),
        _ if length == 1 => Ok(()),
        Some(width) => node.same_length(what, length, width),
        None => Ok(()),
    }
}

fn last_size(fact: &Fact) -> Option<usize> {
    fact.shape.as_ref().and_then(|shape| shape.last()).and_then(|size| size.fixed())
}

/// Whether a list with one entry for each column would be laid along the rows.
fn is_along_rows(fact: &Fact, length: usize) -> bool {
    length > 1 && fact.is_list_of_rows()
}

/// `(x - offset) * scale`.
#[derive(Debug)]
struct Scaler {
    offset: Vec<f32>,
    scale: Vec<f32>,
}

impl Scaler {
    fn scale<T: Item>(&self, input: &Value, output: &mut Value, f: impl Fn(T, f32, f32) -> f32) -> Result<(), Fault> {
        let items = f32::fresh(&mut output.data);
        let input = input.items::<T>();
        let (offset, scale) = (&self.offset, &self.scale);
        if offset.len() == 1 && scale.len() == 1 {
            items.extend(input.iter().map(|x| f(*x, offset[0], scale[0])));
            return Ok(());
        }
        let width = offset.len().max(scale.len());
        if !input.len().is_multiple_of(width) {
            return Err(Fault::shape(format!("rows of {width} numbers were expected")));
        }
        for row in input.chunks_exact(width) {
            match (offset.as_slice(), scale.as_slice()) {
                ([offset], scale) => items.extend(row.iter().zip(scale).map(|(x, scale)| f(*x, *offset, *scale))),
                (offset, [scale]) => items.extend(row.iter().zip(offset).map(|(x, offset)| f(*x, *offset, *scale))),
                _ => items.extend(row.iter().zip(offset).zip(scale).map(|((x, offset), scale)| f(*x, *offset, *scale))),
            }
        }
        Ok(())
    }
}

impl Kernel for Scaler {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "the result is a float, whatever comes in"
    )]
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        output.shape.clone_from(&input.shape);
        match input.data {
            Data::F64(_) => {
                self.scale(input, output, |x: f64, offset, scale| ((x - f64::from(offset)) * f64::from(scale)) as f32)
            }
            Data::I64(_) => self.scale(input, output, |x: i64, offset, scale| (x as f32 - offset) * scale),
            Data::I32(_) => self.scale(input, output, |x: i32, offset, scale| (x as f32 - offset) * scale),
            _ => self.scale(input, output, |x: f32, offset, scale| (x - offset) * scale),
        }
    }
}

pub(super) fn scaler(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    let fact = numbers_fact(node)?;
    let offset = node.floats("offset")?.ok_or_else(|| node.invalid("the attribute `offset` is missing"))?;
    let scale = node.floats("scale")?.ok_or_else(|| node.invalid("the attribute `scale` is missing"))?;
    check_columns(node, "offset", offset.len(), fact)?;
    check_columns(node, "scale", scale.len(), fact)?;
    if offset.len() != scale.len() && offset.len() != 1 && scale.len() != 1 {
        return Err(node.invalid("`offset` and `scale` differ in length"));
    }
    let is_mixed = is_along_rows(fact, offset.len().max(scale.len()));
    Ok(Compiled::new(Scaler { offset, scale }, [fact.of_kind(Kind::F32).mixed_if(is_mixed)]))
}

/// Divides each row by one of its norms; a row of norm 0 stays as it is.
#[derive(Debug, Clone, Copy)]
enum Normalizer {
    /// The greatest number, not the greatest magnitude.
    Max,
    L1,
    L2,
}

impl Kernel for Normalizer {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "the result is a float, whatever comes in"
    )]
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        output.shape.clone_from(&input.shape);
        let (_, width) = input.rows_and_width();
        let items = f32::fresh(&mut output.data);
        match &input.data {
            Data::F32(input) => items.extend_from_slice(input),
            Data::F64(input) => items.extend(input.iter().map(|x| *x as f32)),
            Data::I64(input) => items.extend(input.iter().map(|x| *x as f32)),
            Data::I32(input) => items.extend(input.iter().map(|x| *x as f32)),
            Data::Bool(_) | Data::Text(_) => return Err(Fault::shape("numbers were expected")),
        }
        for row in items.chunks_exact_mut(width.max(1)) {
            let norm = match self {
                Self::Max => row.iter().copied().fold(f32::MIN, f32::max),
                Self::L1 => row.iter().map(|x| x.abs()).sum(),
                Self::L2 => row.iter().map(|x| x * x).sum::<f32>().sqrt(),
            };
            if norm != 0.0 {
                row.iter_mut().for_each(|x| *x /= norm);
            }
        }
        Ok(())
    }
}

pub(super) fn normalizer(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    let fact = numbers_fact(node)?;
    let how = match node.word("norm", "MAX")? {
        "MAX" => Normalizer::Max,
        "L1" => Normalizer::L1,
        "L2" => Normalizer::L2,
        other => return Err(node.invalid(format_args!("the norm `{other}`; expected MAX, L1 or L2"))),
    };
    if fact.rank().is_none_or(|rank| rank == 0 || rank > 2) {
        return Err(node.unsupported("an input that is neither a list nor a matrix"));
    }
    Ok(Compiled::new(how, [fact.of_kind(Kind::F32).mixed_if(fact.is_list_of_rows())]))
}

/// 1 above the limit, else 0.
#[derive(Debug)]
struct Binarizer(f32);

impl Kernel for Binarizer {
    #[expect(clippy::cast_precision_loss, reason = "compared as floats are")]
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        output.shape.clone_from(&input.shape);
        let limit = self.0;
        let has_nan = match &input.data {
            Data::F32(items) => items.iter().any(|x| x.is_nan()),
            Data::F64(items) => items.iter().any(|x| x.is_nan()),
            _ => false,
        };
        if has_nan {
            return Err(Fault::Input("NaN is neither above a limit nor below it".to_owned()));
        }
        match &input.data {
            Data::F32(items) => {
                f32::fresh(&mut output.data).extend(items.iter().map(|x| f32::from(u8::from(*x > limit))))
            }
            Data::F64(items) => {
                f64::fresh(&mut output.data).extend(items.iter().map(|x| f64::from(u8::from(*x > f64::from(limit)))))
            }
            Data::I64(items) => i64::fresh(&mut output.data).extend(items.iter().map(|x| i64::from(*x as f32 > limit))),
            Data::I32(items) => i32::fresh(&mut output.data).extend(items.iter().map(|x| i32::from(*x as f32 > limit))),
            Data::Bool(_) | Data::Text(_) => return Err(Fault::shape("numbers were expected")),
        }
        Ok(())
    }
}

pub(super) fn binarizer(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    let fact = numbers_fact(node)?;
    let threshold = node.float("threshold")?.unwrap_or(0.0);
    Ok(Compiled::new(Binarizer(threshold), [fact.of_kind(fact.kind)]))
}

/// Puts a value of its own for each column in place of the one that means "not there".
#[derive(Debug)]
struct Imputer<T> {
    replaced: T,
    imputed: Vec<T>,
}

impl<T: Item + std::fmt::Debug> Kernel for Imputer<T> {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        output.shape.clone_from(&input.shape);
        let input = input.items::<T>();
        let items = T::fresh(&mut output.data);
        let width = self.imputed.len();
        if !input.len().is_multiple_of(width) {
            return Err(Fault::shape(format!("rows of {width} numbers were expected")));
        }
        // NaN, which is not even equal to itself, is what is replaced where the file says NaN.
        #[expect(clippy::eq_op, reason = "only NaN differs from itself, whatever the type")]
        let is_nan = |x: T| x != x;
        let replaced = self.replaced;
        let is_gap = |x: T| x == replaced || (is_nan(replaced) && is_nan(x));
        for row in input.chunks_exact(width) {
            items.extend(row.iter().zip(&self.imputed).map(|(x, imputed)| if is_gap(*x) { *imputed } else { *x }));
        }
        Ok(())
    }
}

pub(super) fn imputer(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    let fact = numbers_fact(node)?;
    let made = |length: usize| -> Result<Fact, LoadError> {
        check_columns(node, "imputed values", length, fact)?;
        Ok(fact.of_kind(fact.kind).mixed_if(is_along_rows(fact, length)))
    };
    let floats = || -> Result<(Vec<f32>, f32), LoadError> {
        let imputed = node
            .floats("imputed_value_floats")?
            .ok_or_else(|| node.invalid("the attribute `imputed_value_floats` is missing"))?;
        Ok((imputed, node.float("replaced_value_float")?.unwrap_or(0.0)))
    };
    let ints = || -> Result<(Vec<i64>, i64), LoadError> {
        let imputed = node
            .ints("imputed_value_int64s")?
            .ok_or_else(|| node.invalid("the attribute `imputed_value_int64s` is missing"))?;
        Ok((imputed, node.int("replaced_value_int64")?.unwrap_or(0)))
    };
    match fact.kind {
        Kind::F32 => {
            let (imputed, replaced) = floats()?;
            let fact = made(imputed.len())?;
            Ok(Compiled::new(Imputer { replaced, imputed }, [fact]))
        }
        Kind::F64 => {
            let (imputed, replaced) = floats()?;
            let fact = made(imputed.len())?;
            let imputed = imputed.into_iter().map(f64::from).collect();
            Ok(Compiled::new(Imputer { replaced: f64::from(replaced), imputed }, [fact]))
        }
        Kind::I64 => {
            let (imputed, replaced) = ints()?;
            let fact = made(imputed.len())?;
            Ok(Compiled::new(Imputer { replaced, imputed }, [fact]))
        }
        Kind::I32 | Kind::Bool | Kind::Text => Err(node.wrong_kind(fact.kind)),
    }
}
