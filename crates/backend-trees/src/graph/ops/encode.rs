//! Operators that look values up: encoders and maps of categories.

use std::collections::HashMap;

use millrace_core::LoadError;

use crate::graph::fact::{Fact, Size};
use crate::graph::kernel::{Compiled, Fault, Inputs, Kernel, Scratch, elements};
use crate::graph::node::NodeView;
use crate::graph::value::{Data, Item, Kind, Sizes, Texts, Value};

/// A key as it is looked up. All NaN are one key, and so are both zeros.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Number(u64),
    Text(Box<[u8]>),
}

/// From keys to positions.
#[derive(Debug)]
struct Table {
    numbers: HashMap<u64, u32>,
    texts: HashMap<Box<[u8]>, u32>,
    kind: Kind,
}

impl Table {
    /// The table of `keys`; of several equal ones the first counts, or the last if `last_wins`.
    fn new(keys: &Data, last_wins: bool) -> Option<Self> {
        let (mut numbers, mut texts) = (HashMap::new(), HashMap::new());
        let mut add = |key: Key, position: usize| {
            let position = u32::try_from(position).ok()?;
            let update = |entry: &mut u32| {
                if last_wins {
                    *entry = position;
                }
            };
            match key {
                Key::Number(bits) => numbers.entry(bits).and_modify(update).or_insert(position),
                Key::Text(text) => texts.entry(text).and_modify(update).or_insert(position),
            };
            Some(())
        };
        match keys {
            Data::F32(items) => items.iter().enumerate().try_for_each(|(i, x)| add(Key::Number(f32_bits(*x)), i))?,
            Data::F64(items) => items.iter().enumerate().try_for_each(|(i, x)| add(Key::Number(f64_bits(*x)), i))?,
            Data::I64(items) => {
                items.iter().enumerate().try_for_each(|(i, x)| add(Key::Number(x.cast_unsigned()), i))?
            }
            Data::I32(items) => {
                items.iter().enumerate().try_for_each(|(i, x)| add(Key::Number(i64::from(*x).cast_unsigned()), i))?;
            }
            Data::Bool(items) => items.iter().enumerate().try_for_each(|(i, x)| add(Key::Number(u64::from(*x)), i))?,
            Data::Text(items) => items.iter().enumerate().try_for_each(|(i, x)| add(Key::Text(x.into()), i))?,
        }
        Some(Self { numbers, texts, kind: keys.kind() })
    }

    /// Calls `found` with the position of each element of `input` among the keys.
    fn look_up(&self, input: &Data, mut found: impl FnMut(Option<u32>)) -> Result<(), Fault> {
        let number = |bits: u64| self.numbers.get(&bits).copied();
        match input {
            _ if input.kind() != self.kind => return Err(Fault::shape("keys of another type")),
            Data::F32(items) => items.iter().for_each(|x| found(number(f32_bits(*x)))),
            Data::F64(items) => items.iter().for_each(|x| found(number(f64_bits(*x)))),
            Data::I64(items) => items.iter().for_each(|x| found(number(x.cast_unsigned()))),
            Data::I32(items) => items.iter().for_each(|x| found(number(i64::from(*x).cast_unsigned()))),
            Data::Bool(items) => items.iter().for_each(|x| found(number(u64::from(*x)))),
            Data::Text(items) => items.iter().for_each(|x| found(self.texts.get(x).copied())),
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.numbers.capacity() * 24 + self.texts.keys().map(|text| text.len() + 48).sum::<usize>()
    }
}

fn f32_bits(x: f32) -> u64 {
    let one = if x.is_nan() { f32::NAN } else { x + 0.0 };
    u64::from(one.to_bits())
}

fn f64_bits(x: f64) -> u64 {
    let one = if x.is_nan() { f64::NAN } else { x + 0.0 };
    one.to_bits()
}

/// Puts a value in place of each key.
#[derive(Debug)]
struct Encoder {
    table: Table,
    /// The values by position, and behind them the one for keys that are not there.
    values: Data,
}

impl Kernel for Encoder {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        output.shape.clone_from(&input.shape);
        fn put<T: Item>(table: &Table, values: &[T], input: &Data, output: &mut Data) -> Result<(), Fault> {
            let last = values.len() - 1;
            let items = T::fresh(output);
            items.reserve(input.len());
            table.look_up(input, |position| items.push(values[position.map_or(last, |position| position as usize)]))
        }
        let (table, input, output) = (&self.table, &input.data, &mut output.data);
        match &self.values {
            Data::F32(values) => put(table, values, input, output),
            Data::F64(values) => put(table, values, input, output),
            Data::I64(values) => put(table, values, input, output),
            Data::I32(values) => put(table, values, input, output),
            Data::Bool(values) => put(table, values, input, output),
            Data::Text(values) => {
                let texts = output.fresh_texts();
                let last = values.len() - 1;
                table.look_up(input, |position| {
                    texts.push(values.get(position.map_or(last, |position| position as usize)))
                })
            }
        }
    }

    fn bytes(&self) -> usize {
        self.table.bytes() + self.values.bytes()
    }
}

/// Keys, values and the value for other keys make an encoder.
fn encoder(node: &NodeView<'_>, keys: &Data, mut values: Data, default: &Data) -> Result<Compiled, LoadError> {
    node.expect(1..=1, 1)?;
    let fact = node.fact(0)?;
    if fact.kind != keys.kind() {
        let (expected, got) = (keys.kind().name(), fact.kind.name());
        return Err(node.invalid(format_args!("its keys are {expected}, but its input is {got}")));
    }
    node.same_length("values", values.len(), keys.len())?;
    match (&mut values, default) {
        (Data::F32(values), Data::F32(default)) => values.extend(default),
        (Data::F64(values), Data::F64(default)) => values.extend(default),
        (Data::I64(values), Data::I64(default)) => values.extend(default),
        (Data::I32(values), Data::I32(default)) => values.extend(default),
        (Data::Bool(values), Data::Bool(default)) => values.extend(default),
        (Data::Text(values), Data::Text(default)) => default.iter().for_each(|text| values.push(text)),
        (values, default) => {
            let (expected, got) = (values.kind().name(), default.kind().name());
            return Err(node.invalid(format_args!("its values are {expected}, but its default is {got}")));
        }
    }
    if values.len() != keys.len() + 1 {
        return Err(node.invalid("its default is not one value"));
    }
    let mut table = Table::new(keys, false).ok_or_else(|| node.too_large("too many keys"))?;
    if node.opset < 4 {
        // Only from there on is NaN a key like any other.
        match keys.kind() {
            Kind::F32 => table.numbers.remove(&f32_bits(f32::NAN)),
            Kind::F64 => table.numbers.remove(&f64_bits(f64::NAN)),
            _ => None,
        };
    }
    let kind = values.kind();
    Ok(Compiled::new(Encoder { table, values }, [fact.of_kind(kind)]))
}

/// One text.
fn text(bytes: &[u8]) -> Data {
    Data::Text(std::iter::once(bytes).collect())
}

/// Numbers from 0 on.
fn counted(length: usize) -> Data {
    Data::I64((0_i64..).take(length).collect())
}

pub(super) fn label_encoder(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    let unused = node.string("default_string")?.unwrap_or(b"_Unused");
    if node.opset < 2 {
        let classes = node
            .strings("classes_strings")?
            .ok_or_else(|| node.invalid("the attribute `classes_strings` is missing"))?;
        let numbers = counted(classes.len());
        let classes = Data::Text(classes);
        return match node.fact(0)?.kind {
            Kind::I64 => encoder(node, &numbers, classes, &text(unused)),
            _ => encoder(node, &classes, numbers, &Data::I64(vec![node.int("default_int64")?.unwrap_or(-1)])),
        };
    }
    let list = |what: &str| -> Result<Data, LoadError> {
        let mut found = Vec::new();
        found.extend(node.strings(&format!("{what}_strings"))?.map(Data::Text));
        found.extend(node.ints(&format!("{what}_int64s"))?.map(Data::I64));
        found.extend(node.floats(&format!("{what}_floats"))?.map(Data::F32));
        found.extend(node.tensor(&format!("{what}_tensor"))?.map(|value| value.data));
        match <[Data; 1]>::try_from(found) {
            Ok([list]) => Ok(list),
            Err(found) => Err(node.invalid(format_args!("{} attributes with {what}; expected one", found.len()))),
        }
    };
    let (keys, values) = (list("keys")?, list("values")?);
    let default = match node.tensor("default_tensor")? {
        Some(value) => value.data,
        None => match values.kind() {
            Kind::Text => text(unused),
            Kind::I64 => Data::I64(vec![node.int("default_int64")?.unwrap_or(-1)]),
            Kind::F32 => Data::F32(vec![node.float("default_float")?.unwrap_or(-0.0)]),
            Kind::F64 => Data::F64(vec![-0.0]),
            Kind::I32 => Data::I32(vec![-1]),
            Kind::Bool => Data::Bool(vec![false]),
        },
    };
    encoder(node, &keys, values, &default)
}

pub(super) fn category_mapper(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    let strings =
        node.strings("cats_strings")?.ok_or_else(|| node.invalid("the attribute `cats_strings` is missing"))?;
    let ints = node.ints("cats_int64s")?.ok_or_else(|| node.invalid("the attribute `cats_int64s` is missing"))?;
    let (strings, ints) = (Data::Text(strings), Data::I64(ints));
    match node.fact(0)?.kind {
        Kind::I64 => encoder(node, &ints, strings, &text(node.string("default_string")?.unwrap_or(b"_Unused"))),
        _ => encoder(node, &strings, ints, &Data::I64(vec![node.int("default_int64")?.unwrap_or(-1)])),
    }
}

/// A row of zeros with a one at the position of each category.
#[derive(Debug)]
struct OneHot {
    table: Table,
    n_categories: usize,
    /// Whether a category that is not there gives zeros alone; else it is the caller's error.
    zeros: bool,
}

impl Kernel for OneHot {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], scratch: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        output.shape.clone_from(&input.shape);
        output.shape.push(self.n_categories);
        let count = elements(&output.shape)?;
        let items = f32::fresh(&mut output.data);
        items.resize(count, 0.0);
        let mut rows = items.chunks_exact_mut(self.n_categories);
        let mut unknown = false;
        let found = |position: Option<u32>| match (rows.next(), position) {
            (Some(row), Some(position)) => row[position as usize] = 1.0,
            _ => unknown = true,
        };
        let whole;
        let keys = match &input.data {
            // Numbers of other types are whole numbers here: what stands behind the point is cut off.
            Data::F32(items) => {
                cut(items.iter().map(|x| f64::from(*x)), &mut scratch.value);
                &scratch.value.data
            }
            Data::F64(items) => {
                cut(items.iter().copied(), &mut scratch.value);
                &scratch.value.data
            }
            Data::I32(items) => {
                whole = Data::I64(items.iter().copied().map(i64::from).collect());
                &whole
            }
            other => other,
        };
        self.table.look_up(keys, found)?;
        if unknown && !self.zeros {
            return Err(Fault::Input("a category that the model does not know".to_owned()));
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.table.bytes()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "cutting is what was asked for")]
fn cut(items: impl Iterator<Item = f64>, value: &mut Value) {
    i64::fresh(&mut value.data).extend(items.map(|x| if x.is_nan() { i64::MIN } else { x as i64 }));
}

pub(super) fn one_hot_encoder(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=1, 1)?;
    let fact = node.fact(0)?;
    let categories = match (node.strings("cats_strings")?, node.ints("cats_int64s")?) {
        (Some(strings), None) => Data::Text(strings),
        (None, Some(ints)) => Data::I64(ints),
        _ => return Err(node.invalid("expected one of the attributes `cats_strings` and `cats_int64s`")),
    };
    if categories.len() == 0 {
        return Err(node.invalid("no categories"));
    }
    if (categories.kind() == Kind::Text) != (fact.kind == Kind::Text) || fact.kind == Kind::Bool {
        let (expected, got) = (categories.kind().name(), fact.kind.name());
        return Err(node.invalid(format_args!("its categories are {expected}, but its input is {got}")));
    }
    let zeros = node.int("zeros")?.unwrap_or(1) != 0;
    let n_categories = categories.len();
    let table = Table::new(&categories, true).ok_or_else(|| node.too_large("too many categories"))?;
    let shape = fact.shape.as_ref().map(|shape| shape.iter().copied().chain([Size::Fixed(n_categories)]).collect());
    let made = Fact::new(Kind::F32, shape);
    Ok(Compiled::new(OneHot { table, n_categories, zeros }, [made]))
}

/// The labels of a classifier: as they are given out, and as people read them.
#[derive(Debug)]
pub(super) enum Labels {
    Ints(Vec<i64>),
    Texts(Texts),
}

impl Labels {
    /// Reads them from the attributes `{name}_int64s` (or `{name}_ints`) and `{name}_strings`.
    pub(super) fn read(node: &NodeView<'_>, name: &str) -> Result<Option<Self>, LoadError> {
        let ints = match node.ints(&format!("{name}_int64s"))? {
            Some(ints) => Some(ints),
            None => node.ints(&format!("{name}_ints"))?,
        };
        let texts = node.strings(&format!("{name}_strings"))?;
        match (ints.filter(|ints| !ints.is_empty()), texts.filter(|texts| texts.len() > 0)) {
            (Some(_), Some(_)) => Err(node.invalid("labels of both kinds")),
            (Some(ints), None) => Ok(Some(Self::Ints(ints))),
            (None, Some(texts)) => Ok(Some(Self::Texts(texts))),
            (None, None) => Ok(None),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Ints(ints) => ints.len(),
            Self::Texts(texts) => texts.len(),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Ints(_) => Kind::I64,
            Self::Texts(_) => Kind::Text,
        }
    }

    /// The labels in words, as many as fit into a line or two.
    pub(super) fn words(&self) -> String {
        const MOST: usize = 64;
        let mut words: Vec<String> = match self {
            Self::Ints(ints) => ints.iter().take(MOST).map(i64::to_string).collect(),
            Self::Texts(texts) => {
                texts.iter().take(MOST).map(|text| crate::graph::node::short(&String::from_utf8_lossy(text))).collect()
            }
        };
        if self.len() > MOST {
            words.push(format!("and {} more", self.len() - MOST));
        }
        words.join(", ")
    }

    /// Writes the labels at `positions` as a list.
    pub(super) fn write(&self, positions: impl ExactSizeIterator<Item = usize>, output: &mut Value) {
        output.shape = Sizes::from_slice(&[positions.len()]);
        match self {
            Self::Ints(ints) => i64::fresh(&mut output.data).extend(positions.map(|position| ints[position])),
            Self::Texts(texts) => {
                let target = output.data.fresh_texts();
                positions.for_each(|position| target.push(texts.get(position)));
            }
        }
    }
}
