//! Layouts, colours and normalisation.

use millrace_vision::{Color, Layout, Normalization, PixelFormat, Rgb8};
use proptest::prelude::{prop_assert_eq, proptest};

use crate::noise;

fn written(picture: &Rgb8, format: PixelFormat) -> Vec<f32> {
    let mut out = vec![f32::NAN; format.len(picture.width(), picture.height())];
    format.write(picture, &mut out);
    out
}

fn format(layout: Layout, color: Color) -> PixelFormat {
    PixelFormat { layout, color, normalization: Normalization::NONE }
}

proptest! {
    #[test]
    fn each_value_lies_where_its_layout_says(width in 1_usize..9, height in 1_usize..9, seed in 0_u64..100) {
        let picture = noise(width, height, seed);
        let planar = written(&picture, format(Layout::Planar, Color::Bgr));
        let interleaved = written(&picture, format(Layout::Interleaved, Color::Rgb));
        for y in 0..height {
            for x in 0..width {
                let pixel = picture.pixel(x, y).map(f32::from);
                let at = y * width + x;
                prop_assert_eq!([2, 1, 0].map(|plane| planar[plane * width * height + at]), pixel);
                prop_assert_eq!(&interleaved[3 * at..3 * at + 3], &pixel[..]);
            }
        }
    }

    #[test]
    fn planes_give_what_the_picture_gives(width in 1_usize..9, height in 1_usize..9, seed in 0_u64..100) {
        let picture = noise(width, height, seed);
        let planes = written(&picture, format(Layout::Planar, Color::Rgb));
        for color in [Color::Rgb, Color::Bgr, Color::Grey] {
            for layout in [Layout::Planar, Layout::Interleaved] {
                let normalization = Normalization { mean: [1.0, 2.0, 3.0], scale: [0.5, 0.25, 2.0] };
                let format = PixelFormat { layout, color, normalization };
                let mut out = vec![f32::NAN; format.len(width, height)];
                format.write_planes(&planes, width * height, &mut out);
                prop_assert_eq!(out, written(&picture, format));
            }
        }
    }
}

#[test]
fn grey_stays_exactly_as_it_was_and_colours_weigh_as_the_eye_does() {
    for value in 0..=255_u8 {
        let picture = Rgb8::new(1, 1, vec![value; 3]).unwrap();
        assert_eq!(written(&picture, format(Layout::Planar, Color::Grey)), [f32::from(value)]);
    }
    let grey =
        |pixel: [u8; 3]| written(&Rgb8::new(1, 1, pixel.to_vec()).unwrap(), format(Layout::Planar, Color::Grey))[0];
    for (pixel, weight) in [([255, 0, 0], 0.299), ([0, 255, 0], 0.587), ([0, 0, 255], 0.114)] {
        assert!((grey(pixel) - 255.0 * weight).abs() < 0.01);
    }
}

#[test]
fn means_and_scales_go_by_the_networks_order_of_channels() {
    let picture = Rgb8::new(1, 1, vec![10, 20, 30]).unwrap();
    let normalization = Normalization { mean: [30.0, 19.0, 8.0], scale: [1.0, 2.0, 0.5] };
    let format = PixelFormat { layout: Layout::Planar, color: Color::Bgr, normalization };
    assert_eq!(written(&picture, format), [0.0, 2.0, 1.0]);
}
