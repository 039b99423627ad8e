//! Puts a face upright: the chip that the recognition network looks at.

use millrace_vision::{Layout, Rgb8, Similarity, warp};

/// The side of a chip.
pub const CHIP_SIDE: usize = 150;
/// The numbers of a chip: three planes.
pub const CHIP_LEN: usize = 3 * CHIP_SIDE * CHIP_SIDE;

/// Where the landmarks of a face stand in its chip: left eye, right eye, nose tip, left and right corner of the mouth.
///
/// The mean face that the network was trained with, with a quarter of its size as margin; an eye is the mean of the six
/// points of its outline.
pub const TEMPLATE: [[f64; 2]; 5] = [
    [47.549_180, 46.599_033],
    [100.476_133, 46.599_033],
    [74.012_700, 76.562_500],
    [50.414_900, 103.023_300],
    [97.610_400, 103.023_300],
];

/// The transform from the picture to the chip.
///
/// # Errors
/// [`NotAlignable`] for landmarks that fit no face.
pub fn alignment(landmarks: &[[f32; 2]; 5]) -> Result<Similarity, NotAlignable> {
    Similarity::estimate(&landmarks.map(|point| point.map(f64::from)), &TEMPLATE).ok_or(NotAlignable)
}

/// Landmarks that lie on one point, or are not numbers: no face can be put upright by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the landmarks lie on one point or are not numbers")]
pub struct NotAlignable;

/// Writes the chip of a face with these landmarks: planes `[3, 150, 150]` of RGB, 0 to 255, not rounded.
///
/// # Errors
/// [`NotAlignable`]; `chip` is then as it was.
///
/// # Panics
/// When `chip` is not of [`CHIP_LEN`].
pub fn align(picture: &Rgb8, landmarks: &[[f32; 2]; 5], chip: &mut [f32]) -> Result<(), NotAlignable> {
    let transform = alignment(landmarks)?;
    warp(picture, &transform, CHIP_SIDE, CHIP_SIDE, Layout::Planar, chip);
    Ok(())
}
