//! How fast TensorFlow Serving's JSON is read and written and the Open Inference Protocol's is read, for an image-sized
//! tensor and for a small row.
//!
//! `cargo bench -p millrace-benches --bench json`; throughput is megabytes of JSON text per second.

use std::fmt::Write;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millrace_core::{DType, Dim, Shape, Signature, Signatures, Tensor, TensorSpec};
use millrace_json::{DEFAULT_MAX_DEPTH, Form, Reader, decode_predict, encode_predict};

const IMAGE: [usize; 3] = [3, 224, 224];

fn signature(dtype: DType, row: &[usize]) -> Signature {
    let sizes =
        || std::iter::once(Dim::symbol("N")).chain(row.iter().map(|&size| Dim::Fixed(size))).collect::<Vec<_>>();
    let inputs = vec![TensorSpec::new("x", dtype, sizes())];
    Signature::new(inputs, vec![TensorSpec::new("y", dtype, sizes())]).expect("names differ and symbols are bound")
}

/// Numbers in 0..1, always the same ones.
fn noise(n: usize) -> impl Iterator<Item = f32> {
    let mut state = 1_u32;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from_bits(0x3f80_0000 | (state >> 9)) - 1.0
    })
    .take(n)
}

/// One row of `sizes` as text, its numbers printed by `print`.
fn body(sizes: &[usize], print: fn(f32) -> String) -> String {
    let n = sizes.iter().product::<usize>();
    let mut text = "{\"instances\": [".to_owned();
    for (at, number) in noise(n).enumerate() {
        let widths = || (0..sizes.len()).map(|axis| sizes[axis..].iter().product::<usize>());
        if at > 0 {
            widths().filter(|width| at.is_multiple_of(*width)).for_each(|_| text.push(']'));
            text.push_str(", ");
        }
        widths().filter(|width| at.is_multiple_of(*width)).for_each(|_| text.push('['));
        write!(text, "{}", print(number)).expect("a string takes all text");
    }
    text + &"]".repeat(sizes.len()) + "]}"
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("json_decode");
    let image = signature(DType::Fp32, &IMAGE);
    let small = signature(DType::Fp32, &[10]);
    let ints = signature(DType::Int64, &IMAGE);
    let texts: [(&str, &Signature, String); 5] = [
        ("image_f32_short", &image, body(&IMAGE, |number| format!("{number:.6}"))),
        ("image_f32_shortest", &image, body(&IMAGE, |number| format!("{number}"))),
        ("image_f32_wide", &image, body(&IMAGE, |number| format!("{}", f64::from(number)))),
        ("image_i64", &ints, body(&IMAGE, |number| format!("{:.0}", number * 255.0))),
        ("ten_f32", &small, body(&[10], |number| format!("{number:.4}"))),
    ];
    for (name, signature, text) in texts {
        let signatures = Signatures::single(signature.clone());
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| decode_predict(black_box(text.as_bytes()), &signatures, DEFAULT_MAX_DEPTH).expect("a good body"));
        });
    }
    group.finish();
}

/// The `data` of an OIP request: the same elements in one list, or nested as the shape is.
fn elements(c: &mut Criterion) {
    let mut group = c.benchmark_group("json_elements");
    let spec = TensorSpec::new("x", DType::Fp32, [1, 3, 224, 224].map(Dim::Fixed));
    let shape = Shape::new(&[1, 3, 224, 224]).expect("it fits in memory");
    let nested = body(&IMAGE, |number| format!("{number}")).replace("{\"instances\": ", "").replace('}', "");
    let flat = format!("[{}]", nested.replace(['[', ']'], ""));
    for (name, text) in [("image_f32_flat", flat), ("image_f32_nested", nested)] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                Reader::new(black_box(text.as_bytes()), DEFAULT_MAX_DEPTH).elements(&spec, Some(&shape)).expect("good")
            });
        });
    }
    group.finish();
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("json_encode");
    for (name, row) in [("image_f32", &IMAGE[..]), ("ten_f32", &[10][..]), ("one_f32", &[][..])] {
        let signature = signature(DType::Fp32, row);
        let sizes = [&[1], row].concat();
        let elements = noise(sizes.iter().product()).collect();
        let tensor = [Tensor::from_vec(&sizes, elements).expect("as many elements as the sizes say")];
        let encode = || encode_predict(Form::Rows, &signature, black_box(&tensor)).expect("floats have a JSON form");
        group.throughput(Throughput::Bytes(encode().len() as u64));
        group.bench_function(name, |b| b.iter(encode));
    }
    group.finish();
}

criterion_group!(benches, decode, elements, encode);
criterion_main!(benches);
