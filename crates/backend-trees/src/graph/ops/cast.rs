//! Changing the type of elements.

use std::io::Write;

use millrace_core::LoadError;
use millrace_onnx::ElementType;

use crate::graph::constant;
use crate::graph::kernel::{Compiled, Fault, Inputs, Kernel, Scratch};
use crate::graph::node::NodeView;
use crate::graph::value::{Data, Item, Kind, Texts, Value};

#[derive(Debug)]
struct Cast(Kind);

/// A number that can become any other.
trait Number: Item {
    fn to_f32(self) -> f32;
    fn to_f64(self) -> f64;
    fn to_i64(self) -> i64;
    fn to_i32(self) -> i32;
    fn is_set(self) -> bool;
    fn write(self, target: &mut Vec<u8>);
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Number for $type {
            fn to_f32(self) -> f32 {
                self as f32
            }

            fn to_f64(self) -> f64 {
                self as f64
            }

            fn to_i64(self) -> i64 {
                self as i64
            }

            fn to_i32(self) -> i32 {
                self as i32
            }

            fn is_set(self) -> bool {
                self != 0 as $type
            }

            fn write(self, target: &mut Vec<u8>) {
                Written::write(self, target);
            }
        }
    )*};
}

#[expect(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    reason = "a cast is what was asked for: it rounds, cuts towards zero, and keeps to the type's limits"
)]
mod conversions {
    use super::{Number, Written};

    numbers! { f32, f64, i64, i32 }
}

/// A number in the words that `ONNX Runtime` has for it.
trait Written {
    fn write(self, target: &mut Vec<u8>);
}

impl Written for i64 {
    fn write(self, target: &mut Vec<u8>) {
        print(target, format_args!("{self}"));
    }
}

impl Written for i32 {
    fn write(self, target: &mut Vec<u8>) {
        print(target, format_args!("{self}"));
    }
}

impl Written for f32 {
    fn write(self, target: &mut Vec<u8>) {
        write_float(f64::from(self), 8, target);
    }
}

impl Written for f64 {
    fn write(self, target: &mut Vec<u8>) {
        write_float(self, 17, target);
    }
}

fn print(target: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    target.write_fmt(text).unwrap_or_else(|error| unreachable!("a vector takes all bytes: {error}"));
}

/// Like C's `%.{digits}g`: so many significant digits, without the zeros at the end, with a power of ten where the number is
/// very small or very large.
fn write_float(x: f64, digits: usize, target: &mut Vec<u8>) {
    if x.is_nan() {
        return print(target, format_args!("NaN"));
    }
    if x.is_infinite() {
        return print(target, format_args!("{}", if x > 0.0 { "INF" } else { "-INF" }));
    }
    let scientific = format!("{x:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let limit = i32::try_from(digits).unwrap_or(i32::MAX);
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= limit {
        let sign = if exponent < 0 { '-' } else { '+' };
        return print(target, format_args!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs()));
    }
    let decimals = usize::try_from(limit - 1 - exponent).unwrap_or(0);
    print(target, format_args!("{}", trimmed(&format!("{x:.decimals$}"))));
}

fn numbers<T: Number>(items: &[T], to: Kind, output: &mut Data) {
    match to {
        Kind::F32 => f32::fresh(output).extend(items.iter().map(|item| item.to_f32())),
        Kind::F64 => f64::fresh(output).extend(items.iter().map(|item| item.to_f64())),
        Kind::I64 => i64::fresh(output).extend(items.iter().map(|item| item.to_i64())),
        Kind::I32 => i32::fresh(output).extend(items.iter().map(|item| item.to_i32())),
        Kind::Bool => bool::fresh(output).extend(items.iter().map(|item| item.is_set())),
        Kind::Text => {
            let texts = output.fresh_texts();
            items.iter().for_each(|item| texts.push_with(|target| item.write(target)));
        }
    }
}

/// Reads numbers out of texts.
fn texts(texts: &Texts, to: Kind, output: &mut Data) -> Result<(), Fault> {
    fn parse<T: Item + std::str::FromStr>(texts: &Texts, output: &mut Data) -> Result<(), Fault> {
        let items = T::fresh(output);
        for (index, text) in texts.iter().enumerate() {
            let number = str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
            items.push(number.ok_or_else(|| Fault::Input(format!("the text at {index} is no {}", T::KIND.name())))?);
        }
        Ok(())
    }
    match to {
        Kind::F32 => parse::<f32>(texts, output),
        Kind::F64 => parse::<f64>(texts, output),
        Kind::I64 => parse::<i64>(texts, output),
        Kind::I32 => parse::<i32>(texts, output),
        Kind::Bool | Kind::Text => Err(Fault::shape("texts are no truth values")),
    }
}

impl Kernel for Cast {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        output.shape.clone_from(&input.shape);
        let target = &mut output.data;
        if input.data.kind() == self.0 {
            target.copy_from(&input.data);
            return Ok(());
        }
        match &input.data {
            Data::F32(items) => numbers(items, self.0, target),
            Data::F64(items) => numbers(items, self.0, target),
            Data::I64(items) => numbers(items, self.0, target),
            Data::I32(items) => numbers(items, self.0, target),
            Data::Bool(items) => match self.0 {
                Kind::F32 => f32::fresh(target).extend(items.iter().map(|item| if *item { 1.0 } else { 0.0 })),
                Kind::F64 => f64::fresh(target).extend(items.iter().map(|item| if *item { 1.0 } else { 0.0 })),
                Kind::I64 => i64::fresh(target).extend(items.iter().map(|item| i64::from(*item))),
                Kind::I32 => i32::fresh(target).extend(items.iter().map(|item| i32::from(*item))),
                Kind::Bool | Kind::Text => {
                    let texts = target.fresh_texts();
                    items.iter().for_each(|item| texts.push(if *item { b"1" } else { b"0" }));
                }
            },
            Data::Text(items) => texts(items, self.0, target)?,
        }
        Ok(())
    }
}

pub(super) fn cast(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=1, 1)?;
    let fact = node.fact(0)?;
    let to = node.int("to")?.ok_or_else(|| node.invalid("the attribute `to` is missing"))?;
    let element = ElementType::from_onnx(to);
    let kind = constant::kind(element)
        .ok_or_else(|| node.unsupported(format_args!("a cast to {} (type {to})", element.name())))?;
    if fact.kind == Kind::Text && kind == Kind::Bool {
        return Err(node.unsupported("a cast from BYTES to BOOL"));
    }
    let mut made = fact.of_kind(kind);
    // Sizes stay sizes: what `Shape` said is still known.
    made.contents.clone_from(&fact.contents);
    if !matches!(kind, Kind::I64 | Kind::I32) {
        made.contents = None;
    }
    Ok(Compiled::new(Cast(kind), [made]))
}
