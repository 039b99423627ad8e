//! The choice among engines, with engines whose answers and costs a test chooses, on a clock that only they advance.
#![cfg(test)]

mod choice;
mod engine;
mod limits;
mod memory;
mod mixed;
mod wrong;
