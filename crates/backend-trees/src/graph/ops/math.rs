//! Operators over pairs of elements: arithmetic, comparison and logic, with repetition along axes of size 1.

use std::fmt;
use std::marker::PhantomData;

use millrace_core::LoadError;

use crate::graph::fact::{Fact, broadcast};
use crate::graph::kernel::{Compiled, Fault, Inputs, Kernel, Scratch, broadcast_shape};
use crate::graph::node::NodeView;
use crate::graph::value::{Data, Item, Kind, Positions, Value};

/// Combines two elements of a number type into one.
trait Arithmetic: fmt::Debug + Send + Sync + 'static {
    fn floats(a: f64, b: f64) -> f64;
    fn singles(a: f32, b: f32) -> f32;
    fn ints(a: i64, b: i64) -> i64;
}

macro_rules! arithmetic {
    ($($name:ident, $function:ident: |$a:ident, $b:ident| $real:expr, $int:expr;)*) => {$(
        #[derive(Debug)]
        struct $name;

        impl Arithmetic for $name {
            fn floats($a: f64, $b: f64) -> f64 {
                $real
            }

            fn singles($a: f32, $b: f32) -> f32 {
                $real
            }

            fn ints($a: i64, $b: i64) -> i64 {
                $int
            }
        }

        pub(super) fn $function(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
            pair::<$name>(node)
        }
    )*};
}

arithmetic! {
    Add, add: |a, b| a + b, a.wrapping_add(b);
    Sub, sub: |a, b| a - b, a.wrapping_sub(b);
    Mul, mul: |a, b| a * b, a.wrapping_mul(b);
    // Whole numbers divided by zero give zero rather than an end of the process.
    Div, div: |a, b| a / b, a.checked_div(b).unwrap_or(0);
    Pow, pow: |a, b| a.powf(b), if b < 0 { 0 } else { a.wrapping_pow(u32::try_from(b).unwrap_or(u32::MAX)) };
}

/// The greater and the lesser, where NaN wins as the operators' specification has it.
#[derive(Debug)]
struct Max;

#[derive(Debug)]
struct Min;

macro_rules! extreme {
    ($name:ident, $compare:tt, $ints:ident) => {
        impl Arithmetic for $name {
            fn floats(a: f64, b: f64) -> f64 {
                if a.is_nan() || a $compare b { a } else { b }
            }

            fn singles(a: f32, b: f32) -> f32 {
                if a.is_nan() || a $compare b { a } else { b }
            }

            fn ints(a: i64, b: i64) -> i64 {
                a.$ints(b)
            }
        }
    };
}

extreme!(Max, >, max);
extreme!(Min, <, min);

pub(super) fn sum(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    many::<Add>(node, false)
}

pub(super) fn mean(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    many::<Add>(node, true)
}

pub(super) fn max(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    many::<Max>(node, false)
}

pub(super) fn min(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    many::<Min>(node, false)
}

/// Combines two values element by element into `output`.
pub(super) fn combine<A: Item, R: Item>(
    left: &Value,
    right: &Value,
    output: &mut Value,
    f: impl Fn(A, A) -> R,
) -> Result<(), Fault> {
    let (a, b) = (left.items::<A>(), right.items::<A>());
    if left.shape == right.shape {
        output.shape.clone_from(&left.shape);
        R::fresh(&mut output.data).extend(a.iter().zip(b).map(|(a, b)| f(*a, *b)));
        return Ok(());
    }
    output.shape = broadcast_shape(&left.shape, &right.shape)?;
    let whole = output.shape.clone();
    let count: usize = whole.iter().product();
    let items = R::fresh(&mut output.data);
    // A value that the other repeats whole, once for each row, say.
    let repeats = |small: &Value| whole.ends_with(&small.shape) || small.data.len() == 1;
    if b.len() == 1 && a.len() == count {
        items.extend(a.iter().map(|a| f(*a, b[0])));
    } else if a.len() == 1 && b.len() == count {
        items.extend(b.iter().map(|b| f(a[0], *b)));
    } else if repeats(right) && whole == left.shape && !b.is_empty() {
        a.chunks_exact(b.len()).for_each(|a| items.extend(a.iter().zip(b).map(|(a, b)| f(*a, *b))));
    } else {
        let positions = Positions::new(&left.shape, &whole).zip(Positions::new(&right.shape, &whole));
        items.extend(positions.map(|(at, bt)| f(a[at], b[bt])));
    }
    Ok(())
}

fn arithmetic<O: Arithmetic>(left: &Value, right: &Value, output: &mut Value) -> Result<(), Fault> {
    match left.data {
        Data::F32(_) => combine(left, right, output, O::singles),
        Data::F64(_) => combine(left, right, output, O::floats),
        Data::I64(_) => combine(left, right, output, O::ints),
        #[expect(clippy::cast_possible_truncation, reason = "32-bit arithmetic wraps, as the operators do")]
        Data::I32(_) => combine(left, right, output, |a: i32, b: i32| O::ints(i64::from(a), i64::from(b)) as i32),
        Data::Bool(_) | Data::Text(_) => Err(Fault::shape("numbers were expected")),
    }
}

#[derive(Debug)]
struct Pair<O>(PhantomData<O>);

impl<O: Arithmetic> Kernel for Pair<O> {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        arithmetic::<O>(inputs.get(0), inputs.get(1), &mut outputs[0])
    }
}

/// The kinds and shapes of two inputs, which must have one kind.
fn pair_fact(node: &NodeView<'_>, allowed: &[Kind]) -> Result<Fact, LoadError> {
    node.expect(2..=2, 1)?;
    if node.has("broadcast") {
        return Err(node.unsupported("repetition as operator sets before 7 had it"));
    }
    let (left, right) = (node.fact(0)?, node.fact(1)?);
    same_kind(node, left, right, allowed)?;
    let (shape, is_mixed) = broadcast(left, right);
    Ok(Fact::new(left.kind, shape).mixed_if(is_mixed))
}

fn same_kind(node: &NodeView<'_>, left: &Fact, right: &Fact, allowed: &[Kind]) -> Result<(), LoadError> {
    if left.kind != right.kind {
        return Err(node.invalid(format_args!("its inputs are {} and {}", left.kind.name(), right.kind.name())));
    }
    if allowed.contains(&left.kind) { Ok(()) } else { Err(node.wrong_kind(left.kind)) }
}

const NUMBERS: &[Kind] = &[Kind::F32, Kind::F64, Kind::I64, Kind::I32];
const ALL: &[Kind] = &[Kind::F32, Kind::F64, Kind::I64, Kind::I32, Kind::Bool, Kind::Text];

fn pair<O: Arithmetic>(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    let fact = pair_fact(node, NUMBERS)?;
    Ok(Compiled::new(Pair::<O>(PhantomData), [fact]))
}

/// Any number of values combined one after another.
#[derive(Debug)]
struct Many<O> {
    is_mean: bool,
    operator: PhantomData<O>,
}

impl<O: Arithmetic> Kernel for Many<O> {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], scratch: &mut Scratch) -> Result<(), Fault> {
        let output = &mut outputs[0];
        let first = inputs.get(0);
        output.shape.clone_from(&first.shape);
        output.data.copy_from(&first.data);
        for index in 1..inputs.len() {
            std::mem::swap(output, &mut scratch.value);
            arithmetic::<O>(&scratch.value, inputs.get(index), output)?;
        }
        #[expect(clippy::cast_precision_loss, reason = "a node has few inputs")]
        let count = inputs.len() as f64;
        match &mut output.data {
            #[expect(clippy::cast_possible_truncation, reason = "a small count fits")]
            Data::F32(items) if self.is_mean => items.iter_mut().for_each(|item| *item /= count as f32),
            Data::F64(items) if self.is_mean => items.iter_mut().for_each(|item| *item /= count),
            _ => {}
        }
        Ok(())
    }
}

fn many<O: Arithmetic>(node: &NodeView<'_>, is_mean: bool) -> Result<Compiled, LoadError> {
    node.expect(1..=usize::MAX, 1)?;
    let mut fact = node.fact(0)?.clone();
    fact.contents = None;
    let allowed: &[Kind] = if is_mean { &[Kind::F32, Kind::F64] } else { NUMBERS };
    for index in 0..node.inputs.len() {
        let next = node.fact(index)?;
        same_kind(node, &fact, next, allowed)?;
        let (shape, is_mixed) = broadcast(&fact, next);
        fact = Fact::new(fact.kind, shape).mixed_if(is_mixed || fact.is_mixed);
    }
    Ok(Compiled::new(Many::<O> { is_mean, operator: PhantomData }, [fact]))
}

#[derive(Debug, Clone, Copy)]
enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Kernel for Comparison {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        fn by<T: Item + PartialOrd>(how: Comparison, a: &Value, b: &Value, output: &mut Value) -> Result<(), Fault> {
            match how {
                Comparison::Equal => combine(a, b, output, |a: T, b: T| a == b),
                Comparison::Less => combine(a, b, output, |a: T, b: T| a < b),
                Comparison::LessOrEqual => combine(a, b, output, |a: T, b: T| a <= b),
                Comparison::Greater => combine(a, b, output, |a: T, b: T| a > b),
                Comparison::GreaterOrEqual => combine(a, b, output, |a: T, b: T| a >= b),
            }
        }
        let (left, right, output) = (inputs.get(0), inputs.get(1), &mut outputs[0]);
        match (&left.data, &right.data) {
            (Data::F32(_), _) => by::<f32>(*self, left, right, output),
            (Data::F64(_), _) => by::<f64>(*self, left, right, output),
            (Data::I64(_), _) => by::<i64>(*self, left, right, output),
            (Data::I32(_), _) => by::<i32>(*self, left, right, output),
            (Data::Bool(_), _) => by::<bool>(*self, left, right, output),
            (Data::Text(a), Data::Text(b)) => {
                output.shape = broadcast_shape(&left.shape, &right.shape)?;
                let positions =
                    Positions::new(&left.shape, &output.shape).zip(Positions::new(&right.shape, &output.shape));
                bool::fresh(&mut output.data).extend(positions.map(|(at, bt)| a.get(at) == b.get(bt)));
                Ok(())
            }
            (Data::Text(_), _) => Err(Fault::shape("texts compared with something else")),
        }
    }
}

macro_rules! comparisons {
    ($($function:ident => $how:ident, $allowed:expr;)*) => {$(
        pub(super) fn $function(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
            let fact = pair_fact(node, $allowed)?;
            Ok(Compiled::new(Comparison::$how, [fact.of_kind(Kind::Bool)]))
        }
    )*};
}

comparisons! {
    equal => Equal, ALL;
    less => Less, NUMBERS;
    less_or_equal => LessOrEqual, NUMBERS;
    greater => Greater, NUMBERS;
    greater_or_equal => GreaterOrEqual, NUMBERS;
}

#[derive(Debug, Clone, Copy)]
enum Logic {
    And,
    Or,
    Xor,
}

impl Kernel for Logic {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (left, right, output) = (inputs.get(0), inputs.get(1), &mut outputs[0]);
        match self {
            Self::And => combine(left, right, output, |a: bool, b: bool| a & b),
            Self::Or => combine(left, right, output, |a: bool, b: bool| a | b),
            Self::Xor => combine(left, right, output, |a: bool, b: bool| a ^ b),
        }
    }
}

pub(super) fn and(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    Ok(Compiled::new(Logic::And, [pair_fact(node, &[Kind::Bool])?]))
}

pub(super) fn or(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    Ok(Compiled::new(Logic::Or, [pair_fact(node, &[Kind::Bool])?]))
}

pub(super) fn xor(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    Ok(Compiled::new(Logic::Xor, [pair_fact(node, &[Kind::Bool])?]))
}
