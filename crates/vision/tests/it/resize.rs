//! Ordinary resizing: close to Pillow's, whatever the size.

use millrace_vision::{Filter, MAX_SIDE, ResizeError, Rgb8, resize, resize_and_crop};

use crate::{differences, expected, noise};

const FILTERS: [(Filter, &str); 5] = [
    (Filter::Nearest, "nearest"),
    (Filter::Box, "box"),
    (Filter::Bilinear, "bilinear"),
    (Filter::CatmullRom, "bicubic"),
    (Filter::Lanczos3, "lanczos"),
];

#[test]
fn every_filter_agrees_with_pillow_but_for_rounding() {
    let picture = expected("rgb.png");
    for (filter, name) in FILTERS {
        // Sizes at which no new pixel's centre falls on an edge: which neighbour is nearest there is a matter of taste.
        for (kind, width, height) in [("shrunk", 16, 12), ("enlarged", 64, 32)] {
            let resized = resize(&picture, width, height, filter).unwrap();
            // Either rounds to 8 bits between its two steps, but one begins with rows and one with columns.
            let (largest, mean) = differences(&resized, &expected(&format!("{kind}_{name}")));
            assert!(largest <= 2 && mean <= 0.2, "{kind} by {name}: {largest} at most, {mean} on average");
        }
    }
}

#[test]
fn the_middle_is_what_resizing_and_then_cropping_gives() {
    let middle = resize_and_crop(&expected("rgb.png"), 16, 12, 14, Filter::Bilinear).unwrap();
    let (largest, _) = differences(&middle, &expected("middle"));
    assert!(largest <= 1, "{largest}");
}

#[test]
fn the_same_size_is_the_same_picture() {
    let picture = noise(13, 9, 1);
    for (filter, name) in FILTERS {
        assert_eq!(resize(&picture, 13, 9, filter).unwrap(), picture, "{name}");
    }
    assert_eq!(resize_and_crop(&noise(9, 9, 1), 9, 9, 9, Filter::Bilinear).unwrap(), noise(9, 9, 1));
}

#[test]
fn an_even_colour_stays_even() {
    let even = Rgb8::new(31, 7, [200, 100, 50].repeat(31 * 7)).unwrap();
    for (filter, name) in FILTERS {
        for (width, height) in [(5, 40), (100, 3), (1, 1)] {
            let resized = resize(&even, width, height, filter).unwrap();
            assert!(resized.pixels().chunks_exact(3).all(|pixel| pixel == [200, 100, 50]), "{name} {width}x{height}");
        }
    }
}

#[test]
fn a_very_long_picture_is_cut_to_its_middle() {
    for (width, height) in [(3000, 2), (2, 3000)] {
        let mut pixels = noise(width, height, 4).into_pixels();
        // The middle is white; the rest must not come near it.
        let length = width.max(height);
        for index in length / 2 - 8..length / 2 + 8 {
            for row in 0..2 {
                let at = if width > height { row * width + index } else { index * width + row };
                pixels[3 * at..3 * at + 3].fill(255);
            }
        }
        let middle = resize_and_crop(&Rgb8::new(width, height, pixels).unwrap(), 4, 4, 4, Filter::Bilinear).unwrap();
        assert!(middle.pixels().iter().all(|value| *value == 255), "{width}x{height}");
    }
}

#[test]
fn sides_outside_the_range_are_refused() {
    let picture = noise(4, 4, 0);
    assert_eq!(resize(&picture, 0, 4, Filter::Box), Err(ResizeError::Side { side: 0 }));
    assert_eq!(resize(&picture, 4, MAX_SIDE + 1, Filter::Box), Err(ResizeError::Side { side: MAX_SIDE + 1 }));
    let wide = Rgb8::new(MAX_SIDE + 1, 1, vec![0; 3 * (MAX_SIDE + 1)]).unwrap();
    assert_eq!(resize(&wide, 4, 4, Filter::Box), Err(ResizeError::Side { side: MAX_SIDE + 1 }));
    let text = resize_and_crop(&picture, 8, 9, 8, Filter::Box).unwrap_err().to_string();
    assert_eq!(text, "9x8 pixels cannot be cut out of a picture whose shorter side is 8");
}
