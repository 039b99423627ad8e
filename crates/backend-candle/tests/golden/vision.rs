//! Pictures: one line for each model, so that a failure names it.

use millrace_backend_candle::CandleBackend;
use millrace_testkit::conformance;

use crate::support::{VISION, load};

/// What weights of 11 bits may do to the outputs; those of 8 bits, eight times as much.
const FP16: f64 = 1000.0;
const BF16: f64 = 8000.0;

/// The models that have a test of their own below.
const TESTED: &[&str] = &["resnet_basic", "resnet_features", "resnet_labels", "vit_features", "vit_labels"];

#[test]
fn every_model_has_a_test() {
    assert_eq!(VISION.all(), TESTED);
}

#[test]
fn every_model_conforms() {
    let subjects: Vec<_> = TESTED.iter().map(|model| VISION.subject(model)).collect();
    let bad: Vec<_> = TESTED.iter().flat_map(|model| VISION.damaged(model)).collect();
    conformance::run(&CandleBackend::default(), &subjects, &bad, &[]);
}

#[test]
fn vit_with_labels() {
    VISION.check("vit_labels");
}

#[test]
fn vit_without_a_head() {
    VISION.check("vit_features");
}

#[test]
fn resnet_of_bottlenecks() {
    VISION.check("resnet_labels");
}

#[test]
fn resnet_of_basic_layers() {
    VISION.check("resnet_basic");
}

#[test]
fn resnet_without_a_head() {
    VISION.check("resnet_features");
}

#[test]
fn every_family_in_half_precision() {
    for model in TESTED {
        VISION.check_with(model, &[("precision", "FP16")], FP16);
        VISION.check_with(model, &[("precision", "BF16")], BF16);
    }
}

#[test]
fn signatures_say_what_goes_in_and_out() {
    let written = |model: &str| {
        let loaded = load(&VISION, model);
        let specs = loaded.signature().inputs().iter().chain(loaded.signature().outputs());
        specs.map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(written("vit_labels"), ["pixel_values FP32[batch,3,24,24]", "logits FP32[batch,5]"]);
    assert_eq!(
        written("vit_features"),
        ["pixel_values FP32[batch,1,16,24]", "last_hidden_state FP32[batch,7,32]", "pooler_output FP32[batch,32]"]
    );
    assert_eq!(written("resnet_labels"), ["pixel_values FP32[batch,3,height,width]", "logits FP32[batch,5]"]);
    let features = written("resnet_features");
    assert_eq!(features[2], "pooler_output FP32[batch,32,1,1]");
    assert!(features[1].starts_with("last_hidden_state FP32[batch,32,"), "{}", features[1]);
}
