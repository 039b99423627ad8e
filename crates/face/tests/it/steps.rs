//! Detection of the astronaut step by step, through the public functions: after each step as many candidates are left as
//! were published.

use std::sync::Arc;

use millrace_core::{InferRequest, ModelRef, RequestContext, Resolver, Tensor, TensorList};
use millrace_face::boxes::Corners;
use millrace_face::pyramid::{Level, levels};
use millrace_face::stages::{
    Windows, crop_pixels, crops, faces, level_pixels, proposals, refined, settle_faces, settle_level, settle_refined,
    windows_with_faces,
};
use millrace_face::{DetectionOptions, alignment};
use millrace_vision::{IntegralImage, Limits, decode};
use serde_json::Value;

use crate::golden::{flat, golden};
use crate::harness::{World, assert_near, astronaut, now, wait};

const UNLIMITED: usize = usize::MAX;

fn run(world: &Arc<World>, model: &str, sizes: &[usize], pixels: Vec<f32>) -> TensorList {
    let context = RequestContext::new(now());
    let servable = world.resolve(&ModelRef::new(model), &context).unwrap();
    let input = Tensor::from_vec(sizes, pixels).unwrap();
    let outputs = wait(servable.infer(InferRequest::new(vec![input], context))).unwrap().outputs;
    let position = |name| servable.signatures().get(0).unwrap().output_index(name);
    ["prob", "reg", "landmarks"].into_iter().filter_map(position).map(|index| outputs[index].clone()).collect()
}

fn count(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

fn crop_rows(table: &IntegralImage, boxes: &mut Vec<Corners>, side: usize) -> (Vec<usize>, Vec<f32>) {
    let crops = crops(boxes, table.width(), table.height());
    (vec![crops.len(), 3, side, side], crop_pixels(table, &crops, side))
}

#[test]
fn each_step_leaves_as_many_candidates_as_published() {
    let (world, trace, options) = (World::new(), &golden()["trace"], DetectionOptions::default());
    let picture = decode(&astronaut(), &Limits::default()).unwrap();
    let table = IntegralImage::new(&picture);

    let mut candidates = Vec::new();
    let published = trace["levels"].as_array().unwrap();
    let levels = levels(picture.width(), picture.height(), options.smallest_face, options.factor);
    assert_eq!(levels.len(), published.len());
    for (level, published) in levels.iter().zip(published) {
        let Level { scale, width, height } = *level;
        assert!((scale - published["scale"].as_f64().unwrap()).abs() < 1e-9);
        assert_eq!((width, height), (count(&published["width"]), count(&published["height"])));
        let pixels = level_pixels(&table, level);
        let mean = pixels.iter().copied().map(f64::from).sum::<f64>() / pixels.len() as f64;
        assert!((mean - published["input_mean"].as_f64().unwrap()).abs() < 2e-6, "{mean} {level:?}");
        let answer = run(&world, "mtcnn_pnet", &[1, 3, height, width], pixels);
        let (prob, reg) = (answer[0].elements::<f32>().unwrap(), answer[1].elements::<f32>().unwrap());
        let windows = Windows { width: answer[0].shape()[3], scores: &prob[prob.len() / 2..], regressions: &reg };
        let mut found = windows_with_faces(level, &windows, options.thresholds[0], UNLIMITED);
        assert_eq!(found.len(), count(&published["cells"]), "{level:?}");
        settle_level(&mut found);
        assert_eq!(found.len(), count(&published["after_nms"]), "{level:?}");
        candidates.append(&mut found);
    }
    assert_eq!(candidates.len(), count(&trace["stage1_all_levels"]));
    let mut boxes = proposals(candidates, UNLIMITED);
    assert_eq!(boxes.len(), count(&trace["stage1_after_nms"]));
    assert_near(&boxes[0], &flat(&trace["stage1_first_box"]), 0.01);

    let (sizes, pixels) = crop_rows(&table, &mut boxes, 24);
    assert_eq!(boxes.len(), count(&trace["stage2_crops"]));
    let answer = run(&world, "mtcnn_rnet", &sizes, pixels);
    let (prob, reg) = (answer[0].elements().unwrap(), answer[1].elements().unwrap());
    let candidates = refined(&boxes, &prob, &reg, options.thresholds[1]);
    assert_eq!(candidates.len(), count(&trace["stage2_over_threshold"]));
    let mut boxes = settle_refined(candidates);
    assert_eq!(boxes.len(), count(&trace["stage2_after_nms"]));
    assert_near(&boxes[0], &flat(&trace["stage2_first_box"]), 0.01);

    let (sizes, pixels) = crop_rows(&table, &mut boxes, 48);
    assert_eq!(boxes.len(), count(&trace["stage3_crops"]));
    let answer = run(&world, "mtcnn_onet", &sizes, pixels);
    let (prob, reg) = (answer[0].elements().unwrap(), answer[1].elements().unwrap());
    let mut faces = faces(&boxes, &prob, &reg, &answer[2].elements().unwrap(), options.thresholds[2]);
    assert_eq!(faces.len(), count(&trace["stage3_over_threshold"]));
    settle_faces(&mut faces, UNLIMITED);
    assert_eq!(faces.len(), count(&trace["stage3_after_nms"]));

    let [a, b, tx, ty] = alignment(&faces[0].landmarks).unwrap().coefficients();
    for (got, want) in [a, -b, tx, b, a, ty].into_iter().zip(flat(&trace["alignment_matrix"])) {
        assert!((got - f64::from(want)).abs() < 0.01, "{got} {want}");
    }
}
