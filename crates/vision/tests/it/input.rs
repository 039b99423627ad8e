//! The declared input of kind `image`: what it reads from its keys, what it gives, and what it says when something is wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use half::f16;
use millrace_core::{
    DType, Dim, InputAdapter, InputAdapterFactory, InputError, LoadError, Strings, Tensor, TensorSpec,
};
use millrace_vision::{
    Color, Filter, ImageInput, Layout, Normalization, PixelFormat, area_resize, resize, resize_and_crop,
};

use crate::{expected, image};

/// A network's input from `3 8 8` and the like, behind the batch symbol `N`; a `?` is an open size.
fn network(dtype: DType, axes: &str) -> TensorSpec {
    let dim = |(index, text): (usize, &str)| match text.parse() {
        Ok(size) => Dim::Fixed(size),
        Err(_) => Dim::symbol(format!("open{index}")),
    };
    let shape: Vec<Dim> = [Dim::symbol("N")].into_iter().chain(axes.split(' ').enumerate().map(dim)).collect();
    TensorSpec::new("image", dtype, shape)
}

fn build(inner: &TensorSpec, options: &[(&str, &str)]) -> Result<Arc<dyn InputAdapter>, LoadError> {
    let options: BTreeMap<String, String> =
        options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ImageInput.build(inner, &options)
}

fn files(names: &[&str]) -> Tensor {
    let files: Strings = names.iter().map(|name| image(name)).collect();
    Tensor::from_strings(&[names.len()], files).unwrap()
}

/// What the adapter of these options makes of one file.
fn adapted(axes: &str, options: &[(&str, &str)], name: &str) -> Vec<f32> {
    let adapter = build(&network(DType::Fp32, axes), options).unwrap();
    adapter.adapt(&files(&[name])).unwrap().elements::<f32>().unwrap().into_owned()
}

fn written(picture: &millrace_vision::Rgb8, layout: Layout, color: Color, normalization: Normalization) -> Vec<f32> {
    let format = PixelFormat { layout, color, normalization };
    let mut out = vec![f32::NAN; format.len(picture.width(), picture.height())];
    format.write(picture, &mut out);
    out
}

#[test]
fn callers_give_one_file_for_each_row() {
    let adapter = build(&network(DType::Fp32, "3 8 8"), &[]).unwrap();
    assert_eq!(adapter.spec().to_string(), "image BYTES[N]");
    let tensor = adapter.adapt(&files(&["rgb.png", "baseline.jpg", "grey.png"])).unwrap();
    assert_eq!((tensor.dtype(), &tensor.shape()[..]), (DType::Fp32, &[3, 3, 8, 8][..]));
    // Each row is what its file gives alone.
    for (row, name) in ["rgb.png", "baseline.jpg", "grey.png"].into_iter().enumerate() {
        let alone = adapter.adapt(&files(&[name])).unwrap();
        assert_eq!(tensor.rows(row..row + 1).elements::<f32>().unwrap(), alone.elements::<f32>().unwrap(), "{name}");
    }
}

#[test]
fn size_layout_and_colour_follow_from_the_networks_input() {
    let picture = resize(&expected("rgb.png"), 9, 8, Filter::Bilinear).unwrap();
    let none = Normalization::NONE;
    assert_eq!(adapted("3 8 9", &[], "rgb.png"), written(&picture, Layout::Planar, Color::Rgb, none));
    assert_eq!(adapted("8 9 3", &[], "rgb.png"), written(&picture, Layout::Interleaved, Color::Rgb, none));
    assert_eq!(adapted("1 8 9", &[], "rgb.png"), written(&picture, Layout::Planar, Color::Grey, none));
    assert_eq!(adapted("8 9", &[], "rgb.png"), written(&picture, Layout::Planar, Color::Grey, none));
    let open = [("size", "[8, 9]"), ("color", "bgr")];
    assert_eq!(adapted("3 ? ?", &open, "rgb.png"), written(&picture, Layout::Planar, Color::Bgr, none));
    assert_eq!(adapted("3 8 3", &[("layout", "nhwc")], "rgb.png").len(), 3 * 8 * 3);
}

#[test]
fn values_are_scaled_as_published_constants_want_it() {
    let picture = resize(&expected("rgb.png"), 5, 4, Filter::Bilinear).unwrap();
    let plain = written(&picture, Layout::Interleaved, Color::Rgb, Normalization::NONE);
    let torch = [("range", "1"), ("mean", "[0.485, 0.456, 0.406]"), ("std", "[0.229, 0.224, 0.225]")];
    let got = adapted("4 5 3", &torch, "rgb.png");
    for (index, (got, value)) in got.iter().zip(&plain).enumerate() {
        let (mean, std) = ([0.485, 0.456, 0.406][index % 3], [0.229, 0.224, 0.225][index % 3]);
        assert!((got - (value / 255.0 - mean) / std).abs() < 1e-5);
    }
    let face = adapted("4 5 3", &[("mean", "127.5"), ("scale", "0.0078125")], "rgb.png");
    assert!(face.iter().zip(&plain).all(|(got, value)| *got == (value - 127.5) * 0.007_812_5));
    let sixteenth = adapted("4 5 3", &[("range", "16")], "rgb.png");
    assert!(sixteenth.iter().zip(&plain).all(|(got, value)| (got - value * 16.0 / 255.0).abs() < 1e-5));
}

#[test]
fn lists_are_read_as_toml_writes_them() {
    let plain = adapted("4 5 3", &[("mean", "[1.0, 2.0, 3.0]")], "rgb.png");
    for text in ["[1,2,3]", "[ 1.0 , 2.0, 3.0, ]", "[\n  1.0, # red\n  2.0, 3.0,\n]", "[+1e0, 0_2, 3.0]"] {
        assert_eq!(adapted("4 5 3", &[("mean", text)], "rgb.png"), plain, "{text}");
    }
}

#[test]
fn each_way_of_resizing_is_the_function_of_its_name() {
    let picture = expected("rgb.png");
    let planar = |picture| written(&picture, Layout::Planar, Color::Rgb, Normalization::NONE);
    let stretched = resize(&picture, 7, 6, Filter::Lanczos3).unwrap();
    assert_eq!(adapted("3 6 7", &[("filter", "lanczos")], "rgb.png"), planar(stretched));
    let options = [("resize", "shorter_side_crop"), ("shorter_side", "12")];
    assert_eq!(
        adapted("3 6 7", &options, "rgb.png"),
        planar(resize_and_crop(&picture, 12, 7, 6, Filter::Bilinear).unwrap())
    );
    let usual = adapted("3 6 7", &options[..1], "rgb.png");
    assert_eq!(usual, planar(resize_and_crop(&picture, 7, 7, 6, Filter::Bilinear).unwrap()));
    let mut planes = vec![0.0; 3 * 6 * 7];
    area_resize(&picture, 7, 6, &mut planes);
    assert_eq!(adapted("3 6 7", &[("resize", "area")], "rgb.png"), planes);
}

#[test]
fn half_floats_and_bytes_are_the_same_values() {
    let floats = adapted("3 8 8", &[], "rgb.png");
    let halves = build(&network(DType::Fp16, "3 8 8"), &[]).unwrap().adapt(&files(&["rgb.png", "rgb.png"])).unwrap();
    assert_eq!(&halves.shape()[..], [2, 3, 8, 8]);
    let halves = halves.elements::<f16>().unwrap();
    assert!(halves.iter().zip(floats.iter().cycle()).all(|(half, float)| half.to_f32() == *float));
    let bytes = build(&network(DType::Uint8, "3 8 8"), &[]).unwrap().adapt(&files(&["rgb.png"])).unwrap();
    assert!(bytes.elements::<u8>().unwrap().iter().zip(&floats).all(|(byte, float)| f32::from(*byte) == *float));
}

#[test]
fn a_bad_picture_is_named_by_its_index() {
    let adapter = build(&network(DType::Fp32, "3 8 8"), &[]).unwrap();
    let refused = |names: &[&str]| adapter.adapt(&files(names)).unwrap_err();
    let error = refused(&["rgb.png", "truncated/rgb.png", "rgb.png"]);
    assert!(matches!(&error, InputError::Instance { index: 1, .. }), "{error:?}");
    assert!(error.to_string().starts_with("input `image`, instance 1: the PNG file is truncated: "), "{error}");
    let error = refused(&["bombs/claims_65535.png"]);
    let text = "input `image`, instance 0: 65535x65535 pixels are more than the limit of 40000000 pixels";
    assert_eq!(error.to_string(), text);
}

#[test]
fn limits_of_the_declaration_hold() {
    let inner = network(DType::Fp32, "3 8 8");
    let refused = |key: &str, value: &str, names: &[&str]| {
        build(&inner, &[(key, value)]).unwrap().adapt(&files(names)).unwrap_err().to_string()
    };
    let text = "input `image`, instance 0: 40x28 pixels are more than the limit of 1_000 pixels".replace('_', "");
    assert_eq!(refused("max_pixels", "1_000", &["rgb.png"]), text);
    assert!(refused("max_bytes", "100", &["rgb.png"]).ends_with("bytes are more than the limit of 100"));
    let text = "input `image`, instance 2: one picture too many: a request may hold at most 2";
    assert_eq!(refused("max_instances", "2", &["rgb.png"; 4]), text);
    // That is counted where the request arrives, before anything is decoded.
    let adapter = build(&inner, &[("max_instances", "2")]).unwrap();
    assert_eq!(adapter.admit(&files(&["truncated/rgb.png"; 2])), Ok(()));
    assert_eq!(adapter.admit(&files(&["rgb.png"; 3])).unwrap_err().to_string(), text);
    // Without the key, as many as 256 MiB hold: here 1024 x 1024 x 3 floats are 12 MiB.
    let adapter = build(&network(DType::Fp32, "3 1024 1024"), &[]).unwrap();
    let error = adapter.adapt(&files(&["one_pixel.png"; 22])).unwrap_err();
    assert!(matches!(error, InputError::Instance { index: 21, .. }), "{error:?}");
}

#[test]
fn a_tensor_of_numbers_is_refused() {
    let adapter = build(&network(DType::Fp32, "3 8 8"), &[]).unwrap();
    let error = adapter.adapt(&Tensor::from_vec(&[1], vec![0.0_f32]).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "input `image`: expected BYTES, got FP32");
}

#[test]
fn wrong_keys_are_refused_with_what_would_be_right() {
    let three = network(DType::Fp32, "3 8 8");
    let one = network(DType::Fp32, "1 8 8");
    let bytes = network(DType::Uint8, "3 8 8");
    let open = network(DType::Fp32, "3 ? ?");
    type Case<'a> = (&'a TensorSpec, &'a [(&'a str, &'a str)], &'a str);
    let cases: &[Case<'_>] = &[
        (&three, &[("colour", "rgb")], "unknown key `colour`; did you mean `color`?"),
        (&three, &[("shorter_sides", "9")], "unknown key `shorter_sides`; did you mean `shorter_side`?"),
        (&three, &[("bananas", "9")], "unknown key `bananas`; expected one of color, filter, layout, max_bytes, "),
        (&three, &[("size", "[8, 9]")], "`size` is `[8, 9]`; expected the network's own [8, 8]"),
        (&open, &[], "`size` is missing: the network's input leaves height or width open"),
        (&open, &[("size", "[8]")], "`size` is `[8]`; expected [height, width], two whole numbers from 1 to 65535"),
        (&open, &[("size", "[0, 8]")], "`size` is `[0, 8]`; expected [height, width], two whole numbers from 1"),
        (&open, &[("size", "[60000, 60000]")], "the network's pictures of 60000x60000 pixels are too large"),
        (&three, &[("color", "grey")], "`color` is `grey`; expected \"rgb\" or \"bgr\": the network takes three"),
        (&one, &[("color", "bgr")], "`color` is `bgr`; expected \"grey\": the network takes one channel"),
        (&three, &[("color", "RGB")], "`color` is `RGB`; expected one of \"rgb\", \"bgr\", \"grey\""),
        (
            &three,
            &[("layout", "nhwc")],
            "the network takes image FP32[N,3,8,8]; the axis of the channels must be 1 or 3",
        ),
        (&three, &[("mean", "[1, 2]")], "`mean` is `[1, 2]`; expected a number, or a list of 3 numbers"),
        (&three, &[("mean", "[1, 2, nan]")], "`mean` is `[1, 2, nan]`; expected a number, or a list of 3 numbers"),
        (&one, &[("mean", "[1, 2, 3]")], "`mean` is `[1, 2, 3]`; expected a number"),
        (
            &three,
            &[("std", "0.229")],
            "`std` is `0.229`; expected 1 or more for values from 0 to 255; for values from 0 ",
        ),
        (&three, &[("range", "1"), ("std", "[0.2, 0, 1]")], "`std` is `[0.2, 0, 1]`; expected numbers above 0"),
        (&three, &[("std", "2"), ("scale", "2")], "both `scale` and `std` are given; expected one of them"),
        (&three, &[("range", "-1")], "`range` is `-1`; expected a number above 0, such as 1 or 255"),
        (&bytes, &[("mean", "1")], "`mean` is `1`; expected no such key: the network takes UINT8"),
        (
            &three,
            &[("resize", "fill")],
            "`resize` is `fill`; expected one of \"stretch\", \"shorter_side_crop\", \"area\"",
        ),
        (&three, &[("shorter_side", "9")], "`shorter_side` is `9`; expected no such key: it belongs to"),
        (
            &three,
            &[("resize", "shorter_side_crop"), ("shorter_side", "7")],
            "`shorter_side` is `7`; expected 8 to 65535",
        ),
        (&three, &[("resize", "area"), ("filter", "box")], "`filter` is `box`; expected no such key"),
        (&three, &[("filter", "cubic")], "`filter` is `cubic`; expected one of \"nearest\", \"box\", \"bilinear\", "),
        (&three, &[("max_pixels", "0")], "`max_pixels` is `0`; expected a whole number of at least 1"),
        (&three, &[("max_instances", "many")], "`max_instances` is `many`; expected a whole number of at least 1"),
    ];
    for (inner, options, text) in cases {
        let error = build(inner, options).expect_err(text).to_string();
        let detail = error.strip_prefix("[inputs.image], kind \"image\": ").unwrap_or_else(|| panic!("{error}"));
        assert!(detail.starts_with(text), "{detail}\nexpected\n{text}");
    }
}

#[test]
fn networks_that_take_no_pictures_are_refused() {
    for (dtype, axes, text) in [
        (DType::Int64, "3 8 8", "the network takes INT64; pictures can become FP32, FP16 or UINT8"),
        (DType::Fp32, "4", "the network takes image FP32[N,4]; a picture needs [N,C,H,W], [N,H,W,C] or [N,H,W]"),
        (DType::Fp32, "4 8 8", "the network takes image FP32[N,4,8,8]; neither axis 1 nor axis 3 has 1 or 3 channels"),
        (DType::Fp32, "3 8 1", "the network takes image FP32[N,3,8,1]; either axis may be the channels; say which by "),
        (DType::Fp32, "3 8 8 8", "the network takes image FP32[N,3,8,8,8]; a picture needs "),
    ] {
        let error = build(&network(dtype, axes), &[]).expect_err(text).to_string();
        assert!(error.contains(text), "{error}");
    }
}
