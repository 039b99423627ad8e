//! When requests come.

use crate::random::Random;

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
}

impl Process {
    /// Every process.
    pub const ALL: [Self; 4] = [Self::Poisson, Self::Bursts, Self::OnOff, Self::Wave];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Poisson => "poisson",
            Self::Bursts => "bursts",
            Self::OnOff => "on and off",
            Self::Wave => "wave",
        }
    }

    /// The seconds at which `count` requests come, ascending, `rate` per second in the mean.
    pub fn times(self, rate: f64, count: usize, random: &mut Random) -> Vec<f64> {
        let length = count as f64 / rate;
        let (mut now, mut times) = (0.0, Vec::with_capacity(count));
        while times.len() < count {
            match self {
                Self::Poisson => {
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
