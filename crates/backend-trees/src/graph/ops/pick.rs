//! Operators that pick elements of one value by the numbers in another.

use millrace_core::LoadError;

use crate::graph::fact::{Fact, Size, broadcast};
use crate::graph::kernel::{Compiled, Fault, Inputs, Kernel, Scratch, broadcast_shape, elements};
use crate::graph::node::NodeView;
use crate::graph::value::{Data, Item, Kind, Positions, Sizes, Value};

/// Calls `f` with the numbers of `value` as places, counted from the front, in a list of `size`.
fn for_each_place(value: &Value, size: usize, allow_negative: bool, mut f: impl FnMut(usize)) -> Result<(), Fault> {
    let mut place = |given: i64| {
        let front = if given < 0 && allow_negative {
            given.saturating_add(i64::try_from(size).unwrap_or(i64::MAX))
        } else {
            given
        };
        let place = usize::try_from(front).ok().filter(|place| *place < size);
        place.map(&mut f).ok_or_else(|| Fault::Input(format!("the index {given} in a list of {size}")))
    };
    match &value.data {
        Data::I64(items) => items.iter().try_for_each(|item| place(*item)),
        Data::I32(items) => items.iter().try_for_each(|item| place(i64::from(*item))),
        _ => Err(Fault::shape("whole numbers were expected")),
    }
}

fn indices_fact<'a>(node: &NodeView<'a>, index: usize) -> Result<&'a Fact, LoadError> {
    let fact = node.fact(index)?;
    if matches!(fact.kind, Kind::I64 | Kind::I32) { Ok(fact) } else { Err(node.wrong_kind(fact.kind)) }
}

/// Refuses constant indices that lie outside.
fn check_constant(node: &NodeView<'_>, size: Size, allow_negative: bool) -> Result<(), LoadError> {
    match (node.optional(1).and_then(|input| input.constant), size) {
        (Some(indices), Size::Fixed(size)) => {
            for_each_place(indices, size, allow_negative, |_| {}).map_err(|fault| node.invalid(fault))
        }
        _ => Ok(()),
    }
}

/// Entries of an axis, by their numbers.
#[derive(Debug)]
struct Gather(usize);

impl Kernel for Gather {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (data, indices, output) = (inputs.get(0), inputs.get(1), &mut outputs[0]);
        let axis = self.0;
        let size = data.shape[axis];
        let outer: usize = data.shape[..axis].iter().product();
        let inner: usize = data.shape[axis + 1..].iter().product();
        output.shape =
            data.shape[..axis].iter().chain(&indices.shape).chain(&data.shape[axis + 1..]).copied().collect();
        elements(&output.shape)?;
        let mut places = smallvec::SmallVec::<[usize; 16]>::new();
        for_each_place(indices, size, true, |place| places.push(place * inner))?;
        let starts = (0..outer).flat_map(|row| places.iter().map(move |place| row * size * inner + place));
        output.data.take_blocks(&data.data, starts, inner);
        Ok(())
    }
}

pub(super) fn gather(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(2..=2, 1)?;
    let (data, indices) = (node.fact(0)?, indices_fact(node, 1)?);
    let (shape, places) = (node.shape(data)?, node.shape(indices)?);
    let axis = node.axis(node.int("axis")?.unwrap_or(0), shape.len())?;
    check_constant(node, shape[axis], true)?;
    let sizes: Vec<Size> = shape[..axis].iter().chain(places).chain(&shape[axis + 1..]).copied().collect();
    let is_mixed = shape[axis] == Size::Rows;
    Ok(Compiled::new(Gather(axis), [Fact::new(data.kind, Some(sizes)).mixed_if(is_mixed)]))
}

/// Columns of the last axis, by their numbers; a lone list becomes a matrix of one row.
#[derive(Debug)]
struct ArrayFeatureExtractor;

impl Kernel for ArrayFeatureExtractor {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (data, indices, output) = (inputs.get(0), inputs.get(1), &mut outputs[0]);
        let Some((size, outer)) = data.shape.split_last() else { return Err(Fault::shape("a value without axes")) };
        let mut places = smallvec::SmallVec::<[usize; 16]>::new();
        for_each_place(indices, *size, false, |place| places.push(place))?;
        output.shape = if outer.is_empty() { Sizes::from_slice(&[1]) } else { Sizes::from_slice(outer) };
        output.shape.push(places.len());
        elements(&output.shape)?;
        let rows: usize = outer.iter().product();
        let starts = (0..rows).flat_map(|row| places.iter().map(move |place| row * size + place));
        output.data.take_blocks(&data.data, starts, 1);
        Ok(())
    }
}

pub(super) fn array_feature_extractor(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(2..=2, 1)?;
    let (data, indices) = (node.fact(0)?, indices_fact(node, 1)?);
    let shape = node.shape(data)?;
    let Some((size, outer)) = shape.split_last() else { return Err(node.invalid("its input has no axes")) };
    check_constant(node, *size, false)?;
    let flat =
        |shape: &Vec<Size>| match shape.iter().filter(|size| **size != Size::Fixed(1)).collect::<Vec<_>>().as_slice() {
            [] => Size::Fixed(1),
            [one] => **one,
            many => many
                .iter()
                .try_fold(1_usize, |product, size| product.checked_mul(size.fixed()?))
                .map_or(Size::Unknown, Size::Fixed),
        };
    let places = indices.shape.as_ref().map_or(Size::Unknown, flat);
    let loses_rows = indices.shape.as_ref().is_none_or(|shape| shape.contains(&Size::Rows)) && places != Size::Rows;
    let mut sizes = if outer.is_empty() { vec![Size::Fixed(1)] } else { outer.to_vec() };
    sizes.push(places);
    let is_mixed = *size == Size::Rows || loses_rows;
    Ok(Compiled::new(ArrayFeatureExtractor, [Fact::new(data.kind, Some(sizes)).mixed_if(is_mixed)]))
}

/// For each place of the indices: the element whose place differs along one axis only, where the index says it.
#[derive(Debug)]
struct GatherElements(usize);

impl Kernel for GatherElements {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (data, indices, output) = (inputs.get(0), inputs.get(1), &mut outputs[0]);
        let axis = self.0;
        let fits = data.shape.len() == indices.shape.len()
            && (0..data.shape.len()).all(|at| at == axis || indices.shape[at] <= data.shape[at]);
        if !fits {
            return Err(Fault::shape(format!("indices {:?} into {:?}", indices.shape, data.shape)));
        }
        let mut strides = Sizes::from_elem(1, data.shape.len());
        for at in (1..data.shape.len()).rev() {
            strides[at - 1] = strides[at] * data.shape[at];
        }
        let step = strides[axis];
        strides[axis] = 0;
        let mut places = Vec::with_capacity(indices.data.len());
        for_each_place(indices, data.shape[axis], true, |place| places.push(place * step))?;
        output.shape.clone_from(&indices.shape);
        let starts = Positions::with_strides(&indices.shape, strides).zip(&places).map(|(start, place)| start + place);
        output.data.take_blocks(&data.data, starts, 1);
        Ok(())
    }
}

pub(super) fn gather_elements(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(2..=2, 1)?;
    let (data, indices) = (node.fact(0)?, indices_fact(node, 1)?);
    let (shape, places) = (node.shape(data)?, node.shape(indices)?);
    let axis = node.axis(node.int("axis")?.unwrap_or(0), shape.len())?;
    if places.len() != shape.len() {
        return Err(node.invalid("its inputs differ in the number of axes"));
    }
    // Rows stay apart where both values have them on the same other axis.
    let pairs = || shape.iter().zip(places).enumerate();
    let is_mixed =
        shape[axis] == Size::Rows || pairs().any(|(at, (a, b))| at != axis && (*a == Size::Rows) != (*b == Size::Rows));
    Ok(Compiled::new(GatherElements(axis), [Fact::new(data.kind, Some(places.to_vec())).mixed_if(is_mixed)]))
}

/// One of two elements, by a truth value.
#[derive(Debug)]
struct Select;

impl Kernel for Select {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (condition, yes, no, output) = (inputs.get(0), inputs.get(1), inputs.get(2), &mut outputs[0]);
        let shape = broadcast_shape(&broadcast_shape(&condition.shape, &yes.shape)?, &no.shape)?;
        let flags = condition.items::<bool>();
        let at = |value: &Value| Positions::new(&value.shape, &shape);
        let places = at(condition).zip(at(yes).zip(at(no)));
        fn numbers<T: Item>(
            flags: &[bool],
            yes: &[T],
            no: &Value,
            places: impl Iterator<Item = (usize, (usize, usize))>,
            output: &mut Data,
        ) {
            let no = no.items::<T>();
            T::fresh(output)
                .extend(places.map(|(at, (yes_at, no_at))| if flags[at] { yes[yes_at] } else { no[no_at] }));
        }
        let target = &mut output.data;
        match &yes.data {
            Data::F32(items) => numbers(flags, items, no, places, target),
            Data::F64(items) => numbers(flags, items, no, places, target),
            Data::I64(items) => numbers(flags, items, no, places, target),
            Data::I32(items) => numbers(flags, items, no, places, target),
            Data::Bool(items) => numbers(flags, items, no, places, target),
            Data::Text(items) => {
                let others = no.data.texts().ok_or_else(|| Fault::shape("texts were expected"))?;
                let texts = target.fresh_texts();
                places.for_each(|(at, (yes, no))| texts.push(if flags[at] { items.get(yes) } else { others.get(no) }));
            }
        }
        output.shape = shape;
        Ok(())
    }
}

pub(super) fn select(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(3..=3, 1)?;
    let (condition, yes, no) = (node.fact(0)?, node.fact(1)?, node.fact(2)?);
    if condition.kind != Kind::Bool {
        return Err(node.wrong_kind(condition.kind));
    }
    if yes.kind != no.kind {
        return Err(node.invalid(format_args!("its inputs are {} and {}", yes.kind.name(), no.kind.name())));
    }
    let (shape, first) = broadcast(condition, yes);
    let (shape, second) = broadcast(&Fact::new(yes.kind, shape), no);
    Ok(Compiled::new(Select, [Fact::new(yes.kind, shape).mixed_if(first || second)]))
}
