//! Decision trees and the pipelines around them, on the CPU, for millrace.
//!
//! [`TreesBackend`] loads a version directory that holds one of these:
//!
//! - an ONNX file with operators of `ai.onnx.ml`, as skl2onnx and onnxmltools write them: trees of operator sets 1 to 5,
//!   linear models, support vector machines, scalers, imputers, encoders of texts and whole numbers, and the standard
//!   operators that exporters put around them. One without any of `ai.onnx.ml` is another engine's
//!   ([`Foreign`](millrace_core::LoadErrorKind::Foreign));
//! - a model of XGBoost (JSON or UBJ) or LightGBM (text), by one of their customary names.
//!
//! Answers are those of ONNX Runtime and of the training library. Sums over trees are made in the type of the file's
//! numbers, tree after tree, as ONNX Runtime makes them on one thread; what it leaves open or undefined is said where it
//! happens. A `ZipMap` gives out its scores as FP32 [N, classes]: the class names, in order, stand in the facts under
//! `classes`.
//!
//! Inputs and outputs may be `FP32`, `FP64`, `INT64`, `INT32`, `BOOL` and `BYTES`. Rows are batched where the graph keeps
//! them apart, which is found out at load; a batch of some hundreds of rows uses the threads that it is granted.

mod backend;
mod forest;
mod formats;
mod graph;

pub use backend::TreesBackend;
