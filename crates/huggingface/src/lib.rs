//! What the files of a Hugging Face model folder say about the model: architecture, sizes, labels, pooling.
//!
//! Bytes in, plain values out: [`Config`] reads `config.json` and gives a [`TextConfig`], [`VitConfig`] or [`ResnetConfig`]
//! of checked values; [`SentenceModules`] says what follows a text network where `sentence-transformers` saved the folder;
//! [`TokenizerConfig`], [`SentenceBert`] and [`Prompts`] say how its text is prepared, and [`ImageProcessor`] how pictures
//! are; [`ShardIndex`] says which file has which weights. An error names the file, the key, what was given and what would
//! be right.
//!
//! It opens no file and knows no engine: weights and vocabularies are read by those who use them.

#![forbid(unsafe_code)]

mod activation;
mod config;
mod error;
mod fields;
mod image;
mod label;
mod pooling;
mod processor;
mod sentence;
mod shards;
mod text;
mod tokenizer;

pub use activation::Activation;
pub use config::{Config, Head, Precision, ProblemType};
pub use error::HuggingFaceError;
pub use image::{ResnetConfig, ResnetLayer, VitConfig};
pub use pooling::{Pooling, PoolingMode};
pub use processor::{ImageProcessor, ImageSize};
pub use sentence::{Dense, SentenceModules, SentenceStep};
pub use shards::ShardIndex;
pub use text::{TextConfig, TextFamily};
pub use tokenizer::{Prompts, SentenceBert, Side, TokenizerConfig};

/// The most bytes that any of these files may have. Real ones have some thousand; the largest, lists of 20 000 labels or of
/// the weights of hundreds of layers, one or two million.
pub const MAX_FILE_BYTES: usize = 8 << 20;

#[cfg(test)]
mod tests;
