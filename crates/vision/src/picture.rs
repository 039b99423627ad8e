//! A decoded picture and a part of one.

/// A picture of at least one pixel: RGB, 8 bits each, rows from the top, no padding.
#[derive(Clone, PartialEq, Eq)]
pub struct Rgb8 {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

/// Sizes and bytes that do not make a picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    /// No pixels at all.
    #[error("a picture of {width}x{height} has no pixels")]
    Empty {
        /// The width given.
        width: usize,
        /// The height given.
        height: usize,
    },
    /// Not three bytes for each pixel.
    #[error("an RGB picture of {width}x{height} wants 3 bytes a pixel, got {got} bytes")]
    Length {
        /// The width given.
        width: usize,
        /// The height given.
        height: usize,
        /// The bytes given.
        got: usize,
    },
}

impl Rgb8 {
    /// A picture over `pixels`: `height` rows of `width` pixels of the bytes R, G, B.
    ///
    /// # Errors
    /// [`PictureError`] when a side is 0 or there are not exactly `height * width * 3` bytes.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self, PictureError> {
        if width == 0 || height == 0 {
            return Err(PictureError::Empty { width, height });
        }
        let expected = width.checked_mul(height).and_then(|count| count.checked_mul(3));
        if expected != Some(pixels.len()) {
            return Err(PictureError::Length { width, height, got: pixels.len() });
        }
        Ok(Self { width, height, pixels })
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// All bytes: R, G, B of the top left pixel first, row by row.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The bytes, for whoever wants to keep them.
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }

    /// The bytes of row `y`.
    ///
    /// # Panics
    /// When there is no such row, as slicing does.
    pub fn row(&self, y: usize) -> &[u8] {
        &self.pixels[y * self.width * 3..][..self.width * 3]
    }

    /// The pixel in column `x` of row `y`.
    ///
    /// # Panics
    /// When there is no such pixel, as slicing does.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let bytes = &self.row(y)[x * 3..x * 3 + 3];
        [bytes[0], bytes[1], bytes[2]]
    }

    /// The whole picture as a crop.
    pub fn whole(&self) -> Crop {
        Crop { left: 0, top: 0, right: self.width, bottom: self.height }
    }
}

/// Shows the sizes, never the pixels: they are the caller's.
impl std::fmt::Debug for Rgb8 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rgb8({}x{})", self.width, self.height)
    }
}

/// A rectangle of pixels: columns `left..right` of rows `top..bottom`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Crop {
    /// The first column.
    pub left: usize,
    /// The first row.
    pub top: usize,
    /// One past the last column.
    pub right: usize,
    /// One past the last row.
    pub bottom: usize,
}

impl Crop {
    /// Columns.
    pub fn width(&self) -> usize {
        self.right.saturating_sub(self.left)
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.bottom.saturating_sub(self.top)
    }

    /// Whether it has pixels, and all of them lie inside a picture of `width` x `height`.
    pub fn fits(&self, width: usize, height: usize) -> bool {
        self.left < self.right && self.top < self.bottom && self.right <= width && self.bottom <= height
    }
}
