//! What a photograph of 512 x 512 costs around the networks of face detection, and a picture in front of a classifier.
//!
//! `cargo bench -p millrace-benches --bench vision`. One core; decoding is `decode`, everything that face detection resizes
//! is `face`, and must stay below 3 ms together.

use std::fs;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use millrace_testkit::fixture;
use millrace_vision::{
    Crop, Filter, IntegralImage, Layout, Limits, Normalization, Rgb8, Similarity, decode, resize_and_crop, warp,
};

const SIDE: usize = 512;
const FACE: Normalization = Normalization::uniform(127.5, 0.007_812_5);

/// Pixels that look random and are the same every time.
fn noise() -> Rgb8 {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    let pixels = std::iter::repeat_with(next).take(3 * SIDE * SIDE).collect();
    Rgb8::new(SIDE, SIDE, pixels).expect("three bytes a pixel")
}

/// Crops of 20 to 200 pixels all over the picture, as many as a photograph with some faces gives.
fn crops() -> impl Iterator<Item = Crop> {
    (0..250).map(|index| {
        let (left, top, side) = (index * 37 % 312, index * 53 % 312, 20 + index * 29 % 181);
        Crop { left, top, right: left + side, bottom: top + side }
    })
}

/// The levels of the pyramid: factor 0.709 from faces of 20 pixels upwards.
fn levels() -> Vec<usize> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a small side")]
    let level = |scale: &f64| (SIDE as f64 * scale + 1.0) as usize;
    let scales = std::iter::successors(Some(0.6), |scale| Some(scale * 0.709));
    scales.take_while(|scale| SIDE as f64 * scale >= 12.0).map(|scale| level(&scale)).collect()
}

fn face(c: &mut Criterion) {
    let mut group = c.benchmark_group("vision_face");
    let picture = noise();
    let mut out = vec![0.0_f32; 3 * SIDE * SIDE];
    group.bench_function("table", |b| b.iter(|| IntegralImage::new(black_box(&picture))));
    let table = IntegralImage::new(&picture);
    let pyramid = |table: &IntegralImage, out: &mut [f32]| {
        for level in levels() {
            table.area_resize(picture.whole(), level, level, &FACE, &mut out[..3 * level * level]);
        }
    };
    let small = |table: &IntegralImage, out: &mut [f32]| {
        for crop in crops() {
            table.area_resize(crop, 24, 24, &FACE, &mut out[..3 * 24 * 24]);
        }
    };
    group.bench_function("pyramid", |b| b.iter(|| pyramid(black_box(&table), &mut out)));
    group.bench_function("250_crops", |b| b.iter(|| small(black_box(&table), &mut out)));
    group.bench_function("together", |b| {
        b.iter(|| {
            let table = IntegralImage::new(black_box(&picture));
            pyramid(&table, &mut out);
            small(&table, &mut out);
        });
    });
    for (name, scale) in [("chip_of_150", 1.0), ("chip_of_400", 0.375)] {
        let transform = Similarity::new(scale, 0.1 * scale, -20.0, -20.0).expect("the scale is not 0");
        group.bench_function(name, |b| {
            b.iter(|| warp(black_box(&picture), &transform, 150, 150, Layout::Planar, &mut out[..3 * 150 * 150]));
        });
    }
    group.finish();
}

fn classifier(c: &mut Criterion) {
    let mut group = c.benchmark_group("vision_classifier");
    let picture = noise();
    for (name, filter) in [("bilinear", Filter::Bilinear), ("lanczos", Filter::Lanczos3)] {
        group.bench_function(format!("shorter_side_crop_224_{name}"), |b| {
            b.iter(|| resize_and_crop(black_box(&picture), 256, 224, 224, filter).expect("224 fits into 256"));
        });
    }
    group.finish();
}

fn decoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("vision_decode");
    for name in ["rgb.png", "interlaced.png", "baseline.jpg", "progressive.jpg"] {
        let file = fs::read(fixture("images").join(name)).expect("the fixture is there");
        group.bench_function(name, |b| b.iter(|| decode(black_box(&file), &Limits::default()).expect("it is sound")));
    }
    group.finish();
}

criterion_group!(benches, face, classifier, decoding);
criterion_main!(benches);
