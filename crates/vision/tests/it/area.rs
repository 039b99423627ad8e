//! Area resizing against its definition, written out.

use millrace_vision::{Crop, IntegralImage, Normalization, Rgb8, area_resize};
use proptest::prelude::{prop_assert_eq, proptest};

use crate::noise;

/// The definition: the mean of the inputs floor(i*n/m) to ceil((i+1)*n/m) - 1, in f64, rounded to f32, then normalised.
fn by_definition(picture: &Rgb8, crop: Crop, width: usize, height: usize, normalization: &Normalization) -> Vec<f32> {
    let covered = |start: usize, n: usize, i: usize, m: usize| start + i * n / m..start + ((i + 1) * n).div_ceil(m);
    let mut out = Vec::new();
    for channel in 0..3 {
        for y in 0..height {
            for x in 0..width {
                let (mut sum, mut count) = (0.0, 0.0);
                for row in covered(crop.top, crop.height(), y, height) {
                    for column in covered(crop.left, crop.width(), x, width) {
                        sum += f64::from(picture.pixel(column, row)[channel]);
                        count += 1.0;
                    }
                }
                #[expect(clippy::cast_possible_truncation, reason = "the rounding that the definition has")]
                let mean = (sum / count) as f32;
                out.push((mean - normalization.mean[channel]) * normalization.scale[channel]);
            }
        }
    }
    out
}

fn by_table(table: &IntegralImage, crop: Crop, width: usize, height: usize, normalization: &Normalization) -> Vec<f32> {
    let mut out = vec![f32::NAN; 3 * width * height];
    table.area_resize(crop, width, height, normalization, &mut out);
    out
}

const FACE: Normalization = Normalization::uniform(127.5, 0.007_812_5);

proptest! {
    #[test]
    fn any_crop_at_any_size_is_the_plain_mean(
        (width, height) in (1_usize..60, 1_usize..60),
        edges in (0.0..1.0, 0.0..1.0, 0.0..1.0, 0.0..1.0),
        (out_width, out_height) in (1_usize..70, 1_usize..70),
        seed in 0_u64..1000,
    ) {
        let picture = noise(width, height, seed);
        let span = |side: usize, from: f64, to: f64| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a small side")]
            let [from, to] = [from, to].map(|share| (share * side as f64) as usize);
            (from.min(to), from.max(to) + 1)
        };
        let (left, right) = span(width, edges.0, edges.1);
        let (top, bottom) = span(height, edges.2, edges.3);
        let crop = Crop { left, top, right, bottom };
        let got = by_table(&IntegralImage::new(&picture), crop, out_width, out_height, &FACE);
        prop_assert_eq!(got, by_definition(&picture, crop, out_width, out_height, &FACE));
    }

    #[test]
    fn one_resize_without_a_table_is_the_same(
        (width, height) in (1_usize..60, 1_usize..60),
        (out_width, out_height) in (1_usize..70, 1_usize..70),
    ) {
        let picture = noise(width, height, 7);
        let mut out = vec![f32::NAN; 3 * out_width * out_height];
        area_resize(&picture, out_width, out_height, &mut out);
        let table = IntegralImage::new(&picture);
        prop_assert_eq!(out, by_table(&table, picture.whole(), out_width, out_height, &Normalization::NONE));
    }
}

#[test]
fn cells_too_large_for_f32_sums_are_exact_too() {
    // One cell of 300 x 300, and cells wider than one tile of the table.
    for (width, height, out_width, out_height) in [(300, 300, 1, 1), (9001, 20, 2, 1), (20, 9001, 1, 2)] {
        let picture = noise(width, height, 3);
        let got = by_table(&IntegralImage::new(&picture), picture.whole(), out_width, out_height, &Normalization::NONE);
        assert_eq!(got, by_definition(&picture, picture.whole(), out_width, out_height, &Normalization::NONE));
    }
}

#[test]
fn the_table_takes_as_many_bytes_as_it_says() {
    assert_eq!(IntegralImage::n_bytes(512, 512), 4 * (3 * 513 * 513 + 1));
    let table = IntegralImage::new(&noise(5, 4, 0));
    assert_eq!((table.width(), table.height()), (5, 4));
}

#[test]
#[should_panic(expected = "of 5x4")]
fn a_crop_outside_the_picture_panics() {
    let crop = Crop { left: 0, top: 0, right: 6, bottom: 4 };
    by_table(&IntegralImage::new(&noise(5, 4, 0)), crop, 2, 2, &Normalization::NONE);
}
