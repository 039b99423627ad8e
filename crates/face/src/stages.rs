//! The three stages of detection between their networks: what an answer says about the candidates, and which pixels the next
//! network is asked about. Numbers in, numbers out; the networks are called elsewhere.
//!
//! The published detector ([`boxes`](crate::boxes) names it). "Candidates" are boxes that may yet turn out to be faces.

use millrace_vision::{Crop, IntegralImage, Normalization};

use crate::boxes::{Corners, Edges, Overlap, Ranked, crop, rank, regressed, sides, squared, suppress};
use crate::pyramid::{CELL, Level, STRIDE};

/// What every detection network sees: `(value - 127.5) / 128`.
pub const PIXELS: Normalization = Normalization::uniform(127.5, 1.0 / 128.0);
/// The side of the crops that the second network looks at.
pub const REFINE_SIDE: usize = 24;
/// The side of the crops that the third network looks at.
pub const OUTPUT_SIDE: usize = 48;

/// The overlap above which two windows of one level mean the same face.
const SAME_ON_LEVEL: f32 = 0.5;
/// The overlap above which two candidates mean the same face.
const SAME: f32 = 0.7;

/// A box that may hold a face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The box.
    pub corners: Corners,
    /// The network's score, 0 to 1.
    pub score: f32,
    /// By which parts of its sides the network would move the box.
    pub regression: [f32; 4],
}

/// A face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Face {
    /// The box in pixels: left, top, right, bottom. It may reach past the picture.
    pub corners: Corners,
    /// The score, 0 to 1.
    pub score: f32,
    /// Left eye, right eye, nose tip, left and right corner of the mouth, each x and y in pixels; "left" in the picture.
    pub landmarks: [[f32; 2]; 5],
}

impl Ranked for Candidate {
    fn corners(&self) -> Corners {
        self.corners
    }

    fn score(&self) -> f32 {
        self.score
    }
}

impl Ranked for Face {
    fn corners(&self) -> Corners {
        self.corners
    }

    fn score(&self) -> f32 {
        self.score
    }
}

/// The first network's answer for one level: one window for each of `width` x `height` places.
#[derive(Debug, Clone, Copy)]
pub struct Windows<'a> {
    /// Windows in a row.
    pub width: usize,
    /// The scores, row by row.
    pub scores: &'a [f32],
    /// Four planes of regressions, each row by row.
    pub regressions: &'a [f32],
}

/// First stage, one level: the windows that score at least `threshold`, as candidates in falling order of score; the best
/// `most` of them. Those that mean the same face are still among them.
///
/// # Panics
/// When there are not four times as many regressions as scores, or a row has no windows.
pub fn windows_with_faces(level: &Level, windows: &Windows<'_>, threshold: f32, most: usize) -> Vec<Candidate> {
    let count = windows.scores.len();
    assert_eq!(windows.regressions.len(), 4 * count, "four regressions for each of {count} windows");
    let over = windows.scores.iter().enumerate().filter(|(_, score)| **score >= threshold);
    let mut candidates: Vec<Candidate> = over
        .map(|(index, &score)| Candidate {
            corners: window(index % windows.width, index / windows.width, level),
            score,
            regression: std::array::from_fn(|plane| windows.regressions[plane * count + index]),
        })
        .collect();
    rank(&mut candidates, most);
    candidates
}

/// Where the window in column `x` and row `y` of a level lies in the picture.
#[expect(clippy::cast_possible_truncation, reason = "the published detector divides in f32")]
fn window(x: usize, y: usize, level: &Level) -> Corners {
    let scale = level.scale as f32;
    let (left, top) = (float(x) * f32::from(STRIDE), float(y) * f32::from(STRIDE));
    // Windows begin one pixel late: the detector's first version counted pixels from 1.
    let (first, last) = (1.0, f32::from(CELL));
    [(left + first) / scale, (top + first) / scale, (left + last) / scale, (top + last) / scale].map(f32::floor)
}

/// Exact up to 2^24; no level of a picture within the limits has more windows in a row.
fn float(count: usize) -> f32 {
    count as f32
}

/// First stage, end of a level: one candidate for each face.
pub fn settle_level(candidates: &mut Vec<Candidate>) {
    suppress(candidates, SAME_ON_LEVEL, Overlap::Union);
}

/// First stage, end: the candidates of all levels, in the order of the levels, become at most `most` square boxes in falling
/// order of score.
pub fn proposals(mut candidates: Vec<Candidate>, most: usize) -> Vec<Corners> {
    rank(&mut candidates, most);
    suppress(&mut candidates, SAME, Overlap::Union);
    candidates.iter().map(|it| squared(regressed(it.corners, it.regression, Edges::Apart))).collect()
}

/// Second stage, beginning: which of the boxes the network thinks faces, in falling order of score.
///
/// # Panics
/// When the lists differ in length: two scores (no face, face) and four regressions for each box.
pub fn refined(boxes: &[Corners], scores: &[f32], regressions: &[f32], threshold: f32) -> Vec<Candidate> {
    assert_eq!((scores.len(), regressions.len()), (2 * boxes.len(), 4 * boxes.len()), "for {} boxes", boxes.len());
    let answers = scores.as_chunks::<2>().0.iter().zip(regressions.as_chunks::<4>().0);
    let candidates = boxes.iter().zip(answers).map(|(&corners, (&[_, score], &regression))| Candidate {
        corners,
        score,
        regression,
    });
    let mut candidates: Vec<_> = candidates.filter(|candidate| candidate.score > threshold).collect();
    rank(&mut candidates, usize::MAX);
    candidates
}

/// Second stage, end: one square box for each face.
pub fn settle_refined(mut candidates: Vec<Candidate>) -> Vec<Corners> {
    suppress(&mut candidates, SAME, Overlap::Union);
    candidates.iter().map(|it| squared(regressed(it.corners, it.regression, Edges::Inclusive))).collect()
}

/// Third stage, beginning: which of the boxes are faces, with their landmarks, in falling order of score.
///
/// # Panics
/// When the lists differ in length: two scores (no face, face), four regressions and ten landmark coordinates (five x, then
/// five y, in parts of the box) for each box.
pub fn faces(boxes: &[Corners], scores: &[f32], regressions: &[f32], landmarks: &[f32], threshold: f32) -> Vec<Face> {
    let lengths = (scores.len(), regressions.len(), landmarks.len());
    assert_eq!(lengths, (2 * boxes.len(), 4 * boxes.len(), 10 * boxes.len()), "for {} boxes", boxes.len());
    let answers = scores.as_chunks::<2>().0.iter().zip(regressions.as_chunks::<4>().0);
    let answers = answers.zip(landmarks.as_chunks::<10>().0);
    let mut faces: Vec<Face> = boxes
        .iter()
        .zip(answers)
        .filter(|(_, ((score, _), _))| score[1] > threshold)
        .map(|(&corners, ((score, &regression), points))| {
            // The landmarks are parts of the box as it was before its own regression.
            let ([width, height], [x1, y1, ..]) = (sides(corners, Edges::Inclusive), corners);
            let point = |index: usize| [width * points[index] + x1 - 1.0, height * points[5 + index] + y1 - 1.0];
            Face {
                corners: regressed(corners, regression, Edges::Inclusive),
                score: score[1],
                landmarks: std::array::from_fn(point),
            }
        })
        .collect();
    rank(&mut faces, usize::MAX);
    faces
}

/// Third stage, end: each face once, at most `most`.
pub fn settle_faces(faces: &mut Vec<Face>, most: usize) {
    suppress(faces, SAME, Overlap::Smaller);
    faces.truncate(most);
}

/// Leaves the boxes that hold pixels of a picture of `width` x `height`, and says which.
pub fn crops(boxes: &mut Vec<Corners>, width: usize, height: usize) -> Vec<Crop> {
    let mut crops = Vec::with_capacity(boxes.len());
    boxes.retain(|&corners| {
        let crop = crop(corners, width, height);
        crops.extend(crop);
        crop.is_some()
    });
    crops
}

/// The whole picture at a level's size: planes `[3, height, width]`.
pub fn level_pixels(picture: &IntegralImage, level: &Level) -> Vec<f32> {
    let whole = Crop { left: 0, top: 0, right: picture.width(), bottom: picture.height() };
    let mut planes = vec![0.0; 3 * level.width * level.height];
    picture.area_resize(whole, level.width, level.height, &PIXELS, &mut planes);
    planes
}

/// The crops at `side` x `side` pixels: `[crops, 3, side, side]`.
pub fn crop_pixels(picture: &IntegralImage, crops: &[Crop], side: usize) -> Vec<f32> {
    let row = 3 * side * side;
    let mut rows = vec![0.0; crops.len() * row];
    for (crop, row) in crops.iter().zip(rows.chunks_exact_mut(row)) {
        picture.area_resize(*crop, side, side, &PIXELS, row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::{Windows, crops, faces, refined, windows_with_faces};
    use crate::pyramid::Level;

    const LEVEL: Level = Level { scale: 0.6, width: 16, height: 14 };

    #[test]
    fn a_window_is_where_its_place_says() {
        let scores = [0.1, 0.6, 0.59, 0.9, 0.2, f32::NAN];
        let regressions: Vec<f32> = (0_u8..24).map(f32::from).collect();
        let windows = Windows { width: 3, scores: &scores, regressions: &regressions };
        let found = windows_with_faces(&LEVEL, &windows, 0.6, 10);
        assert_eq!(found.iter().map(|it| it.score).collect::<Vec<_>>(), [0.9, 0.6]);
        // Row 1, column 0; row 0, column 1. Divided by 0.6 and rounded down.
        assert_eq!(found[0].corners, [1.0, 5.0, 20.0, 23.0]);
        assert_eq!(found[1].corners, [5.0, 1.0, 23.0, 20.0]);
        assert_eq!(found[0].regression, [3.0, 9.0, 15.0, 21.0]);
        assert_eq!(windows_with_faces(&LEVEL, &windows, 0.6, 1), found[..1]);
    }

    #[test]
    fn a_score_must_be_above_the_threshold() {
        let boxes = [[0.0; 4], [1.0; 4], [2.0; 4]];
        let scores = [0.3, 0.7, 0.0, 0.8, f32::NAN, f32::NAN];
        let kept = refined(&boxes, &scores, &[0.0; 12], 0.7);
        assert_eq!(kept.iter().map(|it| it.corners[0]).collect::<Vec<_>>(), [1.0]);
    }

    #[test]
    fn landmarks_are_parts_of_the_box_before_it_moves() {
        let boxes = [[10.0, 20.0, 19.0, 39.0]];
        let points = [0.0, 1.0, 0.5, 0.0, 1.0, 0.0, 0.0, 0.5, 1.0, 1.0];
        let found = faces(&boxes, &[0.0, 1.0], &[0.5, 0.0, 0.0, 0.0], &points, 0.7);
        assert_eq!(found[0].corners, [15.0, 20.0, 19.0, 39.0]);
        assert_eq!(found[0].landmarks, [[9.0, 19.0], [19.0, 19.0], [14.0, 29.0], [9.0, 39.0], [19.0, 39.0]]);
    }

    #[test]
    fn boxes_without_pixels_are_dropped_with_their_crops() {
        let mut boxes = vec![[-20.0, 1.0, -5.0, 9.0], [1.0, 1.0, 5.0, 5.0]];
        assert_eq!(crops(&mut boxes, 10, 10).len(), 1);
        assert_eq!(boxes, [[1.0, 1.0, 5.0, 5.0]]);
    }
}
