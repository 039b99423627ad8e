//! Asks a server on this machine as a plan says, and prints what came of it as JSON.
//!
//! `millrace-traffic PLAN.json`; [`plan::Plan`] says what stands in the file. `millrace-traffic steady …` needs no plan and
//! far less time for each request (see [`steady`]); `millrace-traffic pauses …` says what the machine itself adds ([`pauses`]).
//! One thread, so that one core is enough and nothing is locked. Arrivals keep to their timetable whatever the server does, and latencies count from it: a server that
//! stalls cannot hide its stall. `lag` says by how much the timetable itself was missed: there the
//! generator is the bottleneck, and not the server.

#![forbid(unsafe_code)]

mod client;
mod drive;
mod pauses;
mod plan;
mod steady;
mod tally;

use std::error::Error;
use std::fs;
use std::time::Instant;

use tokio::runtime::Builder;
use tokio::task::LocalSet;

use plan::Plan;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = || format!("usage: millrace-traffic PLAN.json, {}, or {}", steady::USAGE, pauses::USAGE);
    let (path, rest) = arguments.split_first().ok_or_else(usage)?;
    match path.as_str() {
        "steady" => print(&serde_json::to_string(&steady::run(rest)?)?),
        "pauses" => print(&serde_json::to_string(&pauses::run(rest)?)?),
        path => print(&serde_json::to_string(&planned(path)?)?),
    }
    Ok(())
}

fn planned(path: &str) -> Result<drive::Report, Box<dyn Error>> {
    let plan: Plan = serde_json::from_slice(&fs::read(path).map_err(|error| format!("{path}: {error}"))?)
        .map_err(|error| format!("{path}: {error}"))?;
    plan.check()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, drive::all(plan))
}

#[expect(clippy::print_stdout, reason = "what this program is for")]
fn print(line: &str) {
    println!("{line}");
}

#[expect(clippy::disallowed_methods, reason = "it measures the real time")]
fn now() -> Instant {
    Instant::now()
}
