//! Operators that change shapes, put values together or make constant ones.

use millrace_core::LoadError;

use crate::graph::fact::{Fact, Size};
use crate::graph::kernel::{Compiled, Fault, Inputs, Kernel, Scratch, broadcast_shape, elements};
use crate::graph::node::NodeView;
use crate::graph::value::{Data, Item, Kind, Positions, Sizes, Value};

#[derive(Debug)]
struct Identity;

impl Kernel for Identity {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        output.shape.clone_from(&input.shape);
        output.data.copy_from(&input.data);
        Ok(())
    }
}

pub(super) fn identity(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=1, 1)?;
    Ok(Compiled::new(Identity, [node.fact(0)?.clone()]))
}

/// The same elements under another shape. Sizes of 0 are taken from the input, one of -1 from what is left.
#[derive(Debug)]
struct Reshape {
    /// `None` where input 1 says it.
    target: Option<Vec<i64>>,
    allow_zero: bool,
}

impl Reshape {
    fn sizes(&self, target: &[i64], input: &[usize]) -> Result<Sizes, Fault> {
        let wrong = || Fault::shape(format!("elements of {input:?} have no shape {target:?}"));
        let total = elements(input)?;
        let mut sizes = Sizes::new();
        let mut open = None;
        for (axis, size) in target.iter().enumerate() {
            sizes.push(match size {
                0 if !self.allow_zero => *input.get(axis).ok_or_else(wrong)?,
                -1 if open.is_none() => {
                    open = Some(axis);
                    1
                }
                size => usize::try_from(*size).map_err(|_| wrong())?,
            });
        }
        let known = elements(&sizes)?;
        if let Some(axis) = open {
            sizes[axis] = total.checked_div(known).unwrap_or(0);
        }
        if elements(&sizes)? == total { Ok(sizes) } else { Err(wrong()) }
    }
}

impl Kernel for Reshape {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        let target = match &self.target {
            Some(target) => target,
            None => inputs.get(1).items::<i64>(),
        };
        output.shape = self.sizes(target, &input.shape)?;
        output.data.copy_from(&input.data);
        Ok(())
    }
}

/// What is known of the shape `target` of elements that had `shape`. Rows stay rows where as many elements as before lie
/// in front of them and inside them.
fn reshaped(shape: &[Size], target: &[i64], allow_zero: bool) -> (Vec<Size>, bool) {
    let product = |sizes: &[Size]| sizes.iter().try_fold(1_usize, |product, size| product.checked_mul(size.fixed()?));
    let mut sizes: Vec<Size> = target
        .iter()
        .enumerate()
        .map(|(axis, size)| match usize::try_from(*size) {
            Ok(0) if !allow_zero => shape.get(axis).copied().unwrap_or(Size::Unknown),
            Ok(size) => Size::Fixed(size),
            Err(_) => Size::Unknown,
        })
        .collect();
    let open = target.iter().position(|size| *size == -1);
    let Some(rows) = shape.iter().position(|size| *size == Size::Rows) else {
        let filled = open.and_then(|axis| {
            let known = product(&[&sizes[..axis], &sizes[axis + 1..]].concat())?;
            product(shape)?.checked_div(known)
        });
        if let (Some(axis), Some(size)) = (open, filled) {
            sizes[axis] = Size::Fixed(size);
        }
        return (sizes, false);
    };
    let (before, inside) = (product(&shape[..rows]), product(&shape[rows + 1..]));
    let fits = |axis: usize, sizes: &[Size]| {
        before.is_some()
            && inside.is_some()
            && product(&sizes[..axis]) == before
            && product(&sizes[axis + 1..]) == inside
    };
    if let Some(kept) = sizes.iter().position(|size| *size == Size::Rows) {
        // Rows taken over by a 0; the open axis, if any, is then what is left of the row.
        if let Some(axis) = open {
            let known = product(
                &[&sizes[..axis.min(kept)], &sizes[axis.min(kept) + 1..axis.max(kept)], &sizes[axis.max(kept) + 1..]]
                    .concat(),
            );
            let whole = before.zip(inside).and_then(|(before, inside)| before.checked_mul(inside));
            if let Some(size) = whole.zip(known).and_then(|(whole, known)| whole.checked_div(known)) {
                sizes[axis] = Size::Fixed(size);
            }
        }
        let is_mixed = !fits(kept, &sizes);
        return (sizes, is_mixed);
    }
    match open {
        Some(axis) if fits(axis, &sizes) => {
            sizes[axis] = Size::Rows;
            (sizes, false)
        }
        _ => (sizes, true),
    }
}

pub(super) fn reshape(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=2, 1)?;
    let fact = node.fact(0)?;
    let allow_zero = node.int("allowzero")?.unwrap_or(0) != 0;
    let target = match node.optional(1) {
        Some(input) if input.constant.is_none() => {
            if input.fact.kind != Kind::I64 {
                return Err(node.wrong_kind(input.fact.kind));
            }
            None
        }
        Some(_) => node.constant_ints(1)?,
        None => node.ints("shape")?,
    };
    if target.is_none() && node.optional(1).is_none() {
        return Err(node.invalid("it says no shape"));
    }
    let (shape, is_mixed) = match (&fact.shape, &target) {
        (Some(shape), Some(target)) => {
            let (shape, is_mixed) = reshaped(shape, target, allow_zero);
            (Some(shape), is_mixed)
        }
        _ => (None, true),
    };
    let made = Fact::new(fact.kind, shape).mixed_if(is_mixed);
    Ok(Compiled::new(Reshape { target, allow_zero }, [made]))
}

/// Everything before an axis becomes one axis, everything from there on another.
#[derive(Debug)]
struct Flatten(usize);

impl Kernel for Flatten {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        let (before, behind) =
            input.shape.split_at_checked(self.0).ok_or_else(|| Fault::shape("fewer axes than expected"))?;
        output.shape = Sizes::from_slice(&[before.iter().product(), behind.iter().product()]);
        output.data.copy_from(&input.data);
        Ok(())
    }
}

pub(super) fn flatten(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=1, 1)?;
    let fact = node.fact(0)?;
    let shape = node.shape(fact)?;
    let given = node.int("axis")?.unwrap_or(1);
    // One past the last axis is allowed here.
    let axis = if usize::try_from(given) == Ok(shape.len()) { shape.len() } else { node.axis(given, shape.len())? };
    let product =
        |sizes: &[Size]| match sizes.iter().try_fold(1_usize, |product, size| product.checked_mul(size.fixed()?)) {
            Some(size) => Size::Fixed(size),
            None => match sizes.iter().filter(|size| **size != Size::Fixed(1)).collect::<Vec<_>>().as_slice() {
                [Size::Rows] => Size::Rows,
                _ => Size::Unknown,
            },
        };
    let sizes = vec![product(&shape[..axis]), product(&shape[axis..])];
    let is_mixed = shape.contains(&Size::Rows) && !sizes.contains(&Size::Rows);
    Ok(Compiled::new(Flatten(axis), [Fact::new(fact.kind, Some(sizes)).mixed_if(is_mixed)]))
}

/// Takes axes of size 1 away, all of them or those named.
#[derive(Debug)]
struct Squeeze(Vec<usize>);

impl Kernel for Squeeze {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        if self.0.iter().any(|axis| input.shape.get(*axis) != Some(&1)) {
            return Err(Fault::shape(format!("the axes {:?} of {:?} are not all of size 1", self.0, input.shape)));
        }
        let kept = input.shape.iter().enumerate().filter(|(axis, _)| !self.0.contains(axis));
        output.shape = kept.map(|(_, size)| *size).collect();
        output.data.copy_from(&input.data);
        Ok(())
    }
}

pub(super) fn squeeze(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=2, 1)?;
    let fact = node.fact(0)?;
    let shape = node.shape(fact)?;
    let axes: Vec<usize> = match node.axes(1, 13)? {
        Some(axes) => axes.iter().map(|axis| node.axis(*axis, shape.len())).collect::<Result<_, _>>()?,
        None if shape.contains(&Size::Unknown) => {
            return Err(node.unsupported("it takes away axes that are known only later"));
        }
        None => (0..shape.len()).filter(|axis| shape[*axis] == Size::Fixed(1)).collect(),
    };
    let sizes = shape.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, size)| *size).collect();
    let is_mixed = axes.iter().any(|axis| shape[*axis] == Size::Rows);
    Ok(Compiled::new(Squeeze(axes), [Fact::new(fact.kind, Some(sizes)).mixed_if(is_mixed)]))
}

/// Puts axes of size 1 in.
#[derive(Debug)]
struct Unsqueeze(Vec<usize>);

impl Kernel for Unsqueeze {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        let mut sizes = input.shape.iter();
        let rank = input.shape.len() + self.0.len();
        output.shape =
            (0..rank).map(|axis| if self.0.contains(&axis) { 1 } else { sizes.next().copied().unwrap_or(1) }).collect();
        output.data.copy_from(&input.data);
        Ok(())
    }
}

pub(super) fn unsqueeze(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=2, 1)?;
    let fact = node.fact(0)?;
    let shape = node.shape(fact)?;
    let given = node.axes(1, 13)?.ok_or_else(|| node.invalid("it names no axes"))?;
    let rank = shape.len() + given.len();
    if rank > millrace_core::MAX_RANK {
        return Err(node.unsupported("too many axes"));
    }
    let axes: Vec<usize> = given.iter().map(|axis| node.axis(*axis, rank)).collect::<Result<_, _>>()?;
    if (1..axes.len()).any(|index| axes[..index].contains(&axes[index])) {
        return Err(node.invalid("an axis stands twice"));
    }
    let mut sizes = shape.iter();
    let made = (0..rank)
        .map(|axis| if axes.contains(&axis) { Size::Fixed(1) } else { sizes.next().copied().unwrap_or(Size::Unknown) });
    let made = Fact::new(fact.kind, Some(made.collect()));
    Ok(Compiled::new(Unsqueeze(axes), [made]))
}

/// Orders axes anew.
#[derive(Debug)]
struct Transpose(Vec<usize>);

impl Kernel for Transpose {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        let mut strides = Sizes::from_elem(1, input.shape.len());
        for axis in (1..input.shape.len()).rev() {
            strides[axis - 1] = strides[axis] * input.shape[axis];
        }
        output.shape = self.0.iter().map(|axis| input.shape[*axis]).collect();
        let strides = self.0.iter().map(|axis| strides[*axis]).collect();
        output.data.take_blocks(&input.data, Positions::with_strides(&output.shape, strides), 1);
        Ok(())
    }
}

pub(super) fn transpose(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=1, 1)?;
    let fact = node.fact(0)?;
    let shape = node.shape(fact)?;
    let order: Vec<usize> = match node.ints("perm")? {
        Some(order) => order.iter().map(|axis| node.axis(*axis, shape.len())).collect::<Result<_, _>>()?,
        None => (0..shape.len()).rev().collect(),
    };
    if order.len() != shape.len() || (1..order.len()).any(|index| order[..index].contains(&order[index])) {
        return Err(node.invalid("`perm` is no order of its axes"));
    }
    let sizes = order.iter().map(|axis| shape[*axis]).collect();
    Ok(Compiled::new(Transpose(order), [Fact::new(fact.kind, Some(sizes))]))
}

/// Joins values along an axis.
#[derive(Debug)]
struct Concat(usize);

impl Kernel for Concat {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let output = &mut outputs[0];
        let axis = self.0;
        let first = &inputs.get(0).shape;
        output.shape.clone_from(first);
        for index in 1..inputs.len() {
            let shape = &inputs.get(index).shape;
            let fits = shape.len() == first.len() && (0..shape.len()).all(|at| at == axis || shape[at] == first[at]);
            if !fits {
                return Err(Fault::shape(format!("{first:?} and {shape:?} do not join along axis {axis}")));
            }
            output.shape[axis] =
                output.shape[axis].checked_add(shape[axis]).ok_or_else(|| Fault::TooLarge(format!("{shape:?}")))?;
        }
        let total = elements(&output.shape)?;
        let outer: usize = output.shape[..axis].iter().product();
        let inner: usize = output.shape[axis + 1..].iter().product();
        fn numbers<T: Item>(
            inputs: &Inputs<'_>,
            output: &mut Data,
            (axis, inner, outer, total): (usize, usize, usize, usize),
            zero: T,
        ) {
            let items = T::fresh(output);
            items.resize(total, zero);
            let width = total.checked_div(outer).unwrap_or(0);
            let mut start = 0;
            for index in 0..inputs.len() {
                let value = inputs.get(index);
                let block = value.shape[axis] * inner;
                if block == 0 {
                    continue;
                }
                for (row, source) in items.chunks_exact_mut(width).zip(value.items::<T>().chunks_exact(block)) {
                    row[start..start + block].copy_from_slice(source);
                }
                start += block;
            }
        }
        let sizes = (axis, inner, outer, total);
        match &inputs.get(0).data {
            Data::F32(_) => numbers(inputs, &mut output.data, sizes, 0.0_f32),
            Data::F64(_) => numbers(inputs, &mut output.data, sizes, 0.0_f64),
            Data::I64(_) => numbers(inputs, &mut output.data, sizes, 0_i64),
            Data::I32(_) => numbers(inputs, &mut output.data, sizes, 0_i32),
            Data::Bool(_) => numbers(inputs, &mut output.data, sizes, false),
            Data::Text(_) => {
                let texts = output.data.fresh_texts();
                for row in 0..outer {
                    for value in (0..inputs.len()).map(|index| inputs.get(index)) {
                        let block = value.shape[axis] * inner;
                        let source = value.data.texts().ok_or_else(|| Fault::shape("texts were expected"))?;
                        (row * block..(row + 1) * block).for_each(|index| texts.push(source.get(index)));
                    }
                }
            }
        }
        Ok(())
    }
}

pub(super) fn concat(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=usize::MAX, 1)?;
    let first = node.fact(0)?;
    let rank = node.rank(first)?;
    let axis = node.axis(node.int("axis")?.ok_or_else(|| node.invalid("the attribute `axis` is missing"))?, rank)?;
    let mut sizes = node.shape(first)?.to_vec();
    let mut is_mixed = sizes[axis] == Size::Rows && node.inputs.len() > 1;
    for index in 1..node.inputs.len() {
        let next = node.fact(index)?;
        if next.kind != first.kind {
            return Err(node.invalid(format_args!("its inputs are {} and {}", first.kind.name(), next.kind.name())));
        }
        if node.rank(next)? != rank {
            return Err(node.invalid("its inputs differ in the number of axes"));
        }
        for (at, size) in sizes.iter_mut().enumerate() {
            let other = next.size(at);
            is_mixed |= at == axis && other == Size::Rows;
            *size = match (*size, other) {
                (Size::Fixed(a), Size::Fixed(b)) if at == axis => a.checked_add(b).map_or(Size::Unknown, Size::Fixed),
                _ if at == axis => Size::Unknown,
                // A value that has as many entries as there are rows, but not one for each, is none of the rows' own.
                (Size::Rows, Size::Rows) => Size::Rows,
                (Size::Rows, _) | (_, Size::Rows) => {
                    is_mixed = true;
                    Size::Unknown
                }
                (Size::Fixed(size), _) | (_, Size::Fixed(size)) => Size::Fixed(size),
                (Size::Unknown, Size::Unknown) => Size::Unknown,
            };
        }
    }
    Ok(Compiled::new(Concat(axis), [Fact::new(first.kind, Some(sizes)).mixed_if(is_mixed)]))
}

/// Puts columns of numbers side by side, each cut or filled up with zeros to its own width.
#[derive(Debug)]
struct FeatureVectorizer(Vec<usize>);

impl Kernel for FeatureVectorizer {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "the result is a float, whatever comes in"
    )]
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let output = &mut outputs[0];
        let total: usize = self.0.iter().sum();
        let (rows, _) = inputs.get(0).rows_and_width();
        output.shape = Sizes::from_slice(&[rows, total]);
        let count = elements(&output.shape)?;
        let items = f32::fresh(&mut output.data);
        items.resize(count, 0.0);
        let mut start = 0;
        for (index, width) in self.0.iter().enumerate() {
            let value = inputs.get(index);
            let (other_rows, given) = value.rows_and_width();
            if other_rows != rows {
                return Err(Fault::shape(format!("{rows} and {other_rows} rows")));
            }
            let taken = given.min(*width);
            for row in 0..rows {
                let target = &mut items[row * total + start..][..taken];
                let source = row * given..row * given + taken;
                match &value.data {
                    Data::F32(items) => target.copy_from_slice(&items[source]),
                    Data::F64(items) => {
                        target.iter_mut().zip(&items[source]).for_each(|(target, x)| *target = *x as f32)
                    }
                    Data::I64(items) => {
                        target.iter_mut().zip(&items[source]).for_each(|(target, x)| *target = *x as f32)
                    }
                    Data::I32(items) => {
                        target.iter_mut().zip(&items[source]).for_each(|(target, x)| *target = *x as f32)
                    }
                    Data::Bool(_) | Data::Text(_) => return Err(Fault::shape("numbers were expected")),
                }
            }
            start += width;
        }
        Ok(())
    }
}

pub(super) fn feature_vectorizer(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=usize::MAX, 1)?;
    let widths =
        node.ints("inputdimensions")?.ok_or_else(|| node.invalid("the attribute `inputdimensions` is missing"))?;
    node.same_length("inputdimensions", widths.len(), node.inputs.len())?;
    let widths: Vec<usize> = widths
        .iter()
        .map(|width| usize::try_from(*width).ok().filter(|width| *width <= 1 << 24))
        .collect::<Option<_>>()
        .ok_or_else(|| node.invalid("a width is negative or very large"))?;
    let mut height = node.fact(0)?.height();
    let mut is_mixed = false;
    for index in 0..widths.len() {
        let fact = node.fact(index)?;
        if matches!(fact.kind, Kind::Text | Kind::Bool) {
            return Err(node.wrong_kind(fact.kind));
        }
        is_mixed |= fact.is_list_of_rows();
        if fact.height() != height {
            is_mixed |= height == Size::Rows || fact.height() == Size::Rows;
            height = Size::Unknown;
        }
    }
    let total = widths.iter().sum();
    let made = Fact::new(Kind::F32, Some(vec![height, Size::Fixed(total)])).mixed_if(is_mixed);
    Ok(Compiled::new(FeatureVectorizer(widths), [made]))
}

/// A value that never changes.
#[derive(Debug)]
struct Constant(Value);

impl Kernel for Constant {
    fn run(&self, _: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        outputs[0] = self.0.clone();
        Ok(())
    }
}

pub(super) fn constant(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(0..=0, 1)?;
    let value = if let Some(value) = node.tensor("value")? {
        value
    } else if let Some(float) = node.float("value_float")? {
        Value { shape: Sizes::new(), data: Data::F32(vec![float]) }
    } else if let Some(int) = node.int("value_int")? {
        Value { shape: Sizes::new(), data: Data::I64(vec![int]) }
    } else if let Some(text) = node.string("value_string")? {
        Value { shape: Sizes::new(), data: Data::Text(std::iter::once(text).collect()) }
    } else if let Some(floats) = node.floats("value_floats")? {
        Value::list(Data::F32(floats))
    } else if let Some(ints) = node.ints("value_ints")? {
        Value::list(Data::I64(ints))
    } else if let Some(texts) = node.strings("value_strings")? {
        Value::list(Data::Text(texts))
    } else {
        return Err(node.unsupported("a constant without an attribute that is known here"));
    };
    let shape = value.shape.iter().map(|size| Size::Fixed(*size)).collect();
    let fact = Fact::new(value.data.kind(), Some(shape));
    Ok(Compiled::new(Constant(value), [fact]))
}

#[derive(Debug)]
struct Shape;

impl Kernel for Shape {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        output.shape = Sizes::from_slice(&[input.shape.len()]);
        i64::fresh(&mut output.data).extend(input.shape.iter().map(|size| i64::try_from(*size).unwrap_or(i64::MAX)));
        Ok(())
    }
}

pub(super) fn shape(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=1, 1)?;
    if node.has("start") || node.has("end") {
        return Err(node.unsupported("a part of a shape"));
    }
    let sizes = node.shape(node.fact(0)?)?;
    let mut made = Fact::new(Kind::I64, Some(vec![Size::Fixed(sizes.len())]));
    made.contents = Some(sizes.to_vec());
    Ok(Compiled::new(Shape, [made]))
}

/// One element, repeated.
#[derive(Debug)]
struct ConstantOfShape(Data);

impl Kernel for ConstantOfShape {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let output = &mut outputs[0];
        output.shape = sizes(inputs.get(0).items::<i64>())?;
        let count = elements(&output.shape)?;
        output.data.take_blocks(&self.0, std::iter::repeat_n(0, count), 1);
        Ok(())
    }
}

fn sizes(items: &[i64]) -> Result<Sizes, Fault> {
    let sizes: Option<Sizes> = items.iter().map(|size| usize::try_from(*size).ok()).collect();
    sizes
        .filter(|sizes| sizes.len() <= millrace_core::MAX_RANK)
        .ok_or_else(|| Fault::shape(format!("{items:?} is no shape")))
}

/// The shape that constant input `index` of `node` says, or that the operator `Shape` made there.
fn said_shape(node: &NodeView<'_>, index: usize) -> Result<Option<Vec<Size>>, LoadError> {
    let Some(input) = node.optional(index) else { return Ok(None) };
    if input.fact.kind != Kind::I64 {
        return Err(node.wrong_kind(input.fact.kind));
    }
    match input.constant {
        Some(value) => {
            let sizes = sizes(value.items::<i64>()).map_err(|fault| node.invalid(fault))?;
            Ok(Some(sizes.iter().map(|size| Size::Fixed(*size)).collect()))
        }
        None => Ok(input.fact.contents.clone()),
    }
}

pub(super) fn constant_of_shape(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=1, 1)?;
    let value = node.tensor("value")?.map_or_else(|| Data::F32(vec![0.0]), |value| value.data);
    if value.len() != 1 {
        return Err(node.invalid("`value` is not one element"));
    }
    let shape = said_shape(node, 0)?;
    let made = Fact::new(value.kind(), shape.clone()).mixed_if(shape.is_none());
    Ok(Compiled::new(ConstantOfShape(value), [made]))
}

/// Repeats a value along axes of size 1.
#[derive(Debug)]
struct Expand;

impl Kernel for Expand {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        output.shape = broadcast_shape(&input.shape, &sizes(inputs.get(1).items::<i64>())?)?;
        output.data.take_blocks(&input.data, Positions::new(&input.shape, &output.shape), 1);
        Ok(())
    }
}

pub(super) fn expand(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(2..=2, 1)?;
    let fact = node.fact(0)?;
    let (shape, is_mixed) = match said_shape(node, 1)? {
        Some(shape) => crate::graph::fact::broadcast(fact, &Fact::new(fact.kind, Some(shape))),
        None => (None, true),
    };
    Ok(Compiled::new(Expand, [Fact::new(fact.kind, shape).mixed_if(is_mixed)]))
}
