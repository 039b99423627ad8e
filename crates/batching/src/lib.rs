//! Adaptive batching: rows of many callers in one run, where that pays, on threads that all models share.
//!
//! | part | question it answers |
//! |---|---|
//! | [`BatchFormer`] (pure) | what runs together, and when; holds the learned run times |
//! | [`BatchQueue`] | one version's door, queue and answers |
//! | [`ComputePool`] | the threads, the timer and the background thread that all queues share |
//!
//! A request is checked and admitted by [`BatchQueue::infer`], waits in the former, is run by a worker that leads its
//! queue, and is answered by that same worker: two hops between threads, one there and one back. What is left to others:
//! finding the version (the registry), deadlines of running work (the front-ends), reading configuration (the server).

#![forbid(unsafe_code)]

mod background;
mod chain;
mod clock;
mod config;
mod cost;
mod failure;
mod fair;
mod former;
mod groups;
mod guest;
mod knock;
mod lead;
mod learned;
mod lending;
mod metric;
mod niceness;
mod order;
mod poison;
mod pool;
mod promises;
mod queue;
mod reply;
mod rota;
mod run;
mod statistics;
mod timer;

pub use config::{BatchConfig, Instances, Oversized, PoolConfig, Sizes, Waiting};
pub use former::{Arrival, BatchFormer, BatchKey, Decision, Dropped, Formed, FormerConfig, Pushed};
pub use knock::Expected;
pub use learned::Learned;
pub use metric::{
    BATCH_ROWS, BATCHES_TOTAL, COMPUTE_SECONDS, PADDING_TOKENS_TOTAL, QUEUE_SECONDS, REFUSED_TOTAL,
    SKIPPED_CANCELLED_TOTAL, TOKENS_TOTAL,
};
pub use order::Ticket;
pub use pool::ComputePool;
pub use queue::BatchQueue;
