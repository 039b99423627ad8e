//! TensorFlow Serving's configuration files.

pub(crate) mod config;
