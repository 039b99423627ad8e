//! What cannot be reached from outside without a picture of gigabytes.

use super::IntegralImage;
use crate::{Normalization, Rgb8};

#[test]
fn sums_that_wrapped_around_give_the_same_means() {
    let picture =
        Rgb8::new(90, 70, (0..90 * 70 * 3).map(|index| u8::try_from(index * 7 % 251).unwrap()).collect()).unwrap();
    let table = IntegralImage::new(&picture);
    // As if a bright picture of 16 million pixels lay above and to the left: every entry stands close before the end of u32.
    let mut wrapped = table.clone();
    wrapped.sums.iter_mut().for_each(|sum| *sum = sum.wrapping_add(u32::MAX - 40_000));
    assert!(wrapped.sums.iter().any(|sum| *sum < 100_000) && wrapped.sums.iter().any(|sum| *sum > u32::MAX - 100_000));
    for (width, height) in [(1, 1), (7, 9), (100, 80)] {
        let resized = |table: &IntegralImage| {
            let mut out = vec![f32::NAN; 3 * width * height];
            table.area_resize(picture.whole(), width, height, &Normalization::NONE, &mut out);
            out
        };
        assert_eq!(resized(&wrapped), resized(&table), "{width}x{height}");
    }
    assert_eq!(wrapped.sum(picture.whole()), table.sum(picture.whole()));
}
