//! ONNX models on the CPU through tract, for millrace.
//!
//! [`TractBackend`] loads a version directory that holds one `*.onnx` file (`model.onnx` where there are several) and
//! the files of its external data. Everything about the file that could hurt the process is checked before the engine
//! sees it, and whatever panics inside the engine comes out as an error:
//!
//! - sizes of initializers and of folded constants, names, cycles, operators, nesting, external paths: at load;
//! - sizes of every tensor inside the model, under the sizes of a request: [`Model::admit`](millrace_core::Model::admit);
//! - indices into tables, such as token ids: at the beginning of a run.
//!
//! Inputs and outputs may be `BOOL`, `INT8` to `INT64`, `UINT8` to `UINT64`, `FP16`, `BF16`, `FP32`, `FP64` and `BYTES`
//! (UTF-8 only). Halves are computed with as `f32`, which every half is, and quantised weights become `f32` at load.
//!
//! The first axis is the batch where it is one symbol in every input and output. Rows that are not independent although
//! the shapes look so (a reduction over the batch, a quantisation whose scale comes from all rows) are found, by their
//! operators and by a trial at load, and such a model is never batched; `facts()` says why. One plan with symbolic sizes
//! runs every batch; plans for exact row counts are faster and are made by
//! [`Model::prepare`](millrace_core::Model::prepare), for one row already at load.
//!
//! Convolutions, their activations and what stands between them are replaced by operators of our own before plans are
//! made (`rewrite`). Those take any sizes, so a model that is mostly convolutions has the one symbolic plan, and runs a
//! batch in parts whose pictures stay in a cache.

mod backend;
mod convert;
mod dims;
mod instance;
mod model;
mod options;
mod plans;
mod probe;
mod rewrite;
mod rows;
mod scan;
mod signature;
mod tokens;

pub use backend::{TractBackend, TractConfig};
