//! How far waits exceed their forecasts, so that hardly anybody is let in who is given up later. Pure.
//!
//! A forecast is right in the mean, and so too short for half of those who just fit: runs take longer, others come who go
//! first, what is formed is smaller than what was thought. Whoever is refused at the door loses nothing and can go elsewhere;
//! whoever is given up has waited for nothing. So the door counts with so many times the forecast that all but one in [`FEW`]
//! have their turn: a quantile, learned by stochastic approximation (Robbins and Monro, *A Stochastic Approximation Method*,
//! 1951), a small step down for each that had and a large one up for each that had not.

use std::time::Duration;

use crate::cost::duration;
use crate::order::Forecast;

/// Of those who had to wait for long, one in so many may be given up.
const FEW: f64 = 200.0;
/// What is thought at first, of newcomers and of those whom newcomers pass: that the first overload finds out costs those their
/// time who are let in then.
const START: [f64; 2] = [1.25, 2.5];
/// The steps up. The second factor has further to go.
const STEPS: [f64; 2] = [0.02, 0.1];
/// Whatever happened, nobody of whom nothing waits is thought to wait more than so many times the forecast: a queue need not be
/// longer than half of what callers wait for, and not shorter.
const MOST: f64 = 2.0;
/// Whoever has something waiting already is passed by those who come later and have not, whose number no forecast knows.
const MOST_PASSED: f64 = 8.0;

/// How many times their forecasts nearly all waits stay below.
#[derive(Debug, Clone, Copy)]
pub(super) struct Punctuality {
    /// For newcomers, and for those whom newcomers pass.
    factors: [f64; 2],
    /// Whether somebody was refused since the queue last ran dry.
    has_refused: bool,
}

impl Default for Punctuality {
    fn default() -> Self {
        Self { factors: START, has_refused: false }
    }
}

impl Punctuality {
    /// The wait that somebody for whom `forecast` was reckoned will hardly exceed.
    pub(super) fn surely(self, forecast: Forecast) -> Duration {
        duration(forecast.wait.as_secs_f64() * self.factors[usize::from(forecast.is_passed)])
    }

    /// The longest wait that it may say.
    pub(super) fn at_most(wait: Duration) -> Duration {
        duration(wait.as_secs_f64() * MOST_PASSED)
    }

    /// Somebody was refused.
    pub(super) fn refused(&mut self) {
        self.has_refused = true;
    }

    /// Whether more comes than can be done: somebody was refused, and no worker has been idle since.
    pub(super) fn is_refusing(self) -> bool {
        self.has_refused
    }

    /// A worker found nothing to do. It could have done what was refused.
    pub(super) fn ran_dry(&mut self) {
        if self.has_refused {
            self.factors.iter_mut().for_each(|factor| *factor = factor.midpoint(1.0));
            self.has_refused = false;
        }
    }

    /// Somebody who `had` so long had a turn after `waited`. That tells something where it was not long before the end.
    pub(super) fn kept(&mut self, waited: Duration, had: Duration, forecast: Forecast) {
        if waited >= had / 2 {
            let which = usize::from(forecast.is_passed);
            self.factors[which] = (self.factors[which] - STEPS[which] / (FEW - 1.0)).max(1.0);
        }
    }

    /// Somebody was given up after so long. That tells nothing where it was for another reason than a long wait.
    pub(super) fn broken(&mut self, waited: Duration, forecast: Forecast) {
        if waited > self.surely(forecast) {
            let most = if forecast.is_passed { MOST_PASSED } else { MOST };
            let which = usize::from(forecast.is_passed);
            self.factors[which] = (self.factors[which] + STEPS[which]).min(most);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{FEW, Forecast, MOST, MOST_PASSED, Punctuality, START};

    const WAIT: Duration = Duration::from_millis(100);
    const FORECAST: Forecast = Forecast { wait: WAIT, is_passed: false };

    fn times(punctuality: Punctuality) -> f64 {
        punctuality.surely(FORECAST).as_secs_f64() / WAIT.as_secs_f64()
    }

    #[test]
    fn hardly_anybody_is_let_in_for_nothing() {
        // Waits are evenly between half and one and a half times their forecasts. Whoever would be surely in time is let in.
        let (mut punctuality, had) = (Punctuality::default(), 2 * WAIT);
        let (mut let_in, mut given_up) = (0, 0);
        for index in 0..200_000 {
            let wait = WAIT.mul_f64(0.8 + f64::from(index * 389 % 1000) / 800.0);
            let forecast = Forecast { wait, ..FORECAST };
            if punctuality.surely(forecast) > had {
                continue;
            }
            let waited = wait.mul_f64(0.5 + f64::from(index * 617 % 1009) / 1009.0);
            let_in += 1;
            if waited > had {
                given_up += 1;
                punctuality.broken(waited, forecast);
            } else {
                punctuality.kept(waited, had, forecast);
            }
        }
        assert!(f64::from(given_up) / f64::from(let_in) < 1.5 / FEW, "{given_up} of {let_in}");
        assert!((1.05..1.6).contains(&times(punctuality)), "{}", times(punctuality));
    }

    #[test]
    fn forecasts_that_hold_are_believed_and_others_not_for_ever_less() {
        let mut punctuality = Punctuality::default();
        // Nothing was near.
        (0..10_000).for_each(|_| punctuality.kept(WAIT, 3 * WAIT, FORECAST));
        assert_eq!(times(punctuality), START[0]);
        (0..10_000).for_each(|_| punctuality.kept(WAIT, 2 * WAIT, FORECAST));
        assert_eq!(times(punctuality), 1.0);
        (0..10_000).for_each(|_| punctuality.broken(50 * WAIT, FORECAST));
        assert_eq!(times(punctuality), MOST);
    }

    #[test]
    fn no_wait_is_too_long_to_be_reckoned_with() {
        assert_eq!(Punctuality::at_most(Duration::MAX), Duration::MAX);
        assert_eq!(Punctuality::default().surely(Forecast { wait: Duration::MAX, ..FORECAST }), Duration::MAX);
    }

    #[test]
    fn whoever_is_given_up_before_the_wait_was_long_tells_nothing() {
        let mut punctuality = Punctuality::default();
        punctuality.broken(WAIT, FORECAST);
        assert_eq!(times(punctuality), START[0]);
        punctuality.broken(2 * WAIT, FORECAST);
        assert!(times(punctuality) > START[0]);
    }

    #[test]
    fn to_refuse_and_then_have_nothing_to_do_was_too_careful() {
        let mut punctuality = Punctuality::default();
        let before = punctuality.surely(FORECAST);
        punctuality.ran_dry();
        assert_eq!(punctuality.surely(FORECAST), before);
        punctuality.refused();
        punctuality.ran_dry();
        assert_eq!(punctuality.surely(FORECAST) - WAIT, (before - WAIT) / 2);
    }

    #[test]
    fn that_newcomers_pass_is_held_against_those_alone_whom_they_pass() {
        let (mut punctuality, passed) = (Punctuality::default(), Forecast { is_passed: true, ..FORECAST });
        (0..10_000).for_each(|_| punctuality.broken(50 * WAIT, passed));
        assert_eq!(times(punctuality), START[0]);
        assert_eq!(punctuality.surely(passed), WAIT.mul_f64(MOST_PASSED));
    }
}
