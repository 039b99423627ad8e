//! `face_detection`: a picture in, boxes, scores and landmarks of its faces out.

use std::sync::Arc;

use millrace_core::{
    DType, InferFuture, LoadError, OptionReader, PipelineFactory, PipelineSource, Refusal, Servable, Tensor,
    TensorError, TensorSpec, Wanted,
};

use crate::budget::PictureBudget;
use crate::detector::{Detected, Detector};
use crate::networks::{ONET, PNET, RNET};
use crate::options::{DetectionOptions, PictureOptions, check_pyramid};
use crate::request::{Common, Pictures};
use crate::servable::{Kind, Pipeline, ragged, rows, wanted_outputs};
use crate::stages::Face;

/// Makes pipelines that find faces.
///
/// Roles: `pnet`, `rnet`, `onet`. Options: [`DetectionOptions`] and [`PictureOptions`]. The one signature takes `image`
/// BYTES `[N]` (JPEG or PNG files) and gives `face_count` INT32 `[N]` and, ragged by it, `detection_boxes` FP32 `[?,4]`,
/// `detection_scores` FP32 `[?]` and `landmark_positions` FP32 `[?,5,2]`: fractions of the picture's width and height, boxes
/// as left, top, right, bottom and not clipped, faces in falling order of score.
#[derive(Debug, Clone, Default)]
pub struct FaceDetection {
    budget: PictureBudget,
}

impl FaceDetection {
    /// A factory whose pipelines share `budget`.
    pub fn new(budget: PictureBudget) -> Self {
        Self { budget }
    }
}

impl PipelineFactory for FaceDetection {
    fn name(&self) -> &'static str {
        "face_detection"
    }

    fn build(&self, source: PipelineSource) -> Result<Arc<dyn Servable>, LoadError> {
        let mut reader = OptionReader::new(&source.options);
        let (options, pictures) = (DetectionOptions::read(&mut reader)?, PictureOptions::read(&mut reader)?);
        reader.finish()?;
        check_pyramid(&options, &pictures)?;
        let common = Common::new(&source, &[&PNET, &RNET, &ONET], pictures, &self.budget)?;
        let count = "face_count";
        let outputs = vec![
            TensorSpec::new(count, DType::Int32, [rows()]),
            ragged("detection_boxes", &[4], count),
            ragged("detection_scores", &[], count),
            ragged("landmark_positions", &[5, 2], count),
        ];
        Pipeline::servable(source, common, Detection { options: Arc::new(options) }, "image", outputs)
    }
}

#[derive(Debug)]
struct Detection {
    options: Arc<DetectionOptions>,
}

impl Kind for Detection {
    fn answer(&self, common: &Common, pictures: Pictures, wanted: Wanted) -> Result<InferFuture, Refusal> {
        let detector = Arc::new(Detector::new(&self.options, &common.cast, &pictures.context)?);
        Ok(InferFuture::boxed(pictures.each(
            move |picture| {
                let detector = Arc::clone(&detector);
                async move { detector.detect(&picture).await.map(|detected| Found::new(&detected)) }
            },
            move |found: Vec<Found>| wanted_outputs(&wanted, 4, |index| output(&found, index)),
        )))
    }
}

/// The faces of one picture, in fractions of its size.
#[derive(Debug)]
pub(crate) struct Found(Vec<Face>);

impl Found {
    pub(crate) fn new(detected: &Detected) -> Self {
        let size = [side(detected.picture.width()), side(detected.picture.height())];
        let fraction = |[x, y]: [f32; 2]| [x / size[0], y / size[1]];
        let faces = detected.faces.iter().map(|face| {
            let [x1, y1, x2, y2] = face.corners;
            let ([x1, y1], [x2, y2]) = (fraction([x1, y1]), fraction([x2, y2]));
            Face { corners: [x1, y1, x2, y2], score: face.score, landmarks: face.landmarks.map(fraction) }
        });
        Self(faces.collect())
    }
}

/// Exact up to 2^24; a longer side loses nothing that a fraction of it would show.
fn side(pixels: usize) -> f32 {
    pixels as f32
}

/// The outputs that detection and the whole pipeline have in common, by position: counts, boxes, scores, landmarks.
pub(crate) fn output(found: &[Found], index: usize) -> Result<Tensor, TensorError> {
    let faces = || found.iter().flat_map(|found| &found.0);
    let total = faces().count();
    match index {
        0 => {
            // The limit on faces is far below 2^31.
            let counts = found.iter().map(|found| i32::try_from(found.0.len()).unwrap_or(i32::MAX));
            Tensor::from_vec(&[found.len()], counts.collect::<Vec<i32>>())
        }
        1 => Tensor::from_vec(&[total, 4], faces().flat_map(|face| face.corners).collect::<Vec<f32>>()),
        2 => Tensor::from_vec(&[total], faces().map(|face| face.score).collect::<Vec<f32>>()),
        _ => {
            let numbers = faces().flat_map(|face| face.landmarks.into_iter().flatten());
            Tensor::from_vec(&[total, 5, 2], numbers.collect::<Vec<f32>>())
        }
    }
}
