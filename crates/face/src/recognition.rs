//! `face_recognition`: a chip in, its description out.

use std::sync::Arc;

use millrace_core::{
    DType, Dim, InferFuture, LoadError, OptionReader, PipelineFactory, PipelineSource, Refusal, Servable, Tensor,
    TensorSpec, Wanted,
};

use crate::budget::PictureBudget;
use crate::embedder::{EMBEDDING_LEN, Embedder};
use crate::networks::EMBEDDING;
use crate::options::PictureOptions;
use crate::request::{Common, Pictures};
use crate::servable::{Kind, Pipeline, rows, wanted_outputs};

/// Makes pipelines that describe faces which are cut out and upright already.
///
/// Role: `embedding`. Options: [`PictureOptions`]. The one signature takes `aligned_face` BYTES `[N]` (JPEG or PNG files) and
/// gives `embedding` FP32 `[N,128]`, of length 1, and `embedding_norm` FP32 `[N]`, which is 1. A picture should be of
/// 150 x 150 pixels, with the landmarks where [`TEMPLATE`](crate::TEMPLATE) has them; one of another size is resized by area,
/// whatever its proportions.
#[derive(Debug, Clone, Default)]
pub struct FaceRecognition {
    budget: PictureBudget,
}

impl FaceRecognition {
    /// A factory whose pipelines share `budget`.
    pub fn new(budget: PictureBudget) -> Self {
        Self { budget }
    }
}

impl PipelineFactory for FaceRecognition {
    fn name(&self) -> &'static str {
        "face_recognition"
    }

    fn build(&self, source: PipelineSource) -> Result<Arc<dyn Servable>, LoadError> {
        let mut reader = OptionReader::new(&source.options);
        let pictures = PictureOptions::read(&mut reader)?;
        reader.finish()?;
        let common = Common::new(&source, &[&EMBEDDING], pictures, &self.budget)?;
        let outputs = vec![
            TensorSpec::new("embedding", DType::Fp32, [rows(), Dim::Fixed(EMBEDDING_LEN)]),
            TensorSpec::new("embedding_norm", DType::Fp32, [rows()]),
        ];
        Pipeline::servable(source, common, Recognition, "aligned_face", outputs)
    }
}

#[derive(Debug)]
struct Recognition;

impl Kind for Recognition {
    fn answer(&self, common: &Common, pictures: Pictures, wanted: Wanted) -> Result<InferFuture, Refusal> {
        let embedder = Arc::new(Embedder::new(&common.cast, &pictures.context)?);
        Ok(InferFuture::boxed(pictures.each(
            move |picture| {
                let embedder = Arc::clone(&embedder);
                async move { embedder.describe_chip(&picture).await }
            },
            move |embeddings: Vec<Vec<f32>>| {
                let count = embeddings.len();
                wanted_outputs(&wanted, 2, |index| match index {
                    0 => Tensor::from_vec(&[count, EMBEDDING_LEN], embeddings.concat()),
                    _ => Tensor::from_vec(&[count], vec![1.0_f32; count]),
                })
            },
        )))
    }
}
