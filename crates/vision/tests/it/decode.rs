//! Files into pixels: what every kind becomes, and what is refused in which words.

use millrace_vision::{DecodeError, Limits, decode, size};
use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};

use crate::{differences, expected, image};

const PNGS: [&str; 13] = [
    "rgb",
    "grey",
    "grey_1bit",
    "grey_alpha",
    "alpha",
    "palette",
    "palette_transparent",
    "sixteen_bit",
    "sixteen_bit_grey",
    "interlaced",
    "interlaced_small",
    "animated",
    "one_pixel",
];
const JPEGS: [&str; 11] = [
    "baseline",
    "progressive",
    "restarts",
    "full_chroma",
    "grey",
    "cmyk",
    "cmyk_flat",
    "ycck",
    "rgb_named",
    "rgb_adobe",
    "exif_rotated",
];

/// The text of the error that `bytes` give.
fn refusal(bytes: &[u8]) -> String {
    decode(bytes, &Limits::default()).expect_err("the file is refused").to_string()
}

/// The position of the first segment `marker` of a JPEG.
fn segment(jpeg: &[u8], marker: u8) -> usize {
    jpeg.windows(2).position(|pair| pair == [0xff, marker]).expect("the segment is there")
}

#[test]
fn every_kind_of_png_becomes_the_expected_pixels() {
    for name in PNGS {
        let picture = decode(&image(&format!("{name}.png")), &Limits::default()).unwrap();
        assert_eq!(differences(&picture, &expected(&format!("{name}.png"))), (0, 0.0), "{name}");
    }
}

#[test]
fn every_kind_of_jpeg_comes_close_to_another_decoders_pixels() {
    for name in JPEGS {
        let picture = decode(&image(&format!("{name}.jpg")), &Limits::default()).unwrap();
        let (largest, mean) = differences(&picture, &expected(&format!("{name}.jpg")));
        assert!(largest <= 5 && mean <= 0.5, "{name}: {largest} at most, {mean} on average");
    }
}

#[test]
fn the_size_of_a_file_is_known_without_decoding_it() {
    let names = PNGS.map(|name| format!("{name}.png")).into_iter().chain(JPEGS.map(|name| format!("{name}.jpg")));
    for name in names {
        let file = image(&name);
        let picture = decode(&file, &Limits::default()).unwrap();
        assert_eq!(size(&file, &Limits::default()), Ok((picture.width(), picture.height())), "{name}");
        let narrow = Limits { max_pixels: picture.width() * picture.height() - 1, ..Limits::default() };
        assert_eq!(size(&file, &narrow), decode(&file, &narrow).map(|_| (0, 0)), "{name}");
    }
    for name in ["claims_65535.png", "claims_2_31.png", "claims_65500.jpg"] {
        let file = image(&format!("bombs/{name}"));
        assert_eq!(size(&file, &Limits::default()), decode(&file, &Limits::default()).map(|_| (0, 0)), "{name}");
    }
    // That the rest is missing, only decoding shows.
    assert_eq!(size(&image("truncated/progressive.jpg"), &Limits::default()), Ok((40, 28)));
    assert_eq!(size(b"", &Limits::default()), Err(DecodeError::Empty));
}

#[test]
fn an_exif_rotation_is_not_applied() {
    let [plain, rotated] = ["baseline", "exif_rotated"].map(|name| image(&format!("{name}.jpg")));
    assert_ne!(plain, rotated);
    assert_eq!(decode(&rotated, &Limits::default()), decode(&plain, &Limits::default()));
}

#[test]
fn metadata_and_bytes_after_the_end_change_nothing() {
    let plain = image("baseline.jpg");
    let mut more = plain[..2].to_vec();
    more.extend_from_slice(b"\xff\xfe\0\x07words\xff\xe1\0\x06tags");
    more.extend_from_slice(&plain[2..]);
    more.extend_from_slice(b"and a tail \xff\xd8\xff");
    assert_eq!(decode(&more, &Limits::default()), decode(&plain, &Limits::default()));
    let png = image("rgb.png");
    assert_eq!(decode(&[&png, b"tail".as_slice()].concat(), &Limits::default()), decode(&png, &Limits::default()));
}

#[test]
fn inks_are_inverted_only_with_an_adobe_marker() {
    let with = image("cmyk_flat.jpg");
    let at = segment(&with, 0xee);
    let mut without = with.clone();
    without.drain(at..at + 2 + usize::from(u16::from_be_bytes([with[at + 2], with[at + 3]])));
    let corner = |file: &[u8]| decode(file, &Limits::default()).unwrap().pixel(3, 5);
    // The file holds 10, 20, 30, 40 in every pixel. Inverted, that is nearly full ink; plain, it is nearly none.
    let close =
        |got: [u8; 3], want: [u32; 3]| got.iter().zip(want).all(|(got, want)| u32::from(*got).abs_diff(want) <= 1);
    assert!(close(corner(&with), [10 * 40 / 255, 20 * 40 / 255, 30 * 40 / 255]), "{:?}", corner(&with));
    assert!(close(corner(&without), [245, 235, 225].map(|c| c * 215 / 255)), "{:?}", corner(&without));
}

#[test]
fn every_cut_of_a_file_is_an_error() {
    // A PNG's last 12 bytes say no more than that it ends.
    let pngs = PNGS.map(|name| (format!("{name}.png"), 12));
    let jpegs = JPEGS.map(|name| (format!("{name}.jpg"), 0));
    for (name, tail) in pngs.into_iter().chain(jpegs) {
        let whole = image(&name);
        // The animation's second frame is not looked at.
        let n_needed = if name == "animated.png" { 1000 } else { whole.len() - tail };
        for length in 0..n_needed {
            assert!(decode(&whole[..length], &Limits::default()).is_err(), "{name} cut to {length} of {}", whole.len());
        }
    }
}

#[test]
fn a_truncated_file_says_how_far_it_went() {
    let text = refusal(&image("truncated/rgb.png"));
    assert!(
        text.starts_with("the PNG file is truncated: it ends after ") && text.ends_with(" rows of pixels"),
        "{text}"
    );
    for name in ["baseline", "progressive"] {
        let text = refusal(&image(&format!("truncated/{name}.jpg")));
        assert!(text.starts_with("the JPEG file is truncated: it ends without an end marker, after "), "{text}");
    }
}

#[test]
fn a_claim_is_refused_before_it_costs_anything() {
    let claims = [
        ("claims_65535.png", "65535x65535 pixels are more than the limit of 40000000 pixels"),
        ("claims_2_31.png", "2147483647x2147483647 pixels are more than the limit of 40000000 pixels"),
        ("claims_65500.jpg", "65500x65500 pixels are more than the limit of 40000000 pixels"),
        ("claims_6000.png", "the PNG file is truncated: 69 bytes cannot hold 6000x6000 pixels"),
        ("claims_6000.jpg", "the JPEG file is truncated: 784 bytes cannot hold 6000x6000 pixels"),
    ];
    for (name, text) in claims {
        assert_eq!(refusal(&image(&format!("bombs/{name}"))), text, "{name}");
    }
}

#[test]
fn what_a_chunk_hides_is_not_unpacked() {
    for name in ["hides_iccp", "hides_ztxt", "hides_itxt"] {
        let picture = decode(&image(&format!("bombs/{name}.png")), &Limits::default()).unwrap();
        assert_eq!(picture.pixels(), [10, 20, 30], "{name}");
    }
}

#[test]
fn the_limits_are_inclusive() {
    let file = image("rgb.png");
    let exact = Limits { max_pixels: 40 * 28, max_side: 40, max_bytes: file.len() };
    assert!(decode(&file, &exact).is_ok());
    let refused = |limits: Limits| decode(&file, &limits).unwrap_err();
    assert_eq!(
        refused(Limits { max_pixels: 40 * 28 - 1, ..exact }),
        DecodeError::TooManyPixels { width: 40, height: 28, limit: 1119 }
    );
    assert_eq!(refused(Limits { max_side: 39, ..exact }), DecodeError::TooWide { width: 40, height: 28, limit: 39 });
    let limit = file.len() - 1;
    assert_eq!(refused(Limits { max_bytes: limit, ..exact }), DecodeError::TooLong { got: file.len(), limit });
}

#[test]
fn other_formats_are_refused_by_name() {
    let cases: [(&[u8], &str); 9] = [
        (b"GIF89a\x01\0\x01\0", "GIF"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "WebP"),
        (b"BM\x46\0\0\0\0\0", "BMP"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\n <svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\xff\x0a\xfa\x7f", "JPEG XL"),
        (b"%PDF-1.7", "PDF"),
    ];
    for (bytes, name) in cases {
        assert_eq!(refusal(bytes), format!("{name} is not supported; expected JPEG or PNG"));
    }
    assert_eq!(refusal(b""), "empty; expected a JPEG or PNG file");
    assert_eq!(refusal(b"hello, world"), "not a JPEG or PNG file: begins with 68 65 6c 6c 6f 2c 20 77");
    assert_eq!(refusal(&[0xff]), "not a JPEG or PNG file: begins with ff");
}

#[test]
fn kinds_of_jpeg_that_are_not_decoded_are_refused_by_name() {
    let file = image("baseline.jpg");
    let frame = segment(&file, 0xc0);
    let with = |changes: &[(usize, u8)]| {
        let mut changed = file.clone();
        changes.iter().for_each(|(at, byte)| changed[frame + at] = *byte);
        refusal(&changed)
    };
    let expected = "is not supported; expected a baseline or progressive JPEG of 8 bits and 1, 3 or 4 components";
    assert_eq!(with(&[(1, 0xc3)]), format!("a lossless JPEG {expected}"));
    assert_eq!(with(&[(1, 0xc5)]), format!("a hierarchical JPEG {expected}"));
    assert_eq!(with(&[(1, 0xc9)]), format!("an arithmetic-coded JPEG {expected}"));
    assert_eq!(with(&[(4, 12)]), format!("a JPEG of 12 bits {expected}"));
    assert_eq!(with(&[(9, 2)]), format!("a JPEG of 2 components {expected}"));
    assert_eq!(with(&[(5, 0), (6, 0)]), "the JPEG file is damaged: it claims 40x0 pixels");
}

#[test]
fn restarts_may_be_declared_off_but_not_be_switched_off() {
    let plain = image("baseline.jpg");
    let with = |file: &[u8], interval: u8| {
        let mut file = file.to_vec();
        let scan = segment(&file, 0xda);
        file.splice(scan..scan, [0xff, 0xdd, 0, 4, 0, interval]);
        file
    };
    assert_eq!(decode(&with(&plain, 0), &Limits::default()), decode(&plain, &Limits::default()));
    let text = refusal(&with(&image("restarts.jpg"), 0));
    assert!(text.starts_with("a JPEG whose restart markers end half-way is not supported; "), "{text}");
}

#[test]
fn a_jpeg_without_end_of_scans_is_refused() {
    let file = image("progressive.jpg");
    let scan = segment(&file, 0xda);
    let end = file.len() - 2;
    let mut many = file[..end].to_vec();
    for _ in 0..64 {
        many.extend_from_slice(&file[scan..end]);
    }
    many.extend_from_slice(&file[end..]);
    assert_eq!(refusal(&many), "the JPEG file is damaged: it has more than 64 scans");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_damaged_file_never_gives_more_than_the_limits(which in 0_usize..24, at in any::<usize>(), bytes in any::<[u8; 3]>()) {
        let name = PNGS.map(|name| format!("{name}.png")).into_iter().chain(JPEGS.map(|name| format!("{name}.jpg"))).nth(which);
        let mut file = image(&name.unwrap());
        let at = at % (file.len() - 3);
        file[at..at + 3].copy_from_slice(&bytes);
        let limits = Limits { max_pixels: 10_000, max_side: 1000, ..Limits::default() };
        match decode(&file, &limits) {
            Ok(picture) => prop_assert!(picture.width() * picture.height() <= limits.max_pixels),
            Err(error) => prop_assert!(!error.to_string().contains("gave up"), "the decoder panicked"),
        }
    }
}
