//! Similarity transforms and what they cut out of a picture.

use millrace_vision::{Layout, MAX_SAMPLES, Rgb8, Similarity, warp};
use proptest::prelude::{prop_assert, proptest};

use crate::noise;

fn warped(picture: &Rgb8, transform: &Similarity, width: usize, height: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; 3 * width * height];
    warp(picture, transform, width, height, Layout::Interleaved, &mut out);
    out
}

fn pixels(picture: &Rgb8) -> Vec<f32> {
    picture.pixels().iter().copied().map(f32::from).collect()
}

/// The sum of squared distances that a least-squares fit makes smallest.
fn misfit(transform: &Similarity, from: &[[f64; 2]], to: &[[f64; 2]]) -> f64 {
    let distance = |(p, q): (&[f64; 2], &[f64; 2])| {
        let [x, y] = transform.apply(*p);
        (x - q[0]).powi(2) + (y - q[1]).powi(2)
    };
    from.iter().zip(to).map(distance).sum()
}

proptest! {
    #[test]
    fn a_known_transform_is_found_again(
        a in -3.0..3.0_f64, b in 0.1..3.0_f64, tx in -500.0..500.0_f64, ty in -500.0..500.0_f64,
        points in proptest::collection::vec((-300.0..300.0_f64, -300.0..300.0_f64), 3..9),
    ) {
        let known = Similarity::new(a, b, tx, ty).unwrap();
        let from: Vec<_> = points.iter().map(|(x, y)| [*x, *y]).collect();
        let spread = from.iter().map(|p| (p[0] - from[0][0]).abs() + (p[1] - from[0][1]).abs()).fold(0.0, f64::max);
        let to: Vec<_> = from.iter().map(|point| known.apply(*point)).collect();
        let found = Similarity::estimate(&from, &to).unwrap();
        let worst = found.coefficients().iter().zip(known.coefficients()).map(|(f, k)| (f - k).abs()).fold(0.0, f64::max);
        prop_assert!(spread < 1.0 || worst < 1e-6, "{found:?} for {known:?}");
    }

    #[test]
    fn no_neighbour_of_the_estimate_fits_better(
        from in proptest::collection::vec((-9.0..9.0_f64, -9.0..9.0_f64), 5),
        to in proptest::collection::vec((-9.0..9.0_f64, -9.0..9.0_f64), 5),
    ) {
        let [from, to] = [from, to].map(|points| points.iter().map(|(x, y)| [*x, *y]).collect::<Vec<_>>());
        if let Some(found) = Similarity::estimate(&from, &to) {
            let best = misfit(&found, &from, &to);
            for index in 0..4 {
                for step in [-1e-3, 1e-3] {
                    let mut moved = found.coefficients();
                    moved[index] += step;
                    let [a, b, tx, ty] = moved;
                    let Some(moved) = Similarity::new(a, b, tx, ty) else { continue };
                    prop_assert!(misfit(&moved, &from, &to) >= best - 1e-9);
                }
            }
        }
    }

    #[test]
    fn the_inverse_leads_back(a in -3.0..3.0_f64, b in 0.1..3.0_f64, tx in -99.0..99.0_f64, ty in -99.0..99.0_f64) {
        let transform = Similarity::new(a, b, tx, ty).unwrap();
        let [x, y] = transform.inverse().apply(transform.apply([12.5, -7.0]));
        prop_assert!((x - 12.5).abs() < 1e-9 && (y + 7.0).abs() < 1e-9);
        prop_assert!((transform.scale() * transform.inverse().scale() - 1.0).abs() < 1e-12);
    }
}

#[test]
fn points_that_fix_nothing_give_no_transform() {
    let line = [[0.0, 0.0], [1.0, 1.0]];
    assert_eq!(Similarity::estimate(&line, &line[..1]), None);
    assert_eq!(Similarity::estimate(&line[..1], &line[..1]), None);
    assert_eq!(Similarity::estimate(&[[5.0, 5.0]; 3], &[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), None);
    assert_eq!(Similarity::estimate(&[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], &[[5.0, 5.0]; 3]), None);
    assert_eq!(Similarity::estimate(&[[f64::NAN, 0.0], [1.0, 0.0]], &line), None);
    assert_eq!(Similarity::new(0.0, 0.0, 1.0, 1.0), None);
    assert_eq!(Similarity::new(1.0, 0.0, f64::INFINITY, 0.0), None);
    assert_eq!(Similarity::new(1e-200, 0.0, 0.0, 0.0), None);
}

#[test]
fn the_identity_gives_the_picture_in_either_layout() {
    let picture = noise(7, 5, 1);
    assert_eq!(warped(&picture, &Similarity::IDENTITY, 7, 5), pixels(&picture));
    let mut planes = vec![f32::NAN; 3 * 35];
    warp(&picture, &Similarity::IDENTITY, 7, 5, Layout::Planar, &mut planes);
    for (index, pixel) in pixels(&picture).chunks_exact(3).enumerate() {
        assert_eq!([planes[index], planes[35 + index], planes[70 + index]], pixel);
    }
}

#[test]
fn a_shift_moves_pixels_and_repeats_the_edge() {
    let picture = noise(4, 3, 2);
    let shifted = warped(&picture, &Similarity::new(1.0, 0.0, 2.0, 0.0).unwrap(), 4, 3);
    for y in 0..3 {
        for (x, from) in [0, 0, 0, 1].into_iter().enumerate() {
            assert_eq!(shifted[(y * 4 + x) * 3..][..3], picture.pixel(from, y).map(f32::from), "{x},{y}");
        }
    }
    // Half a pixel: the mean of two neighbours.
    let half = warped(&picture, &Similarity::new(1.0, 0.0, 0.5, 0.0).unwrap(), 4, 3);
    let [left, right] = [picture.pixel(0, 1), picture.pixel(1, 1)].map(|pixel| f32::from(pixel[0]));
    assert_eq!(half[(4 + 1) * 3], f32::midpoint(left, right));
}

#[test]
fn a_quarter_turn_turns() {
    let picture = noise(3, 3, 4);
    // (x, y) goes to (2 - y, x).
    let turned = warped(&picture, &Similarity::new(0.0, 1.0, 2.0, 0.0).unwrap(), 3, 3);
    for y in 0..3 {
        for x in 0..3 {
            let want = picture.pixel(x, y).map(f32::from);
            let got = &turned[(x * 3 + (2 - y)) * 3..][..3];
            assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-4), "{x},{y}");
        }
    }
}

#[test]
fn shrinking_by_a_whole_number_averages_whole_pixels() {
    // At scale 1/k and a shift that keeps edges on edges, the k x k samples fall on the centres of k x k pixels.
    for k in [2_usize, 3, 5] {
        let picture = noise(4 * k, 4 * k, 5);
        let scale = 1.0 / k as f64;
        let shift = (scale - 1.0) / 2.0;
        let small = warped(&picture, &Similarity::new(scale, 0.0, shift, shift).unwrap(), 4, 4);
        for y in 0..4 {
            for x in 0..4 {
                let covered = (0..k * k).map(|i| f64::from(picture.pixel(x * k + i % k, y * k + i / k)[1]));
                let mean = covered.sum::<f64>() / (k * k) as f64;
                assert!((f64::from(small[(y * 4 + x) * 3 + 1]) - mean).abs() < 1e-4, "1/{k} at {x},{y}");
            }
        }
    }
}

#[test]
fn a_very_small_scale_costs_a_bounded_number_of_samples() {
    let picture = noise(20, 20, 6);
    let tiny = Similarity::new(1e-9, 0.0, 0.0, 0.0).unwrap();
    let out = warped(&picture, &tiny, 3, 2);
    assert!(out.iter().all(|value| (0.0..=255.0).contains(value)));
    // The corner of the piece shows the whole picture and much more: samples to either side read its corners.
    assert_eq!(MAX_SAMPLES, 64);
    assert!(
        out[(3 + 2) * 3..].iter().zip(picture.pixel(19, 19)).all(|(got, want)| (got - f32::from(want)).abs() < 1e-3)
    );
}

#[test]
fn a_picture_of_one_row_or_column_is_read_too() {
    for (width, height) in [(1, 1), (1, 5), (5, 1)] {
        let picture = noise(width, height, 9);
        assert_eq!(warped(&picture, &Similarity::IDENTITY, width, height), pixels(&picture));
    }
}

/// Bilinear reading as the rule is written, in f64 throughout.
fn by_the_rule(picture: &Rgb8, transform: &Similarity, width: usize, height: usize) -> Vec<f64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
    let k = (1.0 / transform.scale() - 1e-6).ceil().max(1.0) as usize;
    let back = transform.inverse();
    let sample = |x: f64, y: f64, channel: usize| {
        let [x, y] = back.apply([x, y]);
        let (x, y) = (x.clamp(0.0, (picture.width() - 1) as f64), y.clamp(0.0, (picture.height() - 1) as f64));
        let (fx, fy) = (x - x.floor(), y - y.floor());
        let at = |dx: usize, dy: usize| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the picture")]
            let (x, y) = ((x as usize + dx).min(picture.width() - 1), (y as usize + dy).min(picture.height() - 1));
            f64::from(picture.pixel(x, y)[channel])
        };
        at(0, 0) * (1.0 - fx) * (1.0 - fy)
            + at(1, 0) * fx * (1.0 - fy)
            + at(0, 1) * (1.0 - fx) * fy
            + at(1, 1) * fx * fy
    };
    let offset = |j: usize| (j as f64 + 0.5) / k as f64 - 0.5;
    let mut out = Vec::new();
    for index in 0..width * height * 3 {
        let (x, y, channel) = ((index / 3 % width) as f64, (index / 3 / width) as f64, index % 3);
        let all = (0..k * k).map(|i| sample(x + offset(i % k), y + offset(i / k), channel));
        out.push(all.sum::<f64>() / (k * k) as f64);
    }
    out
}

proptest! {
    #[test]
    fn any_piece_is_what_the_rule_says(
        (width, height) in (1_usize..30, 1_usize..30),
        (scale, angle) in (0.1..3.0_f64, -3.2..3.2_f64),
        (tx, ty) in (-20.0..20.0_f64, -20.0..20.0_f64),
        seed in 0_u64..100,
    ) {
        let picture = noise(width, height, seed);
        let transform = Similarity::new(scale * angle.cos(), scale * angle.sin(), tx, ty).unwrap();
        let got = warped(&picture, &transform, 8, 7);
        for (got, want) in got.iter().zip(by_the_rule(&picture, &transform, 8, 7)) {
            prop_assert!((f64::from(*got) - want).abs() < 1e-4, "{got} for {want}");
        }
    }
}

#[test]
fn points_far_outside_read_the_nearest_edge() {
    let picture = noise(3, 2, 8);
    let far = warped(&picture, &Similarity::new(1.0, 0.0, -1e12, 1e12).unwrap(), 1, 1);
    assert_eq!(far, picture.pixel(2, 0).map(f32::from));
}
