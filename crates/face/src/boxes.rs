//! Boxes of candidates: which of them mean the same face, how a network's answer moves them, which pixels they hold.
//!
//! Arithmetic in f32, step by step as the detector was published (Zhang et al., "Joint Face Detection and Alignment Using
//! Multitask Cascaded Convolutional Networks", 2016) and as its ports to other frameworks kept it; where stages differ by
//! one pixel, so do these functions.

use millrace_vision::Crop;

/// A box in pixels of the picture: left, top, right, bottom.
pub type Corners = [f32; 4];

/// Something with a box and a score.
pub trait Ranked {
    /// The box.
    fn corners(&self) -> Corners;

    /// How sure the network is; more is better.
    fn score(&self) -> f32;
}

/// How the overlap of two boxes is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// Their intersection divided by their union.
    Union,
    /// Their intersection divided by the smaller one, all widths and heights one pixel longer.
    Smaller,
}

/// Whether widths and heights count one pixel more than the corners are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edges {
    /// They are `x2 - x1` and `y2 - y1`: the first stage.
    Apart,
    /// They are `x2 - x1 + 1` and `y2 - y1 + 1`: the other stages.
    Inclusive,
}

impl Edges {
    const fn extra(self) -> f32 {
        match self {
            Self::Apart => 0.0,
            Self::Inclusive => 1.0,
        }
    }
}

/// Puts `items` into falling order of score, ties in the order they came, and leaves the best `most`.
pub fn rank<T: Ranked>(items: &mut Vec<T>, most: usize) {
    items.sort_by(|a, b| b.score().total_cmp(&a.score()));
    items.truncate(most);
}

/// Drops every box that overlaps a better one by more than `threshold`; `items` stand in falling order of score.
///
/// Costs time in the order of the items times the items left.
pub fn suppress<T: Ranked>(items: &mut Vec<T>, threshold: f32, overlap: Overlap) {
    let mut kept: Vec<Measured> = Vec::with_capacity(items.len());
    items.retain(|item| {
        let item = Measured::new(item.corners(), overlap);
        let is_new = !kept.iter().any(|better| better.overlap(&item, overlap) > threshold);
        if is_new {
            kept.push(item);
        }
        is_new
    });
}

/// A box with its area.
struct Measured {
    corners: Corners,
    area: f32,
}

impl Measured {
    fn new(corners @ [x1, y1, x2, y2]: Corners, overlap: Overlap) -> Self {
        let extra = extra(overlap);
        Self { corners, area: (x2 - x1 + extra) * (y2 - y1 + extra) }
    }

    fn overlap(&self, other: &Self, overlap: Overlap) -> f32 {
        let extra = extra(overlap);
        let [x1, y1, x2, y2] = self.corners;
        let [other_x1, other_y1, other_x2, other_y2] = other.corners;
        let width = (x2.min(other_x2) - x1.max(other_x1) + extra).max(0.0);
        let height = (y2.min(other_y2) - y1.max(other_y1) + extra).max(0.0);
        let intersection = width * height;
        match overlap {
            Overlap::Union => intersection / (self.area + other.area - intersection),
            Overlap::Smaller => intersection / self.area.min(other.area),
        }
    }
}

const fn extra(overlap: Overlap) -> f32 {
    match overlap {
        Overlap::Union => Edges::Apart.extra(),
        Overlap::Smaller => Edges::Inclusive.extra(),
    }
}

/// Width and height of a box.
pub(crate) fn sides([x1, y1, x2, y2]: Corners, edges: Edges) -> [f32; 2] {
    [x2 - x1 + edges.extra(), y2 - y1 + edges.extra()]
}

/// The box moved as the network says: each corner by that part of the width or height.
#[must_use]
pub fn regressed(corners: Corners, regression: [f32; 4], edges: Edges) -> Corners {
    let [width, height] = sides(corners, edges);
    let sides = [width, height, width, height];
    std::array::from_fn(|index| corners[index] + regression[index] * sides[index])
}

/// The square with the same centre and the box's longer side.
#[must_use]
pub fn squared(corners: Corners) -> Corners {
    let [width, height] = sides(corners, Edges::Apart);
    let side = width.max(height);
    let x1 = corners[0] + width * 0.5 - side * 0.5;
    let y1 = corners[1] + height * 0.5 - side * 0.5;
    [x1, y1, x1 + side, y1 + side]
}

/// The pixels of a box in a picture of `width` x `height`, or `None` where it holds none.
///
/// The corners are cut off towards zero and count pixels from 1. At the picture's edge the crop is smaller; nothing is
/// padded.
pub fn crop(corners: Corners, width: usize, height: usize) -> Option<Crop> {
    let [x1, y1, x2, y2] = corners.map(truncated);
    let (left, top) = (x1.max(1) - 1, y1.max(1) - 1);
    let (right, bottom) = (x2.min(width), y2.min(height));
    (left < right && top < bottom).then_some(Crop { left, top, right, bottom })
}

/// Cut off towards zero; 0 for what is negative or not a number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "casts of floats saturate, as is meant here"
)]
fn truncated(number: f32) -> usize {
    number as usize
}

#[cfg(test)]
mod tests {
    use millrace_vision::Crop;
    use proptest::prelude::*;

    use super::{Corners, Edges, Overlap, Ranked, crop, rank, regressed, squared, suppress};

    #[derive(Debug, Clone, PartialEq)]
    struct Scored(Corners, f32);

    impl Ranked for Scored {
        fn corners(&self) -> Corners {
            self.0
        }

        fn score(&self) -> f32 {
            self.1
        }
    }

    /// The scores of what is left.
    fn left(boxes: &[(Corners, f32)], threshold: f32, overlap: Overlap) -> Vec<f32> {
        let mut items: Vec<_> = boxes.iter().map(|&(corners, score)| Scored(corners, score)).collect();
        rank(&mut items, usize::MAX);
        suppress(&mut items, threshold, overlap);
        items.iter().map(|item| item.1).collect()
    }

    #[test]
    fn the_better_of_two_alike_stays() {
        let boxes = [([0.0, 0.0, 10.0, 10.0], 0.7), ([1.0, 0.0, 11.0, 10.0], 0.9), ([50.0, 0.0, 60.0, 10.0], 0.8)];
        assert_eq!(left(&boxes, 0.5, Overlap::Union), [0.9, 0.8]);
        assert_eq!(left(&boxes, 0.9, Overlap::Union), [0.9, 0.8, 0.7]);
    }

    #[test]
    fn what_was_dropped_drops_nothing() {
        // The second overlaps both others, which do not overlap each other.
        let chain = [([0.0, 0.0, 10.0, 10.0], 0.9), ([4.0, 0.0, 14.0, 10.0], 0.8), ([8.0, 0.0, 18.0, 10.0], 0.7)];
        assert_eq!(left(&chain, 0.3, Overlap::Union), [0.9, 0.7]);
    }

    #[test]
    fn overlap_at_the_threshold_is_allowed() {
        let half = [([0.0, 0.0, 10.0, 10.0], 0.9), ([0.0, 0.0, 10.0, 5.0], 0.8)];
        assert_eq!(left(&half, 0.5, Overlap::Union), [0.9, 0.8]);
        assert_eq!(left(&half, 0.49, Overlap::Union), [0.9]);
        // A box inside another overlaps the smaller of them wholly.
        assert_eq!(left(&half, 0.7, Overlap::Smaller), [0.9]);
    }

    #[test]
    fn ties_stay_in_order_and_only_the_best_are_kept() {
        let mut items: Vec<_> =
            [0.5, 0.9, 0.5, 0.1].iter().zip(0_u8..).map(|(&s, i)| Scored([i.into(); 4], s)).collect();
        rank(&mut items, 3);
        assert_eq!(items.iter().map(|item| item.0[0]).collect::<Vec<_>>(), [1.0, 0.0, 2.0]);
    }

    #[test]
    fn a_regression_is_in_parts_of_the_sides() {
        let moved = regressed([10.0, 20.0, 30.0, 60.0], [0.1, -0.1, 0.5, 0.0], Edges::Apart);
        assert_eq!(moved, [12.0, 16.0, 40.0, 60.0]);
        let moved = regressed([0.0, 0.0, 9.0, 19.0], [0.1, 0.1, 0.1, 0.1], Edges::Inclusive);
        assert_eq!(moved, [1.0, 2.0, 10.0, 21.0]);
    }

    #[test]
    fn a_square_keeps_its_centre() {
        assert_eq!(squared([10.0, 10.0, 20.0, 40.0]), [0.0, 10.0, 30.0, 40.0]);
    }

    #[test]
    fn a_crop_counts_from_one_and_stays_in_the_picture() {
        assert_eq!(crop([1.9, 2.0, 5.2, 6.8], 100, 100), Some(Crop { left: 0, top: 1, right: 5, bottom: 6 }));
        assert_eq!(crop([-7.5, -0.5, 5.0, 500.0], 100, 80), Some(Crop { left: 0, top: 0, right: 5, bottom: 80 }));
        for nothing in [[-9.0, 1.0, 0.5, 9.0], [101.0, 1.0, 120.0, 9.0], [5.0, 1.0, 4.0, 9.0], [f32::NAN; 4]] {
            assert_eq!(crop(nothing, 100, 100), None, "{nothing:?}");
        }
        let all = crop([f32::NEG_INFINITY, f32::NEG_INFINITY, f32::INFINITY, f32::INFINITY], 7, 5);
        assert_eq!(all, Some(Crop { left: 0, top: 0, right: 7, bottom: 5 }));
    }

    proptest! {
        #[test]
        fn any_crop_lies_inside(corners: [f32; 4], width in 1_usize..50, height in 1_usize..50) {
            if let Some(crop) = crop(corners, width, height) {
                prop_assert!(crop.fits(width, height));
            }
        }

        #[test]
        fn no_two_left_overlap_and_every_dropped_one_overlaps_a_better_one(
            boxes in prop::collection::vec(((0_u8..40, 0_u8..40, 1_u8..20, 1_u8..20), 0_u8..10), 0..40),
        ) {
            let mut all: Vec<_> = boxes.iter().map(|&((x, y, w, h), score)| {
                let (x, y) = (f32::from(x), f32::from(y));
                Scored([x, y, x + f32::from(w), y + f32::from(h)], f32::from(score))
            }).collect();
            rank(&mut all, usize::MAX);
            let mut kept = all.clone();
            suppress(&mut kept, 0.4, Overlap::Union);
            for (index, item) in kept.iter().enumerate() {
                prop_assert!(kept[..index].iter().all(|better| share(better.0, item.0) <= 0.4));
            }
            for item in all.iter().filter(|item| !kept.contains(item)) {
                prop_assert!(kept.iter().any(|better| better.1 >= item.1 && share(better.0, item.0) > 0.4));
            }
        }
    }

    /// Intersection over union, side by side: how many whole numbers both boxes span. The corners are whole numbers.
    fn share(a: Corners, b: Corners) -> f32 {
        let spans = |corners: Corners, axis: usize| {
            move |unit: &u8| corners[axis] <= f32::from(*unit) && f32::from(*unit) < corners[axis + 2]
        };
        let count = |axis| (0_u8..60).filter(spans(a, axis)).filter(spans(b, axis)).count() as f32;
        let area = |[x1, y1, x2, y2]: Corners| (x2 - x1) * (y2 - y1);
        let both = count(0) * count(1);
        both / (area(a) + area(b) - both)
    }
}
