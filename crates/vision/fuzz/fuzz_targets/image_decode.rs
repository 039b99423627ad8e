//! Any bytes as a picture: no panic, not even a contained one (libFuzzer stops at every panic); what is decoded keeps to the
//! limits, and goes through resizing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_vision::{Filter, IntegralImage, Limits, Normalization, decode, resize_and_crop, size};

fuzz_target!(|file: &[u8]| {
    let limits = Limits { max_pixels: 1 << 20, ..Limits::default() };
    let claimed = size(file, &limits);
    let Ok(picture) = decode(file, &limits) else { return };
    assert_eq!(claimed, Ok((picture.width(), picture.height())));
    assert!(picture.width() * picture.height() <= limits.max_pixels);
    let middle = resize_and_crop(&picture, 16, 12, 12, Filter::Bilinear).expect("every decoded picture can be resized");
    assert_eq!((middle.width(), middle.height()), (12, 12));
    if picture.width() * picture.height() < 1 << 16 {
        let mut planes = vec![0.0; 3 * 24 * 24];
        let table = IntegralImage::new(&picture);
        table.area_resize(picture.whole(), 24, 24, &Normalization::NONE, &mut planes);
        assert!(planes.iter().all(|value| (0.0..=255.0).contains(value)));
    }
});
