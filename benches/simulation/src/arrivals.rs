//! When requests come.

use millrace_core::{CallerId, Priority};

use crate::random::Random;

/// One request of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Request {
    /// Seconds since the start at which it comes.
    pub at: f64,
    /// Seconds within which an answer is of use.
    pub within: f64,
    /// How urgent.
    pub priority: Priority,
    /// Who asks.
    pub caller: CallerId,
}

impl Request {
    /// A request of the only caller, as urgent as any.
    pub fn new(at: f64, within: f64) -> Self {
        Self { at, within, priority: Priority::default(), caller: CallerId(0) }
    }
}

/// How requests are spread over time, at the same mean rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// Each by itself.
    Poisson,
    /// In bunches of 1 to 31 at once.
    Bursts,
    /// Three times the rate for a third of the time, nothing in between.
    OnOff,
    /// A slow wave from a tenth of the mean to nineteen tenths.
    Wave,
    /// Each by itself; a third has half as long as the others, a third twice as long, and one of ten is urgent.
    Mixed,
}

impl Process {
    /// Every process.
    pub const ALL: [Self; 5] = [Self::Poisson, Self::Bursts, Self::OnOff, Self::Wave, Self::Mixed];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Poisson => "poisson",
            Self::Bursts => "bursts",
            Self::OnOff => "on and off",
            Self::Wave => "wave",
            Self::Mixed => "mixed",
        }
    }

    /// `count` requests, ascending, `rate` per second in the mean, whose answers are of use for `goal` seconds.
    pub fn requests(self, rate: f64, count: usize, goal: f64, random: &mut Random) -> Vec<Request> {
        let times = self.times(rate, count, random);
        let request = |at| {
            let plain = Request::new(at, goal);
            if self != Self::Mixed {
                return plain;
            }
            let within = goal * [0.5, 1.0, 2.0][random.index(3)];
            let priority = if random.index(10) == 0 { Priority(0) } else { plain.priority };
            Request { within, priority, ..plain }
        };
        times.into_iter().map(request).collect()
    }

    /// The seconds at which `count` requests come, ascending, `rate` per second in the mean.
    pub fn times(self, rate: f64, count: usize, random: &mut Random) -> Vec<f64> {
        let length = count as f64 / rate;
        let (mut now, mut times) = (0.0, Vec::with_capacity(count));
        while times.len() < count {
            match self {
                Self::Poisson | Self::Mixed => {
                    now += random.exponential(rate);
                    times.push(now);
                }
                Self::Bursts => {
                    let bunch = 1 + random.index(31);
                    now += random.exponential(rate / 16.0);
                    times.extend(std::iter::repeat_n(now, bunch.min(count - times.len())));
                }
                Self::OnOff => {
                    // Sixty phases, of which every third is on.
                    now += random.exponential(3.0 * rate);
                    let phase = length / 60.0;
                    let position = (now / phase).rem_euclid(3.0);
                    if position >= 1.0 {
                        now += (3.0 - position) * phase;
                    }
                    times.push(now);
                }
                Self::Wave => {
                    now += random.exponential(1.9 * rate);
                    let height = 1.0 - 0.9 * (now / length * 2.0 * std::f64::consts::TAU).cos();
                    if random.even() < height / 1.9 {
                        times.push(now);
                    }
                }
            }
        }
        times
    }
}
