use millrace_core::{DType, Dim, ModelFacts, PartOutputs, Signature, Tensor, TensorSpec};

use super::{Comparison, Precision};

/// A signature with the outputs' dtypes and shapes.
fn signature(outputs: &[Tensor]) -> Signature {
    let spec = |(index, tensor): (usize, &Tensor)| {
        let dims: Vec<Dim> = tensor.shape().iter().map(|size| Dim::Fixed(*size)).collect();
        TensorSpec::new(format!("y{index}"), tensor.dtype(), dims)
    };
    let input = TensorSpec::new("x", DType::Fp32, vec![Dim::Fixed(1)]);
    Signature::new(vec![input], outputs.iter().enumerate().map(spec).collect()).unwrap()
}

/// The largest difference, or the complaint.
fn check(precision: Precision, expected: &[Tensor], got: &[Tensor]) -> Result<f64, String> {
    let signature = signature(expected);
    let list = |tensors: &[Tensor]| tensors.iter().cloned().map(Some).collect::<PartOutputs>();
    let mut comparison = Comparison::new(precision, &signature);
    comparison.learn(&list(expected));
    let found = comparison.compare(&signature, &list(expected), &list(got))?;
    Ok(found.map_or(0.0, |difference| difference.largest))
}

fn floats(sizes: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_vec(sizes, values.to_vec()).unwrap()
}

fn labels(values: &[i64]) -> Tensor {
    Tensor::from_vec(&[values.len()], values.to_vec()).unwrap()
}

#[test]
fn rounding_is_tolerated_and_an_error_is_told_with_its_place() {
    let expected = floats(&[2, 2], &[1.0, -2.0, 3.0, 0.001]);
    let close = floats(&[2, 2], &[1.0, -2.000_01, 3.0, 0.001]);
    let difference = check(Precision::Single, std::slice::from_ref(&expected), &[close]).unwrap();
    assert!((difference - 1e-5).abs() < 1e-6, "{difference}");
    let wrong = floats(&[2, 2], &[1.0, -2.0, 3.0, 0.011]);
    let text = check(Precision::Single, &[expected], &[wrong]).unwrap_err();
    assert_eq!(
        text,
        "output `y0`: element [1,1] is 0.010999999940395355, expected 0.0010000000474974513; the largest difference is 1.000e-2"
    );
}

#[test]
fn coarser_numbers_are_given_more_room() {
    let (expected, other) = ([floats(&[3], &[1.0, 5.0, -2.0])], [floats(&[3], &[1.04, 5.0, -2.0])]);
    assert!(check(Precision::Single, &expected, &other).is_err());
    assert!(check(Precision::Half, &expected, &other).is_ok());
    assert!(check(Precision::Quantised, &expected, &[floats(&[3], &[1.5, 5.0, -2.0])]).is_ok());
    assert!(check(Precision::Quantised, &expected, &[floats(&[3], &[2.0, 5.0, -2.0])]).is_err());
    assert!(check(Precision::Quantised, &expected, &[floats(&[3], &[1.0, -5.0, -2.0])]).is_err());
}

#[test]
fn nothing_but_nan_equals_nan_and_infinities_have_signs() {
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    let expected = [floats(&[3], &special)];
    assert!(check(Precision::Single, &expected, &expected).is_ok());
    for wrong in [[1.0, special[1], special[2]], [special[0], 1.0, special[2]], [special[0], special[1], special[1]]] {
        assert!(check(Precision::Single, &expected, &[floats(&[3], &wrong)]).is_err(), "{wrong:?}");
    }
    assert!(check(Precision::Quantised, &[floats(&[1], &[1.0])], &[floats(&[1], &[f32::NAN])]).is_err());
}

#[test]
fn labels_are_equal_but_where_scores_tie() {
    let scores = floats(&[2, 3], &[0.2, 0.5, 0.5, 0.1, 0.8, 0.1]);
    let expected = [labels(&[1, 1]), scores.clone()];
    assert!(check(Precision::Single, &expected, &[labels(&[2, 1]), scores.clone()]).is_ok());
    let text = check(Precision::Single, &expected, &[labels(&[1, 0]), scores.clone()]).unwrap_err();
    assert!(text.starts_with("output `y0`: element [1] is 0, expected 1"), "{text}");
    let words = |words: [&str; 2]| Tensor::from_strings(&[2], words.into_iter().collect()).unwrap();
    let expected = [words(["b", "b"]), scores.clone()];
    assert!(check(Precision::Single, &expected, &[words(["c", "b"]), scores.clone()]).is_ok());
    let text = check(Precision::Single, &expected, &[words(["b", "c"]), scores]).unwrap_err();
    assert_eq!(text, "output `y0`: element [1] is `c`, expected `b`");
}

#[test]
fn shapes_and_whole_numbers_are_exact() {
    let text = check(Precision::Single, &[labels(&[1, 2])], &[labels(&[1])]).unwrap_err();
    assert_eq!(text, "output `y0` is INT64[1], expected INT64[2]");
    assert!(check(Precision::Quantised, &[labels(&[100])], &[labels(&[101])]).is_err());
}

#[test]
fn quantised_numbers_may_be_some_steps_off_and_labels_may_not() {
    let bytes = |values: u8, shift: u8| {
        [Tensor::from_vec(&[1, 64], (0..64).map(|i| i % values + shift).collect::<Vec<u8>>()).unwrap()]
    };
    assert!(check(Precision::Quantised, &bytes(64, 0), &bytes(64, 3)).is_ok());
    assert!(check(Precision::Quantised, &bytes(64, 0), &bytes(64, 4)).is_err());
    assert!(check(Precision::Single, &bytes(64, 0), &bytes(64, 1)).is_err());
    // Ten classes.
    assert!(check(Precision::Quantised, &bytes(10, 0), &bytes(10, 1)).is_err());
}

#[test]
fn a_tie_excuses_the_tied_classes_only() {
    let scores = floats(&[3, 3], &[0.1, 0.45, 0.45, 0.9, 0.05, 0.05, 0.1, 0.8, 0.1]);
    let expected = [labels(&[1, 0, 1]), scores.clone()];
    let said = |label: i64| check(Precision::Single, &expected, &[labels(&[label, 0, 1]), scores.clone()]);
    assert!(said(2).is_ok() && said(0).is_err() && said(7).is_err() && said(-1).is_err());
    // Labels that are no places: 20 is known to be another class, 30 may be the tied one that has no name yet.
    let expected = [labels(&[10, 20, 10]), scores.clone()];
    let said = |label: i64| check(Precision::Single, &expected, &[labels(&[label, 20, 10]), scores.clone()]);
    assert!(said(20).is_err() && said(30).is_ok());
    // Whole numbers that go with no score are no labels.
    let expected = [labels(&[5, 5, 5]), scores.clone()];
    let got = [labels(&[6, 5, 5]), scores.clone()];
    assert!(check(Precision::Single, &expected, &got).is_err());
    let words = |first: &str| Tensor::from_strings(&[3], [first, "a", "b"].into_iter().collect()).unwrap();
    let expected = [words("b"), scores.clone()];
    let said = |word: &str| check(Precision::Single, &expected, &[words(word), scores.clone()]);
    assert!(said("c").is_ok() && said("a").is_err());
}

#[test]
fn a_quantised_label_must_be_that_of_the_engine_s_own_best_score() {
    let expected = [labels(&[1, 0]), floats(&[2, 3], &[0.40, 0.50, 0.10, 1.0, 0.0, 0.0])];
    let own = |label: i64, scores: [f32; 3]| {
        let [a, b, c] = scores;
        check(Precision::Quantised, &expected, &[labels(&[label, 0]), floats(&[2, 3], &[a, b, c, 1.0, 0.0, 0.0])])
    };
    assert!(own(0, [0.47, 0.46, 0.10]).is_ok());
    // Its scores are near enough, but its label is not what they say.
    assert!(own(0, [0.40, 0.50, 0.10]).is_err());
    assert!(own(2, [0.40, 0.50, 0.10]).is_err());
    // As good as equal in any case.
    let expected = [labels(&[1, 0]), floats(&[2, 3], &[0.49, 0.50, 0.01, 1.0, 0.0, 0.0])];
    assert!(check(Precision::Quantised, &expected, &[labels(&[0, 0]), expected[1].clone()]).is_ok());
}

#[test]
fn scores_beside_coordinates_are_measured_by_themselves() {
    // What a detector says: four coordinates, whether there is something, eighty classes.
    let (places, width) = (25_200_usize, 85_usize);
    let value = |element: usize| match element % width {
        0..4 => 640.0 * ((element / width % 97) as f32 / 97.0),
        column => ((element / width + column) % 50) as f32 / 50.0,
    };
    let expected: Vec<f32> = (0..places * width).map(value).collect();
    let sizes = [1, places, width];
    let differing = |column: usize, by: f32| {
        let shift = |(element, value): (usize, &f32)| if element % width == column { value + by } else { *value };
        let got: Vec<f32> = expected.iter().enumerate().map(shift).collect();
        check(Precision::Single, &[floats(&sizes, &expected)], &[floats(&sizes, &got)])
    };
    assert!(differing(0, 0.05).is_ok());
    assert!(differing(4, 0.05).is_err() && differing(84, 0.05).is_err());
    assert!(differing(4, 5e-5).is_ok());
    // The same with the axes the other way round.
    let turned = |values: &[f32]| {
        floats(
            &[1, width, places],
            &(0..places * width).map(|i| values[i % places * width + i / places]).collect::<Vec<_>>(),
        )
    };
    let shift = |(element, value): (usize, &f32)| if element % width == 7 { value + 0.05 } else { *value };
    let wrong: Vec<f32> = expected.iter().enumerate().map(shift).collect();
    assert!(check(Precision::Single, &[turned(&expected)], &[turned(&wrong)]).is_err());
}

#[test]
fn the_coarsest_part_of_a_model_decides() {
    let facts = |types: &[&str], operators: &[&str]| ModelFacts {
        weight_types: types.iter().map(|name| ((*name).to_owned(), 1)).collect(),
        operators: operators.iter().map(|name| ((*name).to_owned(), 1)).collect(),
        ..ModelFacts::default()
    };
    assert_eq!(Precision::of(&[]), Precision::Single);
    assert_eq!(Precision::of(&[facts(&["FP32", "INT64"], &["Conv"])]), Precision::Single);
    assert_eq!(Precision::of(&[facts(&["FP32", "FP16"], &["Conv"])]), Precision::Half);
    assert_eq!(Precision::of(&[facts(&["BF16", "FP16"], &["Conv"])]), Precision::Brain);
    assert_eq!(Precision::of(&[facts(&["FP32"], &[]), facts(&[], &["QLinearConv"])]), Precision::Quantised);
    assert_eq!(Precision::of(&[facts(&["INT8"], &["DequantizeLinear", "QuantizeLinear"])]), Precision::Quantised);
}
