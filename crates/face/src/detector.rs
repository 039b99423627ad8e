//! Detection of one picture's faces: the three networks in turn, and the work between them on compute threads.

use std::sync::Arc;

use futures_util::future::try_join_all;
use millrace_core::{Refusal, RequestContext, Tensor, TensorError};
use millrace_vision::{IntegralImage, Rgb8};
use smallvec::SmallVec;

use crate::boxes::Corners;
use crate::networks::{Cast, Network, ONET, PNET, RNET};
use crate::options::DetectionOptions;
use crate::pyramid::{Level, levels};
use crate::request::Picture;
use crate::stages::{
    Face, OUTPUT_SIDE, REFINE_SIDE, Windows, crop_pixels, crops, faces, level_pixels, proposals, refined, settle_faces,
    settle_level, settle_refined, windows_with_faces,
};

/// The three networks, for one request.
#[derive(Debug)]
pub(crate) struct Detector {
    options: Arc<DetectionOptions>,
    pnet: Network,
    rnet: Network,
    onet: Network,
}

/// A picture with its faces.
#[derive(Debug)]
pub(crate) struct Detected {
    pub(crate) picture: Arc<Rgb8>,
    /// In falling order of score.
    pub(crate) faces: Vec<Face>,
}

/// What the next network is asked: boxes, and a row of pixels for each.
struct Crops {
    boxes: Vec<Corners>,
    rows: Tensor,
}

type Tensors = SmallVec<[Tensor; 4]>;

impl Detector {
    pub(crate) fn new(options: &Arc<DetectionOptions>, cast: &Cast, context: &RequestContext) -> Result<Self, Refusal> {
        let [pnet, rnet, onet] = [&PNET, &RNET, &ONET].map(|role| cast.resolve(role, context));
        Ok(Self { options: Arc::clone(options), pnet: pnet?, rnet: rnet?, onet: onet? })
    }

    /// The faces of a picture.
    pub(crate) async fn detect(&self, picture: &Picture) -> Result<Detected, Refusal> {
        let options = Arc::clone(&self.options);
        let (rgb, table, levels) = picture
            .decoded(move |rgb| {
                let levels = levels(rgb.width(), rgb.height(), options.smallest_face, options.factor);
                if levels.is_empty() {
                    return Ok((rgb, None, Vec::new()));
                }
                let table = IntegralImage::new(&rgb);
                let levels = levels.into_iter().map(|level| {
                    let sizes = [1, 3, level.height, level.width];
                    Ok::<_, TensorError>((level, Tensor::from_vec(&sizes, level_pixels(&table, &level))?))
                });
                let levels = levels.collect::<Result<Vec<_>, _>>()?;
                Ok((rgb, Some(Arc::new(table)), levels))
            })
            .await?
            .map_err(|error: TensorError| picture.unexpected(&error))?;
        let detected = |faces| Detected { picture: Arc::new(rgb), faces };
        let Some(table) = table else { return Ok(detected(Vec::new())) };

        let answers = levels
            .into_iter()
            .map(|(level, pixels)| async move { Ok::<_, Refusal>((level, picture.ask(&self.pnet, pixels).await?)) });
        let answers = try_join_all(answers).await?;
        let crops = self
            .after(picture, &table, move |options, table| Crops::cut(table, propose(&answers, options)?, REFINE_SIDE));
        let Some(Crops { boxes, rows }) = crops.await? else { return Ok(detected(Vec::new())) };

        let answer = picture.ask(&self.rnet, rows).await?;
        let crops = self.after(picture, &table, move |options, table| {
            Crops::cut(table, refine(&boxes, &answer, options)?, OUTPUT_SIDE)
        });
        let Some(Crops { boxes, rows }) = crops.await? else { return Ok(detected(Vec::new())) };
        drop(table);

        let answer = picture.ask(&self.onet, rows).await?;
        let options = Arc::clone(&self.options);
        let faces = picture.compute(move || settle(&boxes, &answer, &options)).await?;
        faces.map(detected).map_err(|error| picture.unexpected(&error))
    }

    /// The refusal for faces that cannot be: the last network found them.
    pub(crate) fn nonsense(&self, picture: &Picture, what: &str) -> Refusal {
        picture.nonsense(&self.onet, what)
    }

    /// Work between two networks.
    async fn after(
        &self,
        picture: &Picture,
        table: &Arc<IntegralImage>,
        work: impl FnOnce(&DetectionOptions, &IntegralImage) -> Result<Option<Crops>, TensorError> + Send + 'static,
    ) -> Result<Option<Crops>, Refusal> {
        let (options, table) = (Arc::clone(&self.options), Arc::clone(table));
        let crops = picture.compute(move || work(&options, &table)).await?;
        crops.map_err(|error| picture.unexpected(&error))
    }
}

impl Crops {
    /// Cuts the boxes out of the picture, at `side` x `side` pixels. `None` when no box holds a pixel.
    fn cut(table: &IntegralImage, mut boxes: Vec<Corners>, side: usize) -> Result<Option<Self>, TensorError> {
        let crops = crops(&mut boxes, table.width(), table.height());
        if crops.is_empty() {
            return Ok(None);
        }
        let rows = Tensor::from_vec(&[crops.len(), 3, side, side], crop_pixels(table, &crops, side))?;
        Ok(Some(Self { boxes, rows }))
    }
}

/// The boxes that the first network proposes. Of each level and of all levels together, the best candidates are kept.
fn propose(answers: &[(Level, Tensors)], options: &DetectionOptions) -> Result<Vec<Corners>, TensorError> {
    let mut candidates = Vec::new();
    for (level, answer) in answers {
        let (prob, reg) = (answer[0].elements::<f32>()?, answer[1].elements::<f32>()?);
        let width = answer[0].shape().last().copied().unwrap_or(0);
        // The second of two planes: faces.
        let scores = &prob[prob.len() / 2..];
        let windows = Windows { width, scores, regressions: &reg };
        let mut found = windows_with_faces(level, &windows, options.thresholds[0], options.max_candidates);
        settle_level(&mut found);
        candidates.append(&mut found);
    }
    Ok(proposals(candidates, options.max_candidates))
}

fn refine(boxes: &[Corners], answer: &Tensors, options: &DetectionOptions) -> Result<Vec<Corners>, TensorError> {
    let (prob, reg) = (answer[0].elements::<f32>()?, answer[1].elements::<f32>()?);
    Ok(settle_refined(refined(boxes, &prob, &reg, options.thresholds[1])))
}

fn settle(boxes: &[Corners], answer: &Tensors, options: &DetectionOptions) -> Result<Vec<Face>, TensorError> {
    let (prob, reg) = (answer[0].elements::<f32>()?, answer[1].elements::<f32>()?);
    let landmarks = answer[2].elements::<f32>()?;
    let mut faces = faces(boxes, &prob, &reg, &landmarks, options.thresholds[2]);
    settle_faces(&mut faces, options.max_faces);
    Ok(faces)
}
