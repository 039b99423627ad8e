//! When refused callers are told to come again, so that they do not all come back at once. Pure.
//!
//! A caller is told a number of whole seconds, as `Retry-After` has it, so callers refused in one moment can only come back
//! in moments that are whole seconds apart. Each is sent to the first of these in which not too much was promised yet.
//! Who is refused is decided elsewhere.

use std::time::{Duration, Instant};

/// Promises are kept apart by so much time: what comes back together should not fill the time that quick models' callers
/// have.
const SLOT: Duration = Duration::from_millis(5);
/// Slots in a second.
const PER_SECOND: usize = 200;
/// Nobody is told to come again later than in so many seconds: who knows what will be then. Ten times what can be done, for
/// some seconds, takes more than a minute to make up for.
const MOST_SECONDS: usize = 120;
const SLOTS: usize = (MOST_SECONDS + 2) * PER_SECOND;
/// How much of the engine is promised: others will come meanwhile.
const SHARE: f32 = 0.5;

/// More comes than can be done, and not just in a burst, where so much of what the engine does in a second was refused in
/// about a second.
const HEAT: f32 = 0.25;
/// And so many requests: a few refusals of long ones tell nothing.
const FEW: f32 = 4.0;
/// Nobody knows how long that will last. It is thought to last as long again as it has, and no less than this, no more than
/// that: who came back before would meet the same crowd.
const LASTS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));

/// Work that refused callers will come back with.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    overload: Overload,
    /// When slot 0 was.
    origin: Option<Instant>,
    /// The first slot that is kept; those before it are over.
    first: usize,
    /// Seconds of work promised in each slot, by slot number modulo their count.
    slots: Vec<f32>,
}

impl Promises {
    /// Promises a place to somebody with so many seconds of work, divided among the workers, who must not come
    /// earlier than in `least`. Returns after how many whole seconds; at least one.
    pub(crate) fn promise(&mut self, seconds: f32, least: Duration, now: Instant) -> Duration {
        let origin = *self.origin.get_or_insert(now);
        self.slots.resize(SLOTS, 0.0);
        let present = slot(now.saturating_duration_since(origin));
        self.forget(present);
        let least = least.max(self.overload.refused(seconds, now));
        let least = crate::cost::whole(least.as_secs_f64().ceil()).clamp(1, MOST_SECONDS);
        let room = SHARE * SLOT.as_secs_f32();
        let promised = |wait: usize| self.slots[(present + wait * PER_SECOND) % SLOTS];
        let free = (least..MOST_SECONDS).find(|wait| promised(*wait) < room).unwrap_or(MOST_SECONDS);
        // What is more than a slot holds fills those after it.
        let (mut left, end) = (seconds, self.first + SLOTS);
        for at in present + free * PER_SECOND..end {
            let space = (room - self.slots[at % SLOTS]).max(0.0);
            // The last bit goes whole, so that a slot is never nearly full.
            let part = if left <= room { left } else { space };
            self.slots[at % SLOTS] += part;
            left -= part;
            if left <= 0.0 {
                break;
            }
        }
        Duration::from_secs(free as u64)
    }

    /// Empties the slots that are over, for those that come around.
    fn forget(&mut self, present: usize) {
        for over in self.first..present.min(self.first + SLOTS) {
            self.slots[over % SLOTS] = 0.0;
        }
        self.first = present;
    }
}

/// How long more has come than could be done.
#[derive(Debug, Default)]
struct Overload {
    /// Seconds of work that were refused, forgotten at the rate of one part in e for each second.
    heat: f32,
    /// The latest refusal.
    latest: Option<Instant>,
    /// When `heat` last rose above [`HEAT`].
    since: Option<Instant>,
}

impl Overload {
    /// Counts a refusal of so many seconds of work. Returns how long the overload is thought to last, if it is one.
    fn refused(&mut self, seconds: f32, now: Instant) -> Duration {
        let passed = self.latest.replace(now).map_or(Duration::ZERO, |latest| now.saturating_duration_since(latest));
        let cooled = self.heat * (-passed.as_secs_f32()).exp();
        self.heat = cooled + seconds;
        if self.heat < HEAT.max(FEW * seconds) {
            // Most get through, or did for a while.
            self.since = None;
            return Duration::ZERO;
        }
        let since = *self.since.get_or_insert(now);
        now.saturating_duration_since(since).clamp(LASTS.0, LASTS.1)
    }
}

fn slot(since: Duration) -> usize {
    usize::try_from(since.as_millis() / SLOT.as_millis()).unwrap_or(usize::MAX / 2)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Promises;
    use crate::clock;

    /// How many of those who were refused at once come back in each second.
    fn returns(seconds: f32, count: usize) -> Vec<usize> {
        let (now, mut promises, mut returns) = (clock::now(), Promises::default(), vec![0; 121]);
        for _ in 0..count {
            let wait = promises.promise(seconds, Duration::ZERO, now);
            returns[usize::try_from(wait.as_secs()).unwrap()] += 1;
        }
        returns
    }

    #[test]
    fn those_refused_at_once_come_back_in_portions() {
        // Half of a slot of 5 ms holds some 25 of them, and together they are no overload.
        let returns = returns(0.0001, 100);
        assert_eq!(returns[0], 0);
        assert!(returns[1..4].iter().all(|count| (24..=27).contains(count)), "{returns:?}");
        assert_eq!(returns.iter().sum::<usize>(), 100);
    }

    #[test]
    fn long_work_takes_more_than_one_slot() {
        // Each keeps half of the engine busy for two seconds.
        assert_eq!(returns(1.0, 3)[1..7], [1, 0, 1, 0, 1, 0]);
    }

    #[test]
    fn nobody_is_sent_away_for_longer_than_is_known() {
        assert_eq!(returns(10.0, 100)[120], 94);
    }

    #[test]
    fn nobody_comes_before_the_backlog_is_done() {
        let now = clock::now();
        let wait = Promises::default().promise(0.001, Duration::from_millis(2300), now);
        assert_eq!(wait, Duration::from_secs(3));
    }

    /// After how many seconds whoever is refused last should come again, where a refusal of so many seconds of work comes
    /// every 10 ms for `lasting`.
    fn after(seconds: f32, lasting: Duration) -> u64 {
        let (start, mut promises, mut wait) = (clock::now(), Promises::default(), Duration::ZERO);
        for step in 0..=lasting.as_millis() / 10 {
            let now = start + Duration::from_millis(10) * u32::try_from(step).unwrap();
            wait = promises.promise(seconds, Duration::ZERO, now);
        }
        wait.as_secs()
    }

    #[test]
    fn who_is_refused_in_a_burst_comes_back_soon_and_in_an_overload_when_it_may_be_over() {
        let seconds = Duration::from_secs;
        // A tenth of what the engine does is refused: that is no overload, however long it lasts.
        assert!(after(0.001, seconds(60)) <= 2);
        // As much again as it does.
        assert!(after(0.01, Duration::from_millis(200)) <= 2);
        assert_eq!(after(0.01, Duration::from_millis(500)), 5);
        assert!((10..=30).contains(&after(0.01, seconds(10))));
    }

    #[test]
    fn an_overload_is_over_once_most_get_through() {
        let (start, mut promises) = (clock::now(), Promises::default());
        for step in 0..100 {
            promises.promise(0.01, Duration::ZERO, start + Duration::from_millis(10) * step);
        }
        assert!(promises.promise(0.01, Duration::ZERO, start + Duration::from_secs(1)) >= Duration::from_secs(5));
        assert!(promises.promise(0.01, Duration::ZERO, start + Duration::from_secs(4)) <= Duration::from_secs(2));
    }

    #[test]
    fn promises_are_over_when_their_time_is() {
        let (now, mut promises) = (clock::now(), Promises::default());
        for second in 0..100 {
            let now = now + Duration::from_secs(second);
            assert_eq!(promises.promise(0.02, Duration::ZERO, now), Duration::from_secs(1), "{second}");
            let later = now + Duration::from_millis(500);
            assert_eq!(promises.promise(0.02, Duration::ZERO, later), Duration::from_secs(1), "{second}");
        }
        let far = now + Duration::from_secs(86_400);
        assert_eq!(promises.promise(0.02, Duration::ZERO, far), Duration::from_secs(1));
    }
}
