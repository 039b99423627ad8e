//! The queue and the pool through their public API, over the fake backend.

#![cfg(test)]

mod allocations;
mod failing;
mod guests;
mod hanging;
mod harness;
mod knocking;
mod learning;
mod lending;
mod limits;
mod metrics;
mod mixed;
mod scaling;
mod serving;
mod splitting;
