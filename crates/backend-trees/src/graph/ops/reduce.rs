//! Operators that make one number of many along some axes, and softmax.

use millrace_core::LoadError;

use crate::graph::fact::{Fact, Size};
use crate::graph::kernel::{Compiled, Fault, Inputs, Kernel, Scratch};
use crate::graph::node::NodeView;
use crate::graph::value::{Data, Item, Kind, Positions, Sizes, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    L1,
    L2,
    SumSquare,
    LogSumExp,
}

#[derive(Debug)]
struct Reduce {
    how: How,
    axes: Vec<usize>,
    keeps_axes: bool,
}

/// A number type that can be reduced: through doubles, or through whole numbers of 64 bits.
trait Reducible: Item {
    fn reduce(how: How, items: impl Iterator<Item = Self> + Clone) -> Self;
}

macro_rules! reducible {
    ($type:ty, $wide:ty) => {
        impl Reducible for $type {
            fn reduce(how: How, items: impl Iterator<Item = Self> + Clone) -> Self {
                let wide = items.clone().map(|item| item as $wide);
                let greatest = |a: f64, b: f64| if a.is_nan() || a > b { a } else { b };
                let least = |a: f64, b: f64| if a.is_nan() || a < b { a } else { b };
                let doubles = items.clone().map(|item| item as f64);
                match how {
                    How::Sum => wide.fold(0 as $wide, |sum, item| sum + item) as Self,
                    How::Prod => wide.fold(1 as $wide, |product, item| product * item) as Self,
                    How::Mean => (doubles.clone().sum::<f64>() / doubles.count() as f64) as Self,
                    How::Max => doubles.reduce(greatest).unwrap_or(f64::NEG_INFINITY) as Self,
                    How::Min => doubles.reduce(least).unwrap_or(f64::INFINITY) as Self,
                    How::L1 => doubles.map(f64::abs).sum::<f64>() as Self,
                    How::L2 => doubles.map(|item| item * item).sum::<f64>().sqrt() as Self,
                    How::SumSquare => doubles.map(|item| item * item).sum::<f64>() as Self,
                    How::LogSumExp => {
                        let most = doubles.clone().fold(f64::NEG_INFINITY, greatest);
                        let most = if most.is_finite() { most } else { 0.0 };
                        (doubles.map(|item| (item - most).exp()).sum::<f64>().ln() + most) as Self
                    }
                }
            }
        }
    };
}

#[expect(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    reason = "sums are kept wider than elements, and become elements again"
)]
mod reducible {
    use super::{How, Reducible};

    reducible!(f32, f64);
    reducible!(f64, f64);
    reducible!(i64, i128);
    reducible!(i32, i64);
}

impl Reduce {
    fn reduce<T: Reducible>(&self, input: &Value, output: &mut Value) {
        let shape = &input.shape;
        let mut strides = Sizes::from_elem(1, shape.len());
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis];
        }
        let part = |is_reduced: bool, sizes: &[usize]| -> Sizes {
            let axes = (0..shape.len()).filter(|axis| self.axes.contains(axis) == is_reduced);
            axes.map(|axis| sizes[axis]).collect()
        };
        let kept = Positions::with_strides(&part(false, shape), part(false, &strides));
        let inside = Positions::with_strides(&part(true, shape), part(true, &strides));
        let items = input.items::<T>();
        let is_whole_rows = inside.is_contiguous();
        let length: usize = part(true, shape).iter().product();
        T::fresh(&mut output.data).extend(kept.map(|start| {
            if is_whole_rows {
                T::reduce(self.how, items[start..start + length].iter().copied())
            } else {
                T::reduce(self.how, inside.clone().map(|place| items[start + place]))
            }
        }));
        let axes = shape.iter().enumerate().filter(|(axis, _)| self.keeps_axes || !self.axes.contains(axis));
        output.shape = axes.map(|(axis, size)| if self.axes.contains(&axis) { 1 } else { *size }).collect();
    }
}

impl Kernel for Reduce {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        match input.data {
            Data::F32(_) => self.reduce::<f32>(input, output),
            Data::F64(_) => self.reduce::<f64>(input, output),
            Data::I64(_) => self.reduce::<i64>(input, output),
            Data::I32(_) => self.reduce::<i32>(input, output),
            Data::Bool(_) | Data::Text(_) => return Err(Fault::shape("numbers were expected")),
        }
        Ok(())
    }
}

fn reduce(node: &NodeView<'_>, how: How) -> Result<Compiled, LoadError> {
    node.expect(1..=2, 1)?;
    let fact = node.fact(0)?;
    if matches!(fact.kind, Kind::Bool | Kind::Text) {
        return Err(node.wrong_kind(fact.kind));
    }
    let shape = node.shape(fact)?;
    let since = if how == How::Sum { 13 } else { 18 };
    let given = node.axes(1, since)?.filter(|axes| !axes.is_empty());
    let keeps_axes = node.int("keepdims")?.unwrap_or(1) != 0;
    let axes: Vec<usize> = match given {
        Some(axes) => axes.iter().map(|axis| node.axis(*axis, shape.len())).collect::<Result<_, _>>()?,
        None if node.int("noop_with_empty_axes")?.unwrap_or(0) != 0 => Vec::new(),
        None => (0..shape.len()).collect(),
    };
    let is_mixed = axes.iter().any(|axis| shape[*axis] == Size::Rows);
    let kept = shape.iter().enumerate().filter(|(axis, _)| keeps_axes || !axes.contains(axis));
    let sizes = kept.map(|(axis, size)| if axes.contains(&axis) { Size::Fixed(1) } else { *size }).collect();
    Ok(Compiled::new(Reduce { how, axes, keeps_axes }, [Fact::new(fact.kind, Some(sizes)).mixed_if(is_mixed)]))
}

macro_rules! reductions {
    ($($function:ident => $how:ident;)*) => {$(
        pub(super) fn $function(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
            reduce(node, How::$how)
        }
    )*};
}

reductions! {
    reduce_sum => Sum;
    reduce_mean => Mean;
    reduce_max => Max;
    reduce_min => Min;
    reduce_prod => Prod;
    reduce_l1 => L1;
    reduce_l2 => L2;
    reduce_sum_square => SumSquare;
    reduce_log_sum_exp => LogSumExp;
}

/// Shares that add up to 1 along an axis, or their logarithms.
#[derive(Debug)]
struct Softmax {
    axis: usize,
    /// Whether all axes from there on are taken for one, as operator sets before 13 did.
    flattens: bool,
    is_log: bool,
}

impl Softmax {
    fn apply<T: Reducible>(&self, input: &Value, output: &mut Value, to: impl Fn(T) -> f64, from: impl Fn(f64) -> T) {
        output.shape.clone_from(&input.shape);
        let (size, inner) = match self.flattens {
            true => (input.shape[self.axis..].iter().product(), 1),
            false => (input.shape[self.axis], input.shape[self.axis + 1..].iter().product()),
        };
        let items = T::fresh(&mut output.data);
        items.extend_from_slice(input.items::<T>());
        if size * inner == 0 {
            return;
        }
        for block in items.chunks_exact_mut(size * inner) {
            for start in 0..inner {
                let places = || (start..size * inner).step_by(inner);
                let most = places().map(|place| to(block[place])).fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = places().map(|place| (to(block[place]) - most).exp()).sum();
                for place in places() {
                    let shifted = to(block[place]) - most;
                    block[place] = from(if self.is_log { shifted - sum.ln() } else { shifted.exp() / sum });
                }
            }
        }
    }
}

impl Kernel for Softmax {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        #[expect(clippy::cast_possible_truncation, reason = "back to the elements' own type")]
        match input.data {
            Data::F32(_) => self.apply::<f32>(input, output, f64::from, |x| x as f32),
            Data::F64(_) => self.apply::<f64>(input, output, |x| x, |x| x),
            _ => return Err(Fault::shape("floats were expected")),
        }
        Ok(())
    }
}

fn softmax_like(node: &NodeView<'_>, is_log: bool) -> Result<Compiled, LoadError> {
    node.expect(1..=1, 1)?;
    let fact = node.fact(0)?;
    if !matches!(fact.kind, Kind::F32 | Kind::F64) {
        return Err(node.wrong_kind(fact.kind));
    }
    let shape = node.shape(fact)?;
    let flattens = node.opset < 13;
    let axis = node.axis(node.int("axis")?.unwrap_or(if flattens { 1 } else { -1 }), shape.len())?;
    let touched = if flattens { &shape[axis..] } else { &shape[axis..=axis] };
    let is_mixed = touched.contains(&Size::Rows);
    Ok(Compiled::new(Softmax { axis, flattens, is_log }, [fact.of_kind(fact.kind).mixed_if(is_mixed)]))
}

pub(super) fn softmax(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    softmax_like(node, false)
}

pub(super) fn log_softmax(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    softmax_like(node, true)
}
