//! Asks a server on this machine as a plan says, and prints what came of it as JSON.
//!
//! `millrace-traffic PLAN.json`; [`plan::Plan`] says what stands in the file. `millrace-traffic steady …` needs no plan and
//! far less time for each request (see [`steady`]). One thread, so that one core is enough and
//! nothing is locked. Arrivals keep to their timetable whatever the server does, and latencies count from it: a server that
//! stalls cannot hide its stall. `lag` says by how much the timetable itself was missed: there the
//! generator is the bottleneck, and not the server.

#![forbid(unsafe_code)]

mod client;
mod drive;
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
    if let Some((first, rest)) = arguments.split_first()
        && first == "steady"
    {
        print(&serde_json::to_string(&steady::run(rest)?)?);
        return Ok(());
    }
    let path = arguments.first().ok_or_else(|| format!("usage: millrace-traffic PLAN.json, or {}", steady::USAGE))?;
    let plan: Plan = serde_json::from_slice(&fs::read(path).map_err(|error| format!("{path}: {error}"))?)
        .map_err(|error| format!("{path}: {error}"))?;
    plan.check()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let report = LocalSet::new().block_on(&runtime, drive::all(plan))?;
    print(&serde_json::to_string(&report)?);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what this program is for")]
fn print(line: &str) {
    println!("{line}");
}

#[expect(clippy::disallowed_methods, reason = "it measures the real time")]
fn now() -> Instant {
    Instant::now()
}
