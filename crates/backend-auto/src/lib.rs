//! The engine over engines: tries each one that takes a model's files, drops those whose answers differ, and serves with
//! the fastest for each range of row counts.
//!
//! [`AutoBackend`] is a [`Backend`](millrace_core::Backend) like any other, so that nobody above it knows that there was
//! a choice: it reads no configuration and starts no threads. What it chose, and by what, is in
//! [`ModelFacts::choice`](millrace_core::ModelFacts::choice). With [`AutoConfig::folder`] it remembers what it measured.
//!
//! - `load`: every engine that recognises the files loads them; one that says
//!   [`Foreign`](millrace_core::LoadErrorKind::Foreign) is passed over.
//! - `terms`: their signatures must say the same; symbols may have other names.
//! - `data`: requests that an operator recorded, or invented ones, the same at every load.
//! - `trial`: each engine answers them, is compared with the most trusted one (`compare`) and timed, in turns.
//! - `decide`: from times to ranges, without a clock.
//! - `served`: the winner as it is, or several behind one model.
//! - `memory`: what was measured, in a file, for as long as files, engines and machine are the same.

#![forbid(unsafe_code)]

mod against;
mod available;
mod backend;
mod clock;
mod compare;
mod config;
mod data;
mod decide;
mod load;
mod memory;
mod runner;
mod served;
mod terms;
mod trial;

pub use against::{Against, Column, OutputGap, against};
pub use available::Available;
pub use backend::AutoBackend;
pub use clock::Clock;
pub use config::AutoConfig;
