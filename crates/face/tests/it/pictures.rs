//! What may be in a request: many pictures, pictures of every kind, none with a face, rubbish.

use millrace_core::{InferResponse, Reason, Wanted};
use millrace_testkit::fixtures;
use millrace_vision::{Limits, Rgb8, decode};

use crate::golden::{flat, golden};
use crate::harness::{
    World, ask, assert_near, astronaut, cosine, counts, encoded, file, numbers, png, request, roles, wait,
};

const PIPELINES: [&str; 2] = ["face_detection", "face_pipeline"];

fn pixels(file: &[u8]) -> Rgb8 {
    decode(file, &Limits::default()).unwrap()
}

/// A picture without faces.
fn meadow(side: u32) -> Vec<u8> {
    let level = |n: u32| u8::try_from(n % 256).unwrap();
    png(side, side, |x, y| [level(x), level(x / 2 + y / 2), level(255 - y)])
}

/// The astronaut twice, side by side.
fn twins() -> Vec<u8> {
    let one = pixels(&astronaut());
    png(1024, 512, |x, y| one.pixel(usize::try_from(x % 512).unwrap(), usize::try_from(y).unwrap()))
}

#[test]
fn each_picture_of_a_request_gets_the_answer_that_it_gets_alone() {
    let world = World::new();
    let files = [astronaut(), meadow(64), twins(), meadow(19)];
    for name in PIPELINES {
        let pipeline = world.pipeline(name);
        let together = ask(&pipeline, &files).unwrap();
        let alone: Vec<InferResponse> =
            files.iter().map(|file| ask(&pipeline, std::slice::from_ref(file)).unwrap()).collect();
        assert_eq!(counts(&together), [1, 0, 2, 0]);
        assert_eq!(counts(&together), alone.iter().flat_map(counts).collect::<Vec<_>>());
        for output in 1..together.outputs.len() {
            let alone: Vec<f32> = alone.iter().flat_map(|response| numbers(response, output)).collect();
            // Batches of other sizes are summed in another order.
            assert_near(&numbers(&together, output), &alone, 1e-4);
        }
    }
}

#[test]
fn faces_stand_in_falling_order_of_score_and_the_best_are_kept() {
    let world = World::new();
    let all = ask(&world.pipeline("face_detection"), &[twins()]).unwrap();
    let scores = numbers(&all, 2);
    assert_eq!(scores.len(), 2);
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    let one = world.build("face_detection", &roles("face_detection"), &[("max_faces", "1")]).unwrap();
    let best = ask(&one, &[twins()]).unwrap();
    assert_eq!(counts(&best), [1]);
    assert_near(&numbers(&best, 1), &numbers(&all, 1)[..4], 1e-6);
}

#[test]
fn a_picture_without_faces_gives_empty_lists() {
    let world = World::new();
    let one_pixel = file("images/one_pixel.png");
    for picture in [meadow(256), meadow(20), meadow(19), one_pixel, png(4000, 12, |_, _| [90; 3])] {
        let found = ask(&world.pipeline("face_detection"), std::slice::from_ref(&picture)).unwrap();
        assert_eq!(counts(&found), [0]);
        let shapes: Vec<_> = found.outputs.iter().map(|output| output.shape().to_vec()).collect();
        assert_eq!(shapes, [vec![1], vec![0, 4], vec![0], vec![0, 5, 2]]);
        let found = ask(&world.pipeline("face_pipeline"), &[picture]).unwrap();
        assert_eq!(found.outputs[4].shape().to_vec(), [0, 128]);
    }
    assert_eq!(world.rows("face_embedding"), [0; 0], "nobody describes faces that are not there");
}

#[test]
fn how_the_pixels_are_stored_changes_nothing() {
    let (world, picture) = (World::new(), pixels(&astronaut()));
    let pipeline = world.pipeline("face_pipeline");
    let bytes = |make: &dyn Fn([u8; 3], u8) -> Vec<u8>| {
        let pixels = picture.pixels().chunks_exact(3).zip((0..=255_u8).cycle());
        pixels.flat_map(|(pixel, any)| make([pixel[0], pixel[1], pixel[2]], any)).collect::<Vec<u8>>()
    };
    let alpha = bytes(&|[r, g, b], any| vec![r, g, b, any]);
    // The low bytes are dropped, whatever they are.
    let sixteen_bit = bytes(&|[r, g, b], any| vec![r, any, g, any, b, any]);
    let stored = [
        encoded(512, 512, png::ColorType::Rgba, png::BitDepth::Eight, &alpha),
        encoded(512, 512, png::ColorType::Rgb, png::BitDepth::Sixteen, &sixteen_bit),
    ];
    let want = ask(&pipeline, &[astronaut()]).unwrap();
    for file in stored {
        let got = ask(&pipeline, &[file]).unwrap();
        assert_eq!(counts(&got), [1]);
        (1..5).for_each(|output| assert_near(&numbers(&got, output), &numbers(&want, output), 1e-4));
    }
}

#[test]
fn a_face_is_found_without_colours_and_lying_files_stay_as_they_lie() {
    let (world, picture) = (World::new(), pixels(&astronaut()));
    let grey: Vec<u8> = picture.pixels().chunks_exact(3).map(|pixel| pixel[1]).collect();
    let grey = encoded(512, 512, png::ColorType::Grayscale, png::BitDepth::Eight, &grey);
    let found = ask(&world.pipeline("face_pipeline"), &[grey]).unwrap();
    assert_eq!(counts(&found), [1]);
    // The green values alone are another picture, but the same face: its landmarks lie within four pixels.
    assert_near(&numbers(&found, 3), &flat(&golden()["faces"][0]["landmarks"]), 4.0 / 512.0);
    assert!(cosine(&numbers(&found, 4), &flat(&golden()["faces"][0]["embedding"])) > 0.95);

    // A rotation that a file asks for is not applied: width and height are those of the stored pixels.
    let turned = pixels(&file("images/exif_rotated.jpg"));
    let plain = pixels(&file("images/baseline.jpg"));
    assert_eq!((turned.width(), turned.height()), (plain.width(), plain.height()));
}

#[test]
fn every_kind_of_file_is_answered() {
    let world = World::new();
    let mut files = Vec::new();
    for entry in fixtures().join("images").read_dir().unwrap() {
        let path = entry.unwrap().path();
        let is_picture = path.extension().is_some_and(|extension| extension == "png" || extension == "jpg");
        files.extend(is_picture.then(|| std::fs::read(path).unwrap()));
    }
    assert!(files.len() > 10);
    let response = ask(&world.pipeline("face_detection"), &files).unwrap();
    assert_eq!(counts(&response).len(), files.len());
}

#[test]
fn a_bad_picture_fails_its_request_and_is_named() {
    let world = World::new();
    let half = astronaut()[..200_000].to_vec();
    for name in PIPELINES {
        let pipeline = world.pipeline(name);
        for (bad, text) in [
            (b"GIF89a and so on".to_vec(), "GIF is not supported; expected JPEG or PNG"),
            (Vec::new(), "empty; expected a JPEG or PNG file"),
            (b"rubbish".to_vec(), "not a JPEG or PNG file"),
            (half.clone(), "the PNG file is truncated"),
        ] {
            let refusal = ask(&pipeline, &[meadow(64), bad, meadow(64)]).unwrap_err();
            assert_eq!(refusal.reason(), Reason::InvalidInput);
            let expected = format!("model `{name}`: input `image`, instance 1: {text}");
            assert!(refusal.message().starts_with(&expected), "{refusal}");
        }
    }
    let refusal = ask(&world.pipeline("face_recognition"), &[b"rubbish".to_vec()]).unwrap_err();
    let expected = "model `face_recognition`: input `aligned_face`, instance 0: not a JPEG or PNG file";
    assert!(refusal.message().starts_with(expected), "{refusal}");
}

#[test]
fn what_is_too_large_is_refused_by_its_header_before_anything_is_asked() {
    let world = World::new();
    let options = [("max_pixels", "400"), ("max_instances", "3")];
    let pipeline = world.build("face_detection", &roles("face_detection"), &options).unwrap();
    assert_eq!(counts(&ask(&pipeline, &[meadow(20)]).unwrap()), [0]);
    let asked = world.questions().len();
    let refusal = ask(&pipeline, &[meadow(20), meadow(21)]).unwrap_err();
    assert_eq!(refusal.reason(), Reason::TooLarge);
    let text = "model `face_detection`: input `image`, instance 1: 21x21 pixels are more than the limit of 400 pixels";
    assert_eq!(refusal.message(), text);
    let refusal = ask(&pipeline, &[meadow(20), meadow(20), meadow(20), meadow(20)]).unwrap_err();
    assert_eq!(refusal.reason(), Reason::TooLarge);
    assert_eq!(refusal.message(), "model `face_detection`: input `image`: 4 pictures are more than the limit of 3");
    assert_eq!(world.questions().len(), asked);
}

#[test]
fn bombs_are_refused_whatever_their_headers_claim() {
    let world = World::new();
    let pipeline = world.pipeline("face_pipeline");
    let mut bombs = 0;
    for entry in fixtures().join("images/bombs").read_dir().unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let file = std::fs::read(&path).unwrap();
        // Some are sound pictures with much useless text in them; those are answered.
        match ask(&pipeline, &[meadow(64), file]) {
            Ok(response) => assert_eq!(counts(&response).len(), 2, "{name}"),
            Err(refusal) => {
                bombs += 1;
                assert!(matches!(refusal.reason(), Reason::TooLarge | Reason::InvalidInput), "{name}: {refusal:?}");
                assert!(refusal.message().contains("instance 1"), "{name}: {refusal}");
            }
        }
    }
    assert!(bombs > 0);
    assert_eq!(world.rows("mtcnn_rnet"), [0; 0]);
}

#[test]
fn only_what_is_wanted_is_given_and_paid_for() {
    let world = World::new();
    let pipeline = world.pipeline("face_pipeline");
    let mut question = request(&[astronaut()]);
    question.wanted = Wanted::Only([2, 0].into_iter().collect());
    let response = wait(pipeline.infer(question)).unwrap();
    assert_eq!(response.outputs.len(), 2);
    assert_near(&numbers(&response, 0), &flat(&golden()["faces"][0]["confidence"]), 1e-4);
    assert_eq!(response.outputs[1].elements::<i32>().unwrap().to_vec(), [1]);
    assert_eq!(world.rows("face_embedding"), [0; 0]);
}

#[test]
fn a_chip_of_another_size_is_resized_by_area() {
    let world = World::new();
    let pipeline = world.pipeline("face_recognition");
    let chip = pixels(&file("face/astronaut_aligned.png"));
    // Each pixel four times: the mean of four equal ones is that one.
    let doubled = png(300, 300, |x, y| chip.pixel(usize::try_from(x / 2).unwrap(), usize::try_from(y / 2).unwrap()));
    let response = ask(&pipeline, &[file("face/astronaut_aligned.png"), doubled]).unwrap();
    let embeddings = numbers(&response, 0);
    assert_near(&embeddings[..128], &embeddings[128..], 1e-6);
    assert_eq!(numbers(&response, 1), [1.0, 1.0]);
}
