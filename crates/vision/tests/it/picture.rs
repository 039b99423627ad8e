//! The invariants of a picture.

use millrace_vision::{Crop, PictureError, Rgb8};

#[test]
fn a_picture_has_pixels_and_three_bytes_for_each() {
    assert_eq!(Rgb8::new(0, 5, Vec::new()), Err(PictureError::Empty { width: 0, height: 5 }));
    assert_eq!(Rgb8::new(2, 1, vec![0; 5]), Err(PictureError::Length { width: 2, height: 1, got: 5 }));
    // A product that does not fit is no length that any buffer has.
    assert!(matches!(Rgb8::new(usize::MAX, 3, vec![0; 9]), Err(PictureError::Length { .. })));
    let picture = Rgb8::new(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap();
    assert_eq!((picture.pixel(0, 0), picture.pixel(1, 0)), ([1, 2, 3], [4, 5, 6]));
}

#[test]
fn a_crop_fits_when_it_has_pixels_and_all_are_inside() {
    let crop = |left, top, right, bottom| Crop { left, top, right, bottom };
    assert!(crop(0, 0, 4, 3).fits(4, 3) && crop(3, 2, 4, 3).fits(4, 3));
    for outside in [crop(0, 0, 5, 3), crop(0, 0, 4, 4), crop(2, 0, 2, 3), crop(3, 1, 1, 2), crop(0, 3, 4, 3)] {
        assert!(!outside.fits(4, 3), "{outside:?}");
    }
}
