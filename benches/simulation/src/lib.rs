//! Batching decisions under simulated load.
//!
//! Requests arrive by a [`Process`], an engine's runs take what a [`Cost`] says, and a [`Rule`] decides what runs together and
//! when: millrace's own [`BatchFormer`](millrace_batching::BatchFormer), as the server drives it, or another's rule. Time is
//! virtual and numbers are seeded, so that a table is the same on every machine.

#![forbid(unsafe_code)]

mod arrivals;
mod cost;
mod play;
mod random;
mod rules;
mod scenes;
mod table;

pub use arrivals::{Process, Request};
pub use cost::{Cost, Curve};
pub use play::{Fate, Outcome, Play, closed_loop, play, play_all};
pub use random::Random;
pub use rules::Rule;
pub use scenes::{Fairness, Overload, Urgency};
pub use table::{Effort, LOADS, PEERS, Row, json, markdown};

#[cfg(test)]
mod tests;
