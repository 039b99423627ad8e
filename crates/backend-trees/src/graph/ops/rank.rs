//! Operators along one axis that order or add up: the place of the greatest, the greatest few, running sums.

use millrace_core::LoadError;

use crate::graph::fact::{Fact, Size};
use crate::graph::kernel::{Compiled, Fault, Inputs, Kernel, Scratch};
use crate::graph::node::NodeView;
use crate::graph::value::{Data, Item, Kind, Sizes, Value};

/// The sizes before an axis, of it, and behind it.
fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

fn is_number(node: &NodeView<'_>, fact: &Fact) -> Result<(), LoadError> {
    if matches!(fact.kind, Kind::Bool | Kind::Text) { Err(node.wrong_kind(fact.kind)) } else { Ok(()) }
}

/// The place of the greatest or of the least number; of several the first, or the last.
#[derive(Debug, Clone, Copy)]
struct ArgExtreme {
    axis: usize,
    keeps_axis: bool,
    least: bool,
    last: bool,
}

impl ArgExtreme {
    fn find<T: Item + PartialOrd>(&self, input: &Value, output: &mut Value) -> Result<(), Fault> {
        let (outer, size, inner) = around(&input.shape, self.axis);
        let items = input.items::<T>();
        if size == 0 {
            return Err(Fault::shape("an axis without entries"));
        }
        let places = i64::fresh(&mut output.data);
        for outer in 0..outer {
            for inner_at in 0..inner {
                let at = |place: usize| items[(outer * size + place) * inner + inner_at];
                let mut best = 0;
                for place in 1..size {
                    let (new, old) = (at(place), at(best));
                    let wins = if self.least { new < old } else { new > old };
                    if wins || (self.last && new == old) {
                        best = place;
                    }
                }
                places.push(i64::try_from(best).unwrap_or(i64::MAX));
            }
        }
        output.shape.clone_from(&input.shape);
        if self.keeps_axis {
            output.shape[self.axis] = 1;
        } else {
            output.shape.remove(self.axis);
        }
        Ok(())
    }
}

impl Kernel for ArgExtreme {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        match input.data {
            Data::F32(_) => self.find::<f32>(input, output),
            Data::F64(_) => self.find::<f64>(input, output),
            Data::I64(_) => self.find::<i64>(input, output),
            Data::I32(_) => self.find::<i32>(input, output),
            Data::Bool(_) | Data::Text(_) => Err(Fault::shape("numbers were expected")),
        }
    }
}

fn arg_extreme(node: &NodeView<'_>, least: bool) -> Result<Compiled, LoadError> {
    node.expect(1..=1, 1)?;
    let fact = node.fact(0)?;
    is_number(node, fact)?;
    let shape = node.shape(fact)?;
    let axis = node.axis(node.int("axis")?.unwrap_or(0), shape.len())?;
    let keeps_axis = node.int("keepdims")?.unwrap_or(1) != 0;
    let last = node.int("select_last_index")?.unwrap_or(0) != 0;
    let mut sizes = shape.to_vec();
    if keeps_axis {
        sizes[axis] = Size::Fixed(1);
    } else {
        sizes.remove(axis);
    }
    let made = Fact::new(Kind::I64, Some(sizes)).mixed_if(shape[axis] == Size::Rows);
    Ok(Compiled::new(ArgExtreme { axis, keeps_axis, least, last }, [made]))
}

pub(super) fn arg_max(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    arg_extreme(node, false)
}

pub(super) fn arg_min(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    arg_extreme(node, true)
}

/// The greatest (or least) few along an axis, best first, and their places. Equal ones keep their order.
#[derive(Debug)]
struct TopK {
    axis: usize,
    count: usize,
    largest: bool,
}

impl TopK {
    fn find<T: Item + PartialOrd>(&self, input: &Value, outputs: &mut [Value]) -> Result<(), Fault> {
        let (outer, size, inner) = around(&input.shape, self.axis);
        if self.count > size {
            return Err(Fault::shape(format!("the best {} of {size}", self.count)));
        }
        let items = input.items::<T>();
        let mut shape = Sizes::from_slice(&input.shape);
        shape[self.axis] = self.count;
        let [values, places] = outputs else { return Err(Fault::shape("two outputs were expected")) };
        let total = shape.iter().product();
        let value_items = T::fresh(&mut values.data);
        let place_items = i64::fresh(&mut places.data);
        let Some(first) = items.first() else {
            (values.shape, places.shape) = (shape.clone(), shape);
            return Ok(());
        };
        value_items.resize(total, *first);
        place_items.resize(total, 0);
        let mut order: Vec<usize> = Vec::with_capacity(size);
        for outer in 0..outer {
            for inner_at in 0..inner {
                let at = |place: usize| items[(outer * size + place) * inner + inner_at];
                order.clear();
                order.extend(0..size);
                order.sort_by(|a, b| {
                    let by_value = at(*a).partial_cmp(&at(*b)).unwrap_or(std::cmp::Ordering::Equal);
                    (if self.largest { by_value.reverse() } else { by_value }).then(a.cmp(b))
                });
                for (rank, place) in order.iter().take(self.count).enumerate() {
                    let target = (outer * self.count + rank) * inner + inner_at;
                    value_items[target] = at(*place);
                    place_items[target] = i64::try_from(*place).unwrap_or(i64::MAX);
                }
            }
        }
        (values.shape, places.shape) = (shape.clone(), shape);
        Ok(())
    }
}

impl Kernel for TopK {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let input = inputs.get(0);
        match input.data {
            Data::F32(_) => self.find::<f32>(input, outputs),
            Data::F64(_) => self.find::<f64>(input, outputs),
            Data::I64(_) => self.find::<i64>(input, outputs),
            Data::I32(_) => self.find::<i32>(input, outputs),
            Data::Bool(_) | Data::Text(_) => Err(Fault::shape("numbers were expected")),
        }
    }
}

pub(super) fn top_k(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=2, 2)?;
    let fact = node.fact(0)?;
    is_number(node, fact)?;
    let shape = node.shape(fact)?;
    let axis = node.axis(node.int("axis")?.unwrap_or(-1), shape.len())?;
    let count = match node.constant_ints(1)? {
        Some(ints) => ints.first().copied(),
        None => node.int("k")?,
    };
    let count = count
        .and_then(|count| usize::try_from(count).ok())
        .ok_or_else(|| node.invalid("it says no count, or a negative one"))?;
    if let Size::Fixed(size) = shape[axis]
        && count > size
    {
        return Err(node.invalid(format_args!("the best {count} of {size}")));
    }
    let largest = node.int("largest")?.unwrap_or(1) != 0;
    let mut sizes = shape.to_vec();
    sizes[axis] = Size::Fixed(count);
    let is_mixed = shape[axis] == Size::Rows;
    let made = |kind| Fact::new(kind, Some(sizes.clone())).mixed_if(is_mixed);
    Ok(Compiled::new(TopK { axis, count, largest }, [made(fact.kind), made(Kind::I64)]))
}

/// Sums of all entries up to each, along an axis.
#[derive(Debug)]
struct CumSum {
    axis: usize,
    exclusive: bool,
    reverse: bool,
}

impl CumSum {
    fn add<T: Item>(&self, input: &Value, output: &mut Value, zero: T, add: impl Fn(T, T) -> T) {
        let (outer, size, inner) = around(&input.shape, self.axis);
        output.shape.clone_from(&input.shape);
        let items = T::fresh(&mut output.data);
        items.extend_from_slice(input.items::<T>());
        for outer in 0..outer {
            for inner_at in 0..inner {
                let mut sum = zero;
                for place in 0..size {
                    let place = if self.reverse { size - 1 - place } else { place };
                    let item = &mut items[(outer * size + place) * inner + inner_at];
                    let with = add(sum, *item);
                    *item = if self.exclusive { sum } else { with };
                    sum = with;
                }
            }
        }
    }
}

impl Kernel for CumSum {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        match input.data {
            Data::F32(_) => self.add(input, output, 0.0_f32, |a, b| a + b),
            Data::F64(_) => self.add(input, output, 0.0_f64, |a, b| a + b),
            Data::I64(_) => self.add(input, output, 0_i64, i64::wrapping_add),
            Data::I32(_) => self.add(input, output, 0_i32, i32::wrapping_add),
            Data::Bool(_) | Data::Text(_) => return Err(Fault::shape("numbers were expected")),
        }
        Ok(())
    }
}

pub(super) fn cum_sum(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(2..=2, 1)?;
    let fact = node.fact(0)?;
    is_number(node, fact)?;
    let shape = node.shape(fact)?;
    let given = node.constant_ints(1)?.and_then(|ints| ints.first().copied());
    let axis = node.axis(given.ok_or_else(|| node.invalid("it names no axis"))?, shape.len())?;
    let flag = |name: &str| -> Result<bool, LoadError> { Ok(node.int(name)?.unwrap_or(0) != 0) };
    let kernel = CumSum { axis, exclusive: flag("exclusive")?, reverse: flag("reverse")? };
    Ok(Compiled::new(kernel, [fact.of_kind(fact.kind).mixed_if(shape[axis] == Size::Rows)]))
}
