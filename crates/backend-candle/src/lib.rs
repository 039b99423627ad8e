//! Hugging Face folders and GGUF files on the CPU and on NVIDIA GPUs, through candle.
//!
//! A version's folder holds `config.json` and `*.safetensors`, or one `*.gguf` file. Networks are written here, in terms of
//! candle's tensors; turning text or pictures into their inputs is the business of other crates.

#![deny(unsafe_code)]

mod architecture;
mod backend;
mod cpu;
mod device;
mod image;
mod nn;
mod options;
mod text;
mod weights;

pub use architecture::{ARCHITECTURES, ArchitectureInfo};
pub use backend::CandleBackend;
