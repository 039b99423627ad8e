//! Which sizes of a picture the first network looks at.

/// The side of the first network's window, in pixels of a level.
pub(crate) const CELL: u16 = 12;
/// How far neighbouring windows are apart, in pixels of a level.
pub(crate) const STRIDE: u16 = 2;

/// One level of the pyramid: the whole picture, smaller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// The level's size divided by the picture's.
    pub scale: f64,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// The levels for a picture of `width` x `height`, largest first: on the first, a face of `smallest_face` pixels fills one
/// window; each further one is `factor` times as large; on the last, one window fits.
///
/// Empty for a picture whose shorter side is less than `smallest_face`. `factor` lies between 0 and 1. Arithmetic in f64.
pub fn levels(width: usize, height: usize, smallest_face: f64, factor: f64) -> Vec<Level> {
    let cell = f64::from(CELL);
    let mut scale = cell / smallest_face;
    let mut side = float(width.min(height)) * scale;
    let mut levels = Vec::new();
    while side >= cell {
        levels.push(Level { scale, width: scaled(width, scale), height: scaled(height, scale) });
        scale *= factor;
        side *= factor;
    }
    levels
}

/// Exact: sides of pictures are far below 2^53.
fn float(side: usize) -> f64 {
    side as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounding down is meant; never negative")]
fn scaled(side: usize, scale: f64) -> usize {
    (float(side) * scale + 1.0) as usize
}

#[cfg(test)]
mod tests {
    use super::levels;

    fn sizes(width: usize, height: usize) -> Vec<(usize, usize)> {
        levels(width, height, 20.0, 0.709).iter().map(|level| (level.width, level.height)).collect()
    }

    #[test]
    fn the_last_level_still_holds_one_window() {
        assert_eq!(sizes(20, 20), [(13, 13)]);
        assert_eq!(sizes(40, 20), [(25, 13)]);
        assert_eq!(sizes(29, 29), [(18, 18), (13, 13)]);
    }

    #[test]
    fn a_picture_smaller_than_the_smallest_face_has_no_level() {
        for (width, height) in [(1, 1), (19, 19), (19, 4000), (16_000_000, 1)] {
            assert_eq!(sizes(width, height), []);
        }
    }
}
