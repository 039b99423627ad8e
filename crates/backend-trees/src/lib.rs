//! Decision trees and the pipelines around them, on the CPU, for millrace.

mod backend;
mod forest;
mod formats;
mod graph;

pub use backend::TreesBackend;
