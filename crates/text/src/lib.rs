//! Text in place of token ids.
//!
//! [`TextSupport`] finds out whether a version's files are those of a text model and turns text into its token ids, with the
//! folder's `tokenizer.json` and through the library `tokenizers`. [`TextBackend`] stands around an engine that runs ONNX text
//! networks as they were exported: it gives them the inputs and outputs that every text model has here, pools the vectors
//! of tokens, and pads texts of different lengths no more than pays.
//!
//! Which protocol the text came by is left to the front-ends, and on which thread it is cut to the registry.

#![forbid(unsafe_code)]

mod backend;
mod canonical;
mod export;
mod factory;
mod folder;
mod guard;
mod options;
mod processor;
mod template;
mod tokenizer;
mod truncation;
mod wrapped;

pub use backend::TextBackend;
pub use factory::TextSupport;
