//! Operators over single elements.

use std::fmt;
use std::marker::PhantomData;

use millrace_core::LoadError;

use crate::graph::kernel::{Compiled, Fault, Inputs, Kernel, Scratch};
use crate::graph::node::NodeView;
use crate::graph::value::{Data, Item, Kind, Value};

/// A function of one number.
trait Function: fmt::Debug + Send + Sync + 'static {
    /// Whether whole numbers have it too.
    const HAS_INTS: bool = false;

    fn doubles(x: f64) -> f64;
    fn singles(x: f32) -> f32;
    fn ints(x: i64) -> i64 {
        x
    }
}

macro_rules! functions {
    ($($name:ident, $function:ident: |$x:ident| $real:expr $(, $int:expr)?;)*) => {$(
        #[derive(Debug)]
        struct $name;

        impl Function for $name {
            $(
                const HAS_INTS: bool = true;

                fn ints($x: i64) -> i64 {
                    $int
                }
            )?

            fn doubles($x: f64) -> f64 {
                $real
            }

            fn singles($x: f32) -> f32 {
                $real
            }
        }

        pub(super) fn $function(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
            compile::<$name>(node)
        }
    )*};
}

functions! {
    Abs, abs: |x| x.abs(), x.wrapping_abs();
    Neg, neg: |x| -x, x.wrapping_neg();
    Sign, sign: |x| if x == 0.0 || x.is_nan() { x } else { x.signum() }, x.signum();
    Exp, exp: |x| x.exp();
    Log, log: |x| x.ln();
    Sqrt, sqrt: |x| x.sqrt();
    Tanh, tanh: |x| x.tanh();
    Reciprocal, reciprocal: |x| x.recip();
    Floor, floor: |x| x.floor();
    Ceil, ceil: |x| x.ceil();
    Round, round: |x| x.round_ties_even();
    Relu, relu: |x| if x < 0.0 { 0.0 } else { x }, x.max(0);
    // By way of a negative power, so that nothing overflows.
    Sigmoid, sigmoid: |x| if x < 0.0 { let e = x.exp(); e / (1.0 + e) } else { 1.0 / (1.0 + (-x).exp()) };
}

#[derive(Debug)]
struct Apply<F>(PhantomData<F>);

impl<F: Function> Kernel for Apply<F> {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        output.shape.clone_from(&input.shape);
        match &input.data {
            Data::F32(items) => f32::fresh(&mut output.data).extend(items.iter().map(|x| F::singles(*x))),
            Data::F64(items) => f64::fresh(&mut output.data).extend(items.iter().map(|x| F::doubles(*x))),
            Data::I64(items) => i64::fresh(&mut output.data).extend(items.iter().map(|x| F::ints(*x))),
            #[expect(clippy::cast_possible_truncation, reason = "the function of a 32-bit number, wrapped")]
            Data::I32(items) => {
                i32::fresh(&mut output.data).extend(items.iter().map(|x| F::ints(i64::from(*x)) as i32))
            }
            Data::Bool(_) | Data::Text(_) => return Err(Fault::shape("numbers were expected")),
        }
        Ok(())
    }
}

fn compile<F: Function>(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=1, 1)?;
    let fact = node.fact(0)?;
    let is_allowed = match fact.kind {
        Kind::F32 | Kind::F64 => true,
        Kind::I64 | Kind::I32 => F::HAS_INTS,
        Kind::Bool | Kind::Text => false,
    };
    if !is_allowed {
        return Err(node.wrong_kind(fact.kind));
    }
    Ok(Compiled::new(Apply::<F>(PhantomData), [fact.of_kind(fact.kind)]))
}

#[derive(Debug)]
struct Not;

impl Kernel for Not {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        output.shape.clone_from(&input.shape);
        bool::fresh(&mut output.data).extend(input.items::<bool>().iter().map(|item| !item));
        Ok(())
    }
}

pub(super) fn not(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=1, 1)?;
    let fact = node.fact(0)?;
    if fact.kind != Kind::Bool {
        return Err(node.wrong_kind(fact.kind));
    }
    Ok(Compiled::new(Not, [fact.of_kind(Kind::Bool)]))
}

#[derive(Debug)]
struct IsNan;

impl Kernel for IsNan {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        output.shape.clone_from(&input.shape);
        let items = bool::fresh(&mut output.data);
        match &input.data {
            Data::F32(input) => items.extend(input.iter().map(|item| item.is_nan())),
            Data::F64(input) => items.extend(input.iter().map(|item| item.is_nan())),
            _ => return Err(Fault::shape("floats were expected")),
        }
        Ok(())
    }
}

pub(super) fn is_nan(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=1, 1)?;
    let fact = node.fact(0)?;
    if !matches!(fact.kind, Kind::F32 | Kind::F64) {
        return Err(node.wrong_kind(fact.kind));
    }
    Ok(Compiled::new(IsNan, [fact.of_kind(Kind::Bool)]))
}

/// Cuts numbers to a range. Limits that are left out do not cut.
#[derive(Debug)]
struct Clip {
    /// Limits from attributes, where the operator set has them there.
    least: Option<f32>,
    most: Option<f32>,
    has_inputs: bool,
}

impl Clip {
    fn clip<T: Item + PartialOrd>(
        &self,
        inputs: &Inputs<'_>,
        output: &mut Value,
        from: impl Fn(f32) -> T,
    ) -> Result<(), Fault> {
        let limit = |index: usize, attribute: Option<f32>| match inputs.optional(index).filter(|_| self.has_inputs) {
            Some(value) => {
                value.items::<T>().first().copied().map(Some).ok_or_else(|| Fault::shape("a limit without a number"))
            }
            None => Ok(attribute.map(&from)),
        };
        let (least, most) = (limit(1, self.least)?, limit(2, self.most)?);
        let input = inputs.get(0);
        output.shape.clone_from(&input.shape);
        T::fresh(&mut output.data).extend(input.items::<T>().iter().map(|item| {
            let item = least.filter(|least| item < least).unwrap_or(*item);
            most.filter(|most| item > *most).unwrap_or(item)
        }));
        Ok(())
    }
}

impl Kernel for Clip {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let output = &mut outputs[0];
        #[expect(clippy::cast_possible_truncation, reason = "limits of whole numbers come from inputs, not from here")]
        match inputs.get(0).data {
            Data::F32(_) => self.clip::<f32>(inputs, output, |limit| limit),
            Data::F64(_) => self.clip::<f64>(inputs, output, f64::from),
            Data::I64(_) => self.clip::<i64>(inputs, output, |limit| limit as i64),
            Data::I32(_) => self.clip::<i32>(inputs, output, |limit| limit as i32),
            Data::Bool(_) | Data::Text(_) => Err(Fault::shape("numbers were expected")),
        }
    }
}

pub(super) fn clip(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=3, 1)?;
    let fact = node.fact(0)?;
    if matches!(fact.kind, Kind::Bool | Kind::Text) {
        return Err(node.wrong_kind(fact.kind));
    }
    let has_inputs = node.opset >= 11;
    for index in 1..3 {
        if let Some(input) = node.optional(index)
            && input.fact.kind != fact.kind
        {
            return Err(node.invalid(format_args!("its limits are {}", input.fact.kind.name())));
        }
    }
    let depends = (1..3).filter_map(|index| node.optional(index)).any(|input| input.constant.is_none());
    let clip = Clip { least: node.float("min")?, most: node.float("max")?, has_inputs };
    Ok(Compiled::new(clip, [fact.of_kind(fact.kind).mixed_if(depends)]))
}
