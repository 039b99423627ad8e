//! A text network in canonical form around an exported one.

mod cost;
mod cut;
mod instance;
mod model;
mod pool;
mod rows;
mod steps;

pub(crate) use model::TextModel;
pub(crate) use rows::Vocabulary;
pub(crate) use steps::Steps;
