//! Recognition: chips in, descriptions of length 1 out.

use millrace_core::{Refusal, RequestContext, Tensor, TensorError};
use millrace_vision::{IntegralImage, Normalization};

use crate::align::{CHIP_LEN, CHIP_SIDE, NotAlignable, align};
use crate::detector::{Detected, Detector};
use crate::networks::{Cast, EMBEDDING, Network};
use crate::request::Picture;

/// The numbers that describe a face.
pub const EMBEDDING_LEN: usize = 128;
/// Faces of one picture that are asked about at once: a crowd's chips need not all be in memory.
const CHUNK: usize = 32;

/// The recognition network, for one request.
#[derive(Debug)]
pub(crate) struct Embedder(Network);

impl Embedder {
    pub(crate) fn new(cast: &Cast, context: &RequestContext) -> Result<Self, Refusal> {
        cast.resolve(&EMBEDDING, context).map(Self)
    }

    /// Descriptions of all faces of a picture, one after the other. Gives up the picture's room when its last chip is cut.
    pub(crate) async fn describe(
        &self,
        picture: &mut Picture,
        detected: Detected,
        detector: &Detector,
    ) -> Result<Vec<f32>, Refusal> {
        let Detected { picture: pixels, faces } = detected;
        let mut pixels = Some(pixels);
        let mut embeddings = Vec::with_capacity(faces.len() * EMBEDDING_LEN);
        let mut chunks = faces.chunks(CHUNK).peekable();
        while let Some(faces) = chunks.next() {
            // The last chips take the pixels along: they are freed before the room is given back.
            let shared = if chunks.peek().is_some() { pixels.clone() } else { pixels.take() };
            let Some(pixels) = shared else { break };
            let landmarks: Vec<_> = faces.iter().map(|face| face.landmarks).collect();
            let chips = picture.compute(move || {
                let mut chips = vec![0.0; landmarks.len() * CHIP_LEN];
                for (landmarks, chip) in landmarks.iter().zip(chips.chunks_exact_mut(CHIP_LEN)) {
                    align(&pixels, landmarks, chip)?;
                }
                Ok::<_, NotAlignable>(chips)
            });
            let chips = chips.await?.map_err(|error| detector.nonsense(picture, &error.to_string()))?;
            if chunks.peek().is_none() {
                picture.leave_room();
            }
            embeddings.extend(self.ask(picture, chips).await?);
        }
        Ok(embeddings)
    }

    /// The description of a picture that is a chip already; one of another size is resized by area to 150 x 150.
    pub(crate) async fn describe_chip(&self, picture: &Picture) -> Result<Vec<f32>, Refusal> {
        let chip = picture.decoded(|chip| {
            let mut planes = vec![0.0; CHIP_LEN];
            let table = IntegralImage::new(&chip);
            table.area_resize(chip.whole(), CHIP_SIDE, CHIP_SIDE, &Normalization::NONE, &mut planes);
            planes
        });
        let chip = chip.await?;
        self.ask(picture, chip).await
    }

    async fn ask(&self, picture: &Picture, chips: Vec<f32>) -> Result<Vec<f32>, Refusal> {
        let sizes = [chips.len() / CHIP_LEN, 3, CHIP_SIDE, CHIP_SIDE];
        let unexpected = |error: TensorError| picture.unexpected(&error);
        let chips = Tensor::from_vec(&sizes, chips).map_err(unexpected)?;
        let answer = picture.ask(&self.0, chips).await?;
        let mut embeddings = answer[0].elements::<f32>().map_err(unexpected)?.into_owned();
        for embedding in embeddings.chunks_exact_mut(EMBEDDING_LEN) {
            if !normalise(embedding) {
                return Err(picture.nonsense(&self.0, "its answer for a face has no length"));
            }
        }
        Ok(embeddings)
    }
}

/// Divides by the Euclidean length. False, and nothing done, where that is 0 or no number.
#[expect(clippy::cast_possible_truncation, reason = "summed in f64, given in f32")]
fn normalise(embedding: &mut [f32]) -> bool {
    let length = embedding.iter().map(|&number| f64::from(number).powi(2)).sum::<f64>().sqrt();
    let is_usable = length.is_normal();
    if is_usable {
        embedding.iter_mut().for_each(|number| *number = (f64::from(*number) / length) as f32);
    }
    is_usable
}

#[cfg(test)]
mod tests {
    use super::normalise;

    #[test]
    fn what_has_a_length_gets_length_one() {
        let mut embedding = [3.0, 4.0];
        assert!(normalise(&mut embedding));
        assert_eq!(embedding, [0.6, 0.8]);
        for mut none in [[0.0, 0.0], [f32::NAN, 1.0], [f32::INFINITY, 1.0]] {
            assert!(!normalise(&mut none));
        }
    }
}
