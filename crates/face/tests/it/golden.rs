//! The published answers: the astronaut and the face cut out of it.

use serde_json::Value;

use crate::harness::{World, ask, assert_near, astronaut, cosine, counts, file, numbers};

/// The published answer. Positions in it are rounded to a thousandth of a pixel, fractions to a millionth.
pub(crate) fn golden() -> Value {
    serde_json::from_slice(&file("face/golden_astronaut.json")).unwrap()
}

/// All numbers of a value, in order.
#[expect(clippy::cast_possible_truncation, reason = "compared as f32")]
pub(crate) fn flat(value: &Value) -> Vec<f32> {
    match value {
        Value::Array(items) => items.iter().flat_map(flat).collect(),
        number => vec![number.as_f64().unwrap() as f32],
    }
}

/// The astronaut is 512 pixels wide and high: a hundredth of one.
const HUNDREDTH_OF_A_PIXEL: f32 = 0.01 / 512.0;

#[test]
fn detection_finds_the_astronaut() {
    let (world, face) = (World::new(), &golden()["faces"][0]);
    let response = ask(&world.pipeline("face_detection"), &[astronaut()]).unwrap();
    assert_eq!(counts(&response), [1]);
    assert_near(&numbers(&response, 1), &flat(&face["bbox"]), HUNDREDTH_OF_A_PIXEL);
    assert_near(&numbers(&response, 2), &flat(&face["confidence"]), 1e-4);
    assert_near(&numbers(&response, 3), &flat(&face["landmarks"]), HUNDREDTH_OF_A_PIXEL);
    let shapes: Vec<_> = response.outputs.iter().map(|output| output.shape().to_vec()).collect();
    assert_eq!(shapes, [vec![1], vec![1, 4], vec![1], vec![1, 5, 2]]);
}

#[test]
fn the_pipeline_finds_and_describes_the_astronaut() {
    let (world, face) = (World::new(), &golden()["faces"][0]);
    let response = ask(&world.pipeline("face_pipeline"), &[astronaut()]).unwrap();
    assert_eq!(counts(&response), [1]);
    assert_near(&numbers(&response, 1), &flat(&face["bbox"]), HUNDREDTH_OF_A_PIXEL);
    assert_near(&numbers(&response, 2), &flat(&face["confidence"]), 1e-4);
    assert_near(&numbers(&response, 3), &flat(&face["landmarks"]), HUNDREDTH_OF_A_PIXEL);
    let embedding = numbers(&response, 4);
    assert!(cosine(&embedding, &flat(&face["embedding"])) >= 0.9999);
    let length: f32 = embedding.iter().map(|number| number * number).sum();
    assert!((length - 1.0).abs() < 1e-5, "{length}");
    assert_eq!(response.outputs[4].shape().to_vec(), [1, 128]);
}

#[test]
fn recognition_describes_the_face_that_was_cut_out() {
    let world = World::new();
    let response = ask(&world.pipeline("face_recognition"), &[file("face/astronaut_aligned.png")]).unwrap();
    // Nearly everything has a high cosine here: red and blue swapped would still give 0.98.
    assert!(cosine(&numbers(&response, 0), &flat(&golden()["aligned_png_embedding"])) >= 0.9995);
    assert_eq!(numbers(&response, 1), [1.0]);
}
