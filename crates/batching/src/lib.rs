//! Adaptive batching: rows of many callers in one run, where that pays, on threads that all models share.

#![forbid(unsafe_code)]

mod clock;
mod config;
mod learned;
mod pool;
mod queue;

pub use config::{BatchConfig, Instances, Oversized, PoolConfig, Sizes, Waiting};
pub use learned::Learned;
pub use pool::ComputePool;
pub use queue::BatchQueue;
