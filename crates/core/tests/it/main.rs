//! The public behaviour of the core types.
#![cfg(test)]

mod batch;
mod generate;
mod signature;
mod tensor;
