//! Making pipelines: what they are made of must be there and must fit.

use millrace_core::{Compute, Job, LoadErrorKind, Reason, Refusal};
use std::sync::Arc;

use crate::harness::{World, ask, astronaut, request, roles, wait};

/// The kind and the text of the error.
fn refused(world: &Arc<World>, roles: &[(&str, &str)], options: &[(&str, &str)]) -> (LoadErrorKind, String) {
    let error = world.build("face_detection", roles, options).unwrap_err();
    (error.kind(), error.to_string())
}

#[test]
fn signatures_are_as_documented() {
    let world = World::new();
    for (name, inputs, outputs) in [
        (
            "face_detection",
            "image BYTES[N]",
            "face_count INT32[N], detection_boxes FP32[?,4] ragged by face_count, detection_scores FP32[?] ragged by \
             face_count, landmark_positions FP32[?,5,2] ragged by face_count",
        ),
        ("face_recognition", "aligned_face BYTES[N]", "embedding FP32[N,128], embedding_norm FP32[N]"),
        (
            "face_pipeline",
            "image BYTES[N]",
            "face_count INT32[N], bbox FP32[?,4] ragged by face_count, confidence FP32[?] ragged by face_count, \
             landmarks FP32[?,5,2] ragged by face_count, embedding FP32[?,128] ragged by face_count",
        ),
    ] {
        let pipeline = world.pipeline(name);
        assert_eq!((pipeline.model().as_str(), pipeline.version()), (name, 1));
        let (index, signature) = pipeline.signatures().find("serving_default").unwrap();
        assert_eq!(index, 0);
        assert!(signature.is_batched());
        let text =
            |specs: &[millrace_core::TensorSpec]| specs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        assert_eq!((text(signature.inputs()), text(signature.outputs())), (inputs.to_owned(), outputs.to_owned()));
        let records: Vec<_> = signature.outputs().iter().filter_map(|output| output.record.as_deref()).collect();
        assert_eq!(records, if name == "face_pipeline" { vec!["faces"; 4] } else { vec![] });
    }
}

#[test]
fn roles_that_lack_or_do_not_exist_are_named() {
    let world = World::new();
    let (kind, text) = refused(&world, &[("pnet", "mtcnn_pnet"), ("onet", "mtcnn_onet")], &[]);
    assert_eq!(kind, LoadErrorKind::Invalid);
    let expected = "[models] lacks the role `rnet`: expected a model that takes FP32[N,3,24,24] and gives prob FP32[N,2], \
                    reg FP32[N,4]";
    assert_eq!(text, expected);
    let mut unknown = roles("face_detection");
    unknown.push(("enbedding", "face_embedding"));
    let (kind, text) = refused(&world, &unknown, &[]);
    assert_eq!(kind, LoadErrorKind::Invalid);
    assert_eq!(text, "[models] has the unknown role `enbedding`; there are `pnet`, `rnet`, `onet`");
}

#[test]
fn a_model_that_does_not_serve_is_missing() {
    let world = World::new();
    let (kind, text) = refused(&world, &[("pnet", "nobody"), ("rnet", "mtcnn_rnet"), ("onet", "mtcnn_onet")], &[]);
    assert_eq!(kind, LoadErrorKind::Missing);
    assert_eq!(text, "role `pnet`: the model nobody does not serve: model `nobody` is unknown");
}

#[test]
fn a_model_that_does_not_fit_its_role_is_refused() {
    let world = World::new();
    let (kind, text) = refused(&world, &[("pnet", "mtcnn_pnet"), ("rnet", "mtcnn_onet"), ("onet", "mtcnn_onet")], &[]);
    assert_eq!(kind, LoadErrorKind::Invalid);
    let expected = "role `rnet`: the model mtcnn_onet (version 1) does not fit: expected an input FP32[N,3,24,24], its \
                    input is input FP32[N,3,48,48]";
    assert_eq!(text, expected);
    // Of any other size than P-Net's own it would fit, were it not fixed.
    let (_, text) = refused(&world, &[("pnet", "mtcnn_rnet"), ("rnet", "mtcnn_rnet"), ("onet", "mtcnn_onet")], &[]);
    assert!(text.starts_with("role `pnet`: the model mtcnn_rnet (version 1) does not fit"), "{text}");
}

#[test]
fn options_that_do_not_exist_are_refused() {
    let world = World::new();
    let (kind, text) = refused(&world, &roles("face_detection"), &[("min_face", "20")]);
    assert_eq!(kind, LoadErrorKind::Invalid);
    assert!(text.starts_with("unknown option `min_face`; expected one of smallest_face, factor"), "{text}");
    let error = world.build("face_recognition", &roles("face_recognition"), &[("smallest_face", "20")]).unwrap_err();
    let text = "unknown option `smallest_face`; expected one of max_pixels, max_bytes, max_instances";
    assert_eq!(error.to_string(), text);
}

#[test]
fn the_smallest_face_decides_how_many_levels_there_are() {
    let world = World::new();
    let pipeline = world.build("face_detection", &roles("face_detection"), &[("smallest_face", "100")]).unwrap();
    ask(&pipeline, &[astronaut()]).unwrap();
    assert_eq!(world.rows("mtcnn_pnet"), [1; 5]);
}

/// Takes no work.
#[derive(Debug)]
struct Full;

impl Compute for Full {
    fn run(&self, _job: Job) -> Result<(), Refusal> {
        Err(Refusal::new(Reason::QueueFull, "too much work is waiting"))
    }
}

#[test]
fn when_there_is_no_room_for_work_the_caller_is_told() {
    let world = World::new();
    let mut source = world.source("face_detection", &roles("face_detection"), &[]);
    source.compute = Arc::new(Full);
    let factory = &millrace_face::factories()[0];
    assert_eq!(factory.name(), "face_detection");
    let pipeline = factory.build(source).unwrap();
    let refusal = wait(pipeline.infer(request(&[astronaut()]))).unwrap_err();
    assert_eq!(refusal.reason(), Reason::QueueFull);
    assert_eq!(refusal.message(), "model `face_detection`: too much work is waiting");
}
