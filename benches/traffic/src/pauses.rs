//! How long requests would wait on this machine for a server that costs nothing but its time.
//!
//! A core does not always run what it should: the kernel, other processes and the machine's other guests take it away. While
//! it is away requests pile up, and a server that is busy for four fifths of the time needs four times as long again to work
//! them off. Nobody's latencies at that load can be shorter, so tails are judged beside this figure.

use std::error::Error;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::now;
use crate::tally::{Quantiles, micros};

/// Arguments, as [`run`] wants them.
pub(crate) const USAGE: &str = "millrace-traffic pauses SHARE SECONDS";

/// What lies between two looks at the clock, a few dozen nanoseconds, is a pause where it is longer than this.
const PAUSE: Duration = Duration::from_micros(5);
/// Requests come this far apart: evenly, for random ones are a few microseconds' matter.
const STEP: Duration = Duration::from_micros(10);

/// What the core did, and what that means at a load.
#[derive(Debug, Serialize)]
pub(crate) struct Pauses {
    pauses: usize,
    /// The part of the time that they took.
    paused: f64,
    longest_us: u32,
    /// What requests wait that come while a server is busy for such a part of its time.
    wait_us: Option<Quantiles>,
}

/// Does nothing for SECONDS but look at the clock, and reckons what that would mean for a server that requests keep busy for
/// the part SHARE of its time.
///
/// # Errors
/// Arguments that mean nothing.
pub(crate) fn run(arguments: &[String]) -> Result<Pauses, Box<dyn Error>> {
    let [share, seconds] = arguments else { return Err(USAGE.into()) };
    let (share, seconds): (f64, f64) = (share.parse()?, seconds.parse()?);
    if !((0.0..1.0).contains(&share) && (0.0..=3600.0).contains(&seconds)) {
        return Err(format!("{USAGE}: a share below 1, and an hour at most").into());
    }
    let length = Duration::from_secs_f64(seconds);
    let pauses = watch(length);
    let paused: Duration = pauses.iter().map(|pause| pause.length).sum();
    Ok(Pauses {
        pauses: pauses.len(),
        paused: paused.as_secs_f64() / seconds.max(f64::MIN_POSITIVE),
        longest_us: micros(pauses.iter().map(|pause| pause.length).max().unwrap_or_default()),
        wait_us: Quantiles::of(waits(&pauses, length, share)),
    })
}

/// Since the beginning.
#[derive(Debug, Clone, Copy)]
struct Pause {
    start: Duration,
    length: Duration,
}

fn watch(length: Duration) -> Vec<Pause> {
    let begin: Instant = now();
    let mut pauses = Vec::with_capacity(1 << 16);
    let mut last = Duration::ZERO;
    while last < length {
        let at = begin.elapsed();
        if at - last >= PAUSE {
            pauses.push(Pause { start: last, length: at - last });
        }
        last = at;
    }
    pauses
}

/// What each request waits before its turn, in µs: the rest of the pause, and the work that had piled up. Each brings `share`
/// of the time to the next.
fn waits(pauses: &[Pause], length: Duration, share: f64) -> Vec<u32> {
    let mut waits = Vec::new();
    let mut pauses = pauses.iter().copied().peekable();
    // When all the work would be done that came so far.
    let mut free = Duration::ZERO;
    let mut at = Duration::ZERO;
    while at < length {
        // The core goes away before the work is done, or before there is any.
        while let Some(pause) = pauses.next_if(|pause| pause.start <= free.max(at)) {
            free = free.max(pause.start) + pause.length;
        }
        waits.push(micros(free.saturating_sub(at)));
        free = free.max(at) + STEP.mul_f64(share);
        at += STEP;
    }
    waits
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Pause, waits};

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn without_pauses_nobody_waits() {
        assert!(waits(&[], 10 * MS, 0.8).iter().all(|wait| *wait == 0));
    }

    #[test]
    fn what_piles_up_takes_four_times_as_long_again_at_four_fifths() {
        let pause = Pause { start: 10 * MS, length: 2 * MS };
        let waits = waits(&[pause], 100 * MS, 0.8);
        assert_eq!(waits.len(), 10_000);
        assert_eq!(waits.iter().max(), Some(&2000), "who comes first waits longest");
        let waited = waits.iter().filter(|wait| **wait > 0).count();
        assert!((990..=1010).contains(&waited), "{waited} of those of 10 ms");
    }

    #[test]
    fn a_pause_that_comes_before_the_work_is_done_adds_to_it() {
        let pauses = [10, 13].map(|start| Pause { start: start * MS, length: 2 * MS });
        // Who comes at 11.25 ms would have had its turn at 13.
        let longest = waits(&pauses, 100 * MS, 0.8).into_iter().max();
        assert!((3740..=3760).contains(&longest.unwrap()), "{longest:?}");
    }
}
