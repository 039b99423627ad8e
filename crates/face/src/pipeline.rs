//! `face_pipeline`: a picture in, its faces with their descriptions out.

use std::sync::Arc;

use millrace_core::{
    DType, InferFuture, LoadError, OptionReader, PipelineFactory, PipelineSource, Refusal, Servable, Tensor,
    TensorSpec, Wanted,
};

use crate::budget::PictureBudget;
use crate::detection::{Found, output};
use crate::detector::Detector;
use crate::embedder::{EMBEDDING_LEN, Embedder};
use crate::networks::{EMBEDDING, ONET, PNET, RNET};
use crate::options::{DetectionOptions, PictureOptions, check_pyramid};
use crate::request::{Common, Pictures};
use crate::servable::{Kind, Pipeline, ragged, rows, wanted_outputs};

/// Where the embeddings stand among the outputs.
const EMBEDDINGS: usize = 4;

/// Makes pipelines that find faces and describe them.
///
/// Roles: `pnet`, `rnet`, `onet`, `embedding`. Options: [`DetectionOptions`] and [`PictureOptions`]. The one signature takes
/// `image` BYTES `[N]` (JPEG or PNG files) and gives `face_count` INT32 `[N]` and, ragged by it and fields of the record
/// `faces`, `bbox` FP32 `[?,4]`, `confidence` FP32 `[?]`, `landmarks` FP32 `[?,5,2]` and `embedding` FP32 `[?,128]`, of
/// length 1. Boxes and landmarks are as [`FaceDetection`](crate::FaceDetection) gives them. Who does not want `embedding` does
/// not pay for it.
#[derive(Debug, Clone, Default)]
pub struct FacePipeline {
    budget: PictureBudget,
}

impl FacePipeline {
    /// A factory whose pipelines share `budget`.
    pub fn new(budget: PictureBudget) -> Self {
        Self { budget }
    }
}

impl PipelineFactory for FacePipeline {
    fn name(&self) -> &'static str {
        "face_pipeline"
    }

    fn build(&self, source: PipelineSource) -> Result<Arc<dyn Servable>, LoadError> {
        let mut reader = OptionReader::new(&source.options);
        let (options, pictures) = (DetectionOptions::read(&mut reader)?, PictureOptions::read(&mut reader)?);
        reader.finish()?;
        check_pyramid(&options, &pictures)?;
        let common = Common::new(&source, &[&PNET, &RNET, &ONET, &EMBEDDING], pictures, &self.budget)?;
        let (count, record) = ("face_count", "faces");
        let outputs = vec![
            TensorSpec::new(count, DType::Int32, [rows()]),
            ragged("bbox", &[4], count).in_record(record),
            ragged("confidence", &[], count).in_record(record),
            ragged("landmarks", &[5, 2], count).in_record(record),
            ragged("embedding", &[EMBEDDING_LEN], count).in_record(record),
        ];
        Pipeline::servable(source, common, Whole { options: Arc::new(options) }, "image", outputs)
    }
}

#[derive(Debug)]
struct Whole {
    options: Arc<DetectionOptions>,
}

impl Kind for Whole {
    fn answer(&self, common: &Common, pictures: Pictures, wanted: Wanted) -> Result<InferFuture, Refusal> {
        let context = &pictures.context;
        let detector = Detector::new(&self.options, &common.cast, context)?;
        let embedder = match wanted.includes(EMBEDDINGS) {
            true => Some(Embedder::new(&common.cast, context)?),
            false => None,
        };
        let networks = Arc::new((detector, embedder));
        Ok(InferFuture::boxed(pictures.each(
            move |mut picture| {
                let networks = Arc::clone(&networks);
                async move {
                    let (detector, embedder) = &*networks;
                    let detected = detector.detect(&picture).await?;
                    let found = Found::new(&detected);
                    let embeddings = match embedder {
                        Some(embedder) => embedder.describe(&mut picture, detected, detector).await?,
                        None => Vec::new(),
                    };
                    Ok((found, embeddings))
                }
            },
            move |described: Vec<(Found, Vec<f32>)>| {
                let (found, embeddings): (Vec<_>, Vec<_>) = described.into_iter().unzip();
                wanted_outputs(&wanted, 5, |index| match index {
                    EMBEDDINGS => {
                        let numbers = embeddings.concat();
                        Tensor::from_vec(&[numbers.len() / EMBEDDING_LEN, EMBEDDING_LEN], numbers)
                    }
                    _ => output(&found, index),
                })
            },
        )))
    }
}
