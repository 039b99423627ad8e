//! What the files of a Hugging Face model folder say about the model: architecture, sizes, labels, pooling.
//!
//! Bytes in, plain values out. It opens no file and knows no engine.

#![forbid(unsafe_code)]
