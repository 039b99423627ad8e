//! What millrace-vision promises, through its public functions.

#![cfg(test)]

mod area;
mod decode;
mod input;
mod memory;
mod picture;
mod pixel;
mod resize;
mod warp;

use std::fs;

use millrace_testkit::fixture;
use millrace_vision::Rgb8;

/// The bytes of a file under `fixtures/images`.
fn image(name: &str) -> Vec<u8> {
    let path = fixture("images").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The picture in `fixtures/images/expected/NAME.ppm`.
fn expected(name: &str) -> Rgb8 {
    let bytes = image(&format!("expected/{name}.ppm"));
    let mut parts = bytes.splitn(4, |byte| *byte == b'\n');
    let mut line = || parts.next().expect("a PPM has three lines and its pixels");
    assert_eq!(line(), b"P6");
    let size = String::from_utf8(line().to_vec()).unwrap();
    let (width, height) = size.split_once(' ').unwrap();
    assert_eq!(line(), b"255");
    Rgb8::new(width.parse().unwrap(), height.parse().unwrap(), line().to_vec()).unwrap()
}

/// The largest and the mean difference of two pictures of one size.
fn differences(left: &Rgb8, right: &Rgb8) -> (u8, f64) {
    assert_eq!((left.width(), left.height()), (right.width(), right.height()));
    let each = || left.pixels().iter().zip(right.pixels()).map(|(a, b)| a.abs_diff(*b));
    let sum: f64 = each().map(f64::from).sum();
    (each().max().unwrap(), sum / left.pixels().len() as f64)
}

/// A picture whose values look random and are the same every time.
fn noise(width: usize, height: usize, seed: u64) -> Rgb8 {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    Rgb8::new(width, height, (0..width * height * 3).map(|_| next()).collect()).unwrap()
}
