//! Hugging Face folders and GGUF files on the CPU and on NVIDIA GPUs, through candle.

#![deny(unsafe_code)]
