//! The classification extension: an output's largest elements as texts, `value:index` each.
//!
//! A third part, the label, would come from a file of labels; no model here has one.

use std::cmp::Ordering;
use std::fmt::Display;
use std::io::{self, Write};
use std::num::NonZeroUsize;

use bytes::Bytes;
use millrace_core::{DType, Element, Reason, Refusal, Strings, Tensor};

/// The most texts of one output: each takes several times the room of its element.
const MOST_TEXTS: usize = 1 << 20;

/// The `most` largest elements of `tensor` as a `BYTES` tensor, of each row where it `is_batched` and of the whole else:
/// shape `[rows, k]` or `[k]`, where k is `most` or all there are. Largest first; of equals the earlier one first; what is
/// not a number last.
///
/// # Errors
/// `TooLarge` when that is more than a million texts; `BackendBroken` when the tensor's elements have no order or no text:
/// such outputs are refused when they are asked for.
pub fn classify(tensor: &Tensor, most: NonZeroUsize, is_batched: bool) -> Result<Tensor, Refusal> {
    let broken = |why: String| Refusal::new(Reason::BackendBroken, why);
    let rows = if is_batched { tensor.shape().rows().unwrap_or(1) } else { 1 };
    let width = if is_batched { tensor.shape().row_elements() } else { tensor.shape().n_elements() };
    let k = most.get().min(width);
    if k.saturating_mul(rows) > MOST_TEXTS {
        let text = format!("a classification of {rows} times {k} elements is above the limit of {MOST_TEXTS}");
        return Err(Refusal::new(Reason::TooLarge, text));
    }
    let strings = match tensor.dtype() {
        DType::Uint8 => integers::<u8>(tensor, width, k),
        DType::Uint16 => integers::<u16>(tensor, width, k),
        DType::Uint32 => integers::<u32>(tensor, width, k),
        DType::Uint64 => integers::<u64>(tensor, width, k),
        DType::Int8 => integers::<i8>(tensor, width, k),
        DType::Int16 => integers::<i16>(tensor, width, k),
        DType::Int32 => integers::<i32>(tensor, width, k),
        DType::Int64 => integers::<i64>(tensor, width, k),
        DType::Fp32 => best(tensor, width, k, |a: &f32, b: &f32| largest_first(f64::from(*a), f64::from(*b)), float),
        DType::Fp64 => best(tensor, width, k, |a: &f64, b: &f64| largest_first(*a, *b), float),
        DType::Bool | DType::Fp16 | DType::Bf16 | DType::Bytes => None,
    };
    let strings = strings.ok_or_else(|| broken(format!("an output of {} cannot be classified", tensor.dtype())))?;
    let sizes: &[usize] = if is_batched { &[rows, k] } else { &[k] };
    Tensor::from_strings(sizes, strings).map_err(|error| broken(error.to_string()))
}

fn integers<T: Element + Ord + Display + Copy>(tensor: &Tensor, width: usize, k: usize) -> Option<Strings> {
    best(tensor, width, k, |a: &T, b: &T| b.cmp(a), |text, value: T| write!(text, "{value}"))
}

/// The first `k` of every `width` elements by `order`, as texts.
fn best<T: Element + Copy>(
    tensor: &Tensor,
    width: usize,
    k: usize,
    order: impl Fn(&T, &T) -> Ordering,
    write_value: impl Fn(&mut Vec<u8>, T) -> io::Result<()>,
) -> Option<Strings> {
    let elements = tensor.elements::<T>().ok()?;
    let (mut payload, mut offsets) = (Vec::new(), vec![0]);
    for row in elements.chunks_exact(width.max(1)) {
        let by_order = |a: &usize, b: &usize| order(&row[*a], &row[*b]).then(a.cmp(b));
        let mut indices: Vec<usize> = (0..row.len()).collect();
        if k < indices.len() {
            indices.select_nth_unstable_by(k, by_order);
            indices.truncate(k);
        }
        indices.sort_unstable_by(by_order);
        for index in indices {
            write_value(&mut payload, row[index]).and_then(|()| write!(payload, ":{index}")).ok()?;
            offsets.push(payload.len());
        }
    }
    Strings::new(Bytes::from(payload), offsets)
}

fn largest_first(a: f64, b: f64) -> Ordering {
    a.is_nan().cmp(&b.is_nan()).then_with(|| b.partial_cmp(&a).unwrap_or(Ordering::Equal))
}

/// Six decimals, as C's `%f` has them.
fn float(text: &mut Vec<u8>, value: impl Into<f64>) -> io::Result<()> {
    let value = value.into();
    if value.is_nan() { text.write_all(b"nan") } else { write!(text, "{value:.6}") }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use millrace_core::{Element, Reason, Tensor};
    use proptest::prelude::*;

    use super::classify;

    fn texts<T: Element>(
        sizes: &[usize],
        elements: Vec<T>,
        most: usize,
        is_batched: bool,
    ) -> (Vec<usize>, Vec<String>) {
        let tensor = Tensor::from_vec(sizes, elements).unwrap();
        let classified = classify(&tensor, NonZeroUsize::new(most).unwrap(), is_batched).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (classified.shape().to_vec(), classified.strings().unwrap().iter().map(text).collect())
    }

    fn expect((got_sizes, got_texts): (Vec<usize>, Vec<String>), sizes: &[usize], wanted: &[&str]) {
        let got: Vec<_> = got_texts.iter().map(String::as_str).collect();
        assert_eq!((got_sizes.as_slice(), got.as_slice()), (sizes, wanted));
    }

    #[test]
    fn the_largest_come_first_with_six_decimals() {
        expect(texts(&[3], vec![0.1_f32, 0.7, 0.2], 2, false), &[2], &["0.700000:1", "0.200000:2"]);
        expect(texts(&[3], vec![-1_i64, 5, 5], 9, false), &[3], &["5:1", "5:2", "-1:0"]);
        expect(texts(&[2], vec![250_u8, 3], 1, false), &[1], &["250:0"]);
    }

    #[test]
    fn each_row_of_a_batch_has_its_own() {
        let got = texts(&[2, 2], vec![1.0_f64, 2.0, 4.0, 3.0], 1, true);
        expect(got, &[2, 1], &["2.000000:1", "4.000000:0"]);
        expect(texts(&[2, 2], vec![1_i32, 2, 4, 3], 1, false), &[1], &["4:2"]);
        expect(texts::<f32>(&[2, 0], vec![], 3, true), &[2, 0], &[]);
        expect(texts(&[2], vec![1_u64, 2], 3, true), &[2, 1], &["1:0", "2:0"]);
    }

    #[test]
    fn what_is_not_a_number_is_last() {
        let got = texts(&[4], vec![f32::NAN, f32::NEG_INFINITY, f32::INFINITY, 0.0], 4, false);
        expect(got, &[4], &["inf:2", "0.000000:3", "-inf:1", "nan:0"]);
    }

    #[test]
    fn more_texts_than_a_million_are_refused() {
        let tensor = Tensor::from_vec(&[1, (1 << 20) + 1], vec![0_u8; (1 << 20) + 1]).unwrap();
        let all = NonZeroUsize::new(usize::MAX).unwrap();
        assert_eq!(classify(&tensor, all, true).unwrap_err().reason(), Reason::TooLarge);
        let few = NonZeroUsize::new(2).unwrap();
        assert_eq!(classify(&tensor, few, true).unwrap().shape()[..], [1, 2]);
    }

    proptest! {
        #[test]
        fn the_best_are_those_of_a_whole_sort(elements in prop::collection::vec(any::<i16>(), 1..40), most in 1_usize..50) {
            let mut sorted: Vec<(i16, usize)> = elements.iter().copied().zip(0..).collect();
            sorted.sort_by_key(|(value, index)| (-i32::from(*value), *index));
            let wanted: Vec<_> = sorted.iter().take(most).map(|(value, index)| format!("{value}:{index}")).collect();
            prop_assert_eq!(texts(&[elements.len()], elements, most, false).1, wanted);
        }
    }
}
