//! Faces: found, put upright and described, by four networks that other parts of the server hold.
//!
//! Three pipelines, each a servable that asks inner models by name through the resolver it is given:
//!
//! | factory | takes | gives |
//! |---|---|---|
//! | [`FaceDetection`] | pictures | boxes, scores and landmarks of the faces |
//! | [`FaceRecognition`] | faces, cut out and upright | a description of 128 numbers each |
//! | [`FacePipeline`] | pictures | faces with all of that |
//!
//! Detection is MTCNN in three stages; [`boxes`], [`pyramid`] and [`stages`] are its steps as plain functions, and [`align()`]
//! cuts a face out of a picture. Image work runs through [`Compute`](millrace_core::Compute) and never waits there; networks
//! are asked with the deadline, caller and class of the request, and in as few requests as there are stages, so that crops
//! of many callers' pictures meet in the networks' queues.
//!
//! Memory is bounded: pictures are refused by their headers when they are too large, those in work at once share a
//! [`PictureBudget`], and candidates and faces have limits. Left to others: batching, loading, formats of answers.

#![forbid(unsafe_code)]

use std::sync::Arc;

use millrace_core::PipelineFactory;

mod align;
pub mod boxes;
mod budget;
mod clock;
mod detection;
mod detector;
mod embedder;
mod networks;
mod options;
mod pipeline;
pub mod pyramid;
mod recognition;
mod request;
mod servable;
pub mod stages;

pub use align::{CHIP_LEN, CHIP_SIDE, NotAlignable, TEMPLATE, align, alignment};
pub use budget::PictureBudget;
pub use detection::FaceDetection;
pub use embedder::EMBEDDING_LEN;
pub use options::{DetectionOptions, PictureOptions};
pub use pipeline::FacePipeline;
pub use recognition::FaceRecognition;
pub use stages::Face;

/// The three factories, over one [`PictureBudget`] of the default size.
pub fn factories() -> Vec<Arc<dyn PipelineFactory>> {
    factories_within(&PictureBudget::default())
}

/// The three factories, over one budget.
pub fn factories_within(budget: &PictureBudget) -> Vec<Arc<dyn PipelineFactory>> {
    vec![
        Arc::new(FaceDetection::new(budget.clone())),
        Arc::new(FaceRecognition::new(budget.clone())),
        Arc::new(FacePipeline::new(budget.clone())),
    ]
}
