//! How far waits exceed their forecasts, so that hardly anybody is let in who is given up later. Pure.
//!
//! A forecast is right in the mean, and so too short for half of those who rely on it: runs take longer, others come who go
//! first, what is formed is smaller than what was thought. Whoever is refused at the door loses nothing and can go elsewhere;
//! whoever is given up has waited for nothing. So the door counts with the wait that all but one in [`FEW`] stay below: a
//! quantile, learned by stochastic approximation (Robbins and Monro, *A Stochastic Approximation Method*, 1951), a small step
//! down for each that did and a large one up for each that did not.

use std::time::Duration;

/// One in so many may have to wait longer than the door thought.
const FEW: f64 = 200.0;
/// The step up.
const STEP: f64 = 0.02;
/// What is thought at first: that the first overload finds out costs those their time who are let in then.
const START: f64 = 1.25;
/// Whatever happened, nobody is thought to wait more than so many times the forecast: a queue need not be longer than half of
/// what callers wait for, and not shorter.
const MOST: f64 = 2.0;

/// How many times their forecasts nearly all waits stay below.
#[derive(Debug, Clone, Copy)]
pub(super) struct Punctuality {
    factor: f64,
    /// Whether somebody was refused since the queue last ran dry.
    has_refused: bool,
}

impl Default for Punctuality {
    fn default() -> Self {
        Self { factor: START, has_refused: false }
    }
}

impl Punctuality {
    /// The wait that somebody for whom `forecast` was reckoned will hardly exceed.
    pub(super) fn surely(self, forecast: Duration) -> Duration {
        forecast.mul_f64(self.factor)
    }

    /// The longest wait that it may say.
    pub(super) fn at_most(forecast: Duration) -> Duration {
        forecast.mul_f64(MOST)
    }

    /// Somebody was refused.
    pub(super) fn refused(&mut self) {
        self.has_refused = true;
    }

    /// A worker found nothing to do. It could have done what was refused.
    pub(super) fn ran_dry(&mut self) {
        if self.has_refused {
            (self.factor, self.has_refused) = (self.factor.midpoint(1.0), false);
        }
    }

    /// Somebody's turn came after so long.
    pub(super) fn waited(&mut self, waited: Duration, forecast: Duration) {
        if waited <= self.surely(forecast) {
            self.factor = (self.factor - STEP / (FEW - 1.0)).max(1.0);
        } else {
            self.missed(waited, forecast);
        }
    }

    /// Somebody was given up after so long. That tells nothing where it was for another reason than a long wait.
    pub(super) fn missed(&mut self, waited: Duration, forecast: Duration) {
        let times = waited.as_secs_f64() / forecast.as_secs_f64().max(f64::MIN_POSITIVE);
        if times > self.factor {
            self.factor = (self.factor + STEP).min(MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{FEW, Punctuality};

    const FORECAST: Duration = Duration::from_millis(100);

    /// The factor after waits of so many times the forecast.
    fn after(waits: impl Iterator<Item = f64>) -> f64 {
        let mut punctuality = Punctuality::default();
        waits.for_each(|times| punctuality.waited(FORECAST.mul_f64(times), FORECAST));
        punctuality.surely(FORECAST).as_secs_f64() / FORECAST.as_secs_f64()
    }

    #[test]
    fn nearly_all_waits_come_to_be_expected() {
        // Evenly between half and one and a half times the forecast.
        let spread = |index: usize| 0.5 + (index * 617 % 1000) as f64 / 1000.0;
        let factor = after((0..50_000).map(spread));
        let longer = (0..1000).filter(|index| spread(*index) > factor).count() as f64 / 1000.0;
        assert!(longer < 4.0 / FEW, "{longer} of the waits are longer than {factor}");
        assert!(factor < 1.6, "{factor}");
    }

    #[test]
    fn forecasts_that_hold_are_believed_and_others_not_for_ever_less() {
        assert_eq!(after(std::iter::repeat_n(0.99, 10_000)), 1.0);
        assert_eq!(after(std::iter::repeat_n(50.0, 10_000)), 2.0);
    }

    #[test]
    fn whoever_is_given_up_before_the_wait_was_long_tells_nothing() {
        let mut punctuality = Punctuality::default();
        let before = punctuality.surely(FORECAST);
        punctuality.missed(FORECAST, FORECAST);
        assert_eq!(punctuality.surely(FORECAST), before);
        punctuality.missed(FORECAST * 2, FORECAST);
        assert!(punctuality.surely(FORECAST) > before);
    }

    #[test]
    fn to_refuse_and_then_have_nothing_to_do_was_too_careful() {
        let mut punctuality = Punctuality::default();
        let before = punctuality.surely(FORECAST);
        punctuality.ran_dry();
        assert_eq!(punctuality.surely(FORECAST), before);
        punctuality.refused();
        punctuality.ran_dry();
        assert_eq!(punctuality.surely(FORECAST) - FORECAST, (before - FORECAST) / 2);
    }
}
