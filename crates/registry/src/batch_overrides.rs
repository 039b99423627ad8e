//! Batching as operators write it, under the names that TensorFlow Serving and Triton gave the knobs, and how that
//! turns into a `BatchConfig`.

use std::num::NonZeroUsize;
use std::time::Duration;

use millrace_batching::{BatchConfig, Instances, Oversized, Sizes, Waiting};

/// Batching settings of which each may be left unsaid. Apply them over a complete [`BatchConfig`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BatchOverrides {
    /// Whether requests may share a run.
    pub enabled: Option<bool>,
    /// The most rows in one run. Said without `enable_large_batch_splitting`, larger requests are refused, as
    /// TensorFlow Serving does.
    pub max_batch_size: Option<NonZeroUsize>,
    /// The most tokens in one run of a model that takes texts of different lengths (text-embeddings-inference).
    pub max_batch_tokens: Option<NonZeroUsize>,
    /// How long the first request of a batch may wait for company, in microseconds (TensorFlow Serving).
    pub batch_timeout_micros: Option<u64>,
    /// How many full batches may wait (TensorFlow Serving).
    pub max_enqueued_batches: Option<NonZeroUsize>,
    /// How many runs may go on at once (TensorFlow Serving).
    pub num_batch_threads: Option<NonZeroUsize>,
    /// Runs are padded up to the next of these, ascending (TensorFlow Serving).
    pub allowed_batch_sizes: Option<Vec<NonZeroUsize>>,
    /// A batch leaves as soon as it has one of these sizes (Triton).
    pub preferred_batch_size: Option<Vec<NonZeroUsize>>,
    /// How long the first request of a batch may wait for company, in microseconds (Triton).
    pub max_queue_delay_microseconds: Option<u64>,
    /// The most that learned waiting may add.
    pub latency_goal: Option<Duration>,
    /// Whether requests above `max_batch_size` are cut into several runs.
    pub enable_large_batch_splitting: Option<bool>,
}

/// Batching settings that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchOverridesError {
    /// Two names for one thing.
    #[error("`{0}` and `{1}` say the same thing twice; keep one")]
    Both(&'static str, &'static str),
    /// A list of sizes that is empty or does not ascend.
    #[error("`{0}` must be a list of ascending sizes, such as [1, 8, 32]")]
    Sizes(&'static str),
    /// TensorFlow Serving's rule about the last allowed size.
    #[error("the last of `allowed_batch_sizes` is {last}; it must equal `max_batch_size`, which is {max}")]
    Last {
        /// The last size.
        last: NonZeroUsize,
        /// The largest batch.
        max: NonZeroUsize,
    },
}

impl BatchOverrides {
    /// Checks that no two settings contradict each other.
    ///
    /// # Errors
    /// [`BatchOverridesError`], naming the settings.
    pub fn check(&self) -> Result<(), BatchOverridesError> {
        let waits = [
            ("batch_timeout_micros", self.batch_timeout_micros.is_some()),
            ("max_queue_delay_microseconds", self.max_queue_delay_microseconds.is_some()),
            ("latency_goal", self.latency_goal.is_some()),
        ];
        let sizes = [
            ("allowed_batch_sizes", self.allowed_batch_sizes.is_some()),
            ("preferred_batch_size", self.preferred_batch_size.is_some()),
        ];
        for group in [&waits[..], &sizes[..]] {
            let mut said = group.iter().filter(|(_, said)| *said).map(|(name, _)| *name);
            if let (Some(first), Some(second)) = (said.next(), said.next()) {
                return Err(BatchOverridesError::Both(first, second));
            }
        }
        let lists =
            [("allowed_batch_sizes", &self.allowed_batch_sizes), ("preferred_batch_size", &self.preferred_batch_size)];
        for (name, list) in lists {
            let Some(list) = list else { continue };
            if list.is_empty() || !list.is_sorted_by(|a, b| a < b) {
                return Err(BatchOverridesError::Sizes(name));
            }
        }
        let last = self.allowed_batch_sizes.as_ref().and_then(|sizes| sizes.last());
        match (last, self.max_batch_size) {
            (Some(&last), Some(max)) if last != max => Err(BatchOverridesError::Last { last, max }),
            _ => Ok(()),
        }
    }

    /// What is said here, and where nothing is, what is said in `base`. Names for one thing go together: a wait said here in
    /// one unit takes the place of one said there in another.
    pub(crate) fn over(self, base: &Self) -> Self {
        let has_wait =
            self.batch_timeout_micros.or(self.max_queue_delay_microseconds).is_some() || self.latency_goal.is_some();
        let waits = if has_wait { &Self::default() } else { base };
        let has_sizes = self.allowed_batch_sizes.is_some() || self.preferred_batch_size.is_some();
        let sizes = if has_sizes { &Self::default() } else { base };
        // The last of the allowed sizes says how large a batch is.
        let max_batch_size = base.max_batch_size.filter(|_| self.allowed_batch_sizes.is_none());
        Self {
            enabled: self.enabled.or(base.enabled),
            max_batch_size: self.max_batch_size.or(max_batch_size),
            max_batch_tokens: self.max_batch_tokens.or(base.max_batch_tokens),
            batch_timeout_micros: self.batch_timeout_micros.or(waits.batch_timeout_micros),
            max_enqueued_batches: self.max_enqueued_batches.or(base.max_enqueued_batches),
            num_batch_threads: self.num_batch_threads.or(base.num_batch_threads),
            allowed_batch_sizes: self.allowed_batch_sizes.or_else(|| sizes.allowed_batch_sizes.clone()),
            preferred_batch_size: self.preferred_batch_size.or_else(|| sizes.preferred_batch_size.clone()),
            max_queue_delay_microseconds: self.max_queue_delay_microseconds.or(waits.max_queue_delay_microseconds),
            latency_goal: self.latency_goal.or(waits.latency_goal),
            enable_large_batch_splitting: self.enable_large_batch_splitting.or(base.enable_large_batch_splitting),
        }
    }

    /// `config` with what is said here in place of what was there.
    #[must_use]
    pub fn apply(&self, mut config: BatchConfig) -> BatchConfig {
        if let Some(enabled) = self.enabled {
            config.enabled = enabled;
        }
        let last = self.allowed_batch_sizes.as_ref().and_then(|sizes| sizes.last().copied());
        if let Some(max) = self.max_batch_size.or(last) {
            config.max_batch_size = max;
            config.oversized = Oversized::Refuse;
        }
        if let Some(max) = self.max_batch_tokens {
            config.max_batch_tokens = max;
        }
        if let Some(split) = self.enable_large_batch_splitting {
            config.oversized = if split { Oversized::Split } else { Oversized::Refuse };
        }
        if let Some(micros) = self.batch_timeout_micros.or(self.max_queue_delay_microseconds) {
            config.waiting = Waiting::Fixed(Duration::from_micros(micros));
        }
        if let Some(goal) = self.latency_goal {
            config.waiting = Waiting::LearnedWithin(goal);
        }
        if let Some(batches) = self.max_enqueued_batches {
            config.max_enqueued_batches = batches.get();
        }
        if let Some(threads) = self.num_batch_threads {
            config.instances = Instances::Exactly(threads);
        }
        if let Some(sizes) = &self.allowed_batch_sizes {
            config.sizes = Sizes::Allowed(sizes.clone());
        }
        if let Some(sizes) = &self.preferred_batch_size {
            config.sizes = Sizes::Preferred(sizes.clone());
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::time::Duration;

    use millrace_batching::{BatchConfig, Oversized, Sizes, Waiting};

    use super::{BatchOverrides, BatchOverridesError};

    fn size(rows: usize) -> NonZeroUsize {
        NonZeroUsize::new(rows).unwrap()
    }

    #[test]
    fn what_is_unsaid_stays() {
        assert_eq!(BatchOverrides::default().apply(BatchConfig::default()), BatchConfig::default());
    }

    #[test]
    fn a_size_without_splitting_refuses_larger_requests() {
        let mut said = BatchOverrides { max_batch_size: Some(size(32)), ..BatchOverrides::default() };
        assert_eq!(said.apply(BatchConfig::default()).oversized, Oversized::Refuse);
        said.enable_large_batch_splitting = Some(true);
        let config = said.apply(BatchConfig::default());
        assert_eq!((config.max_batch_size, config.oversized), (size(32), Oversized::Split));
    }

    #[test]
    fn a_number_of_tokens_refuses_nothing() {
        let said = BatchOverrides { max_batch_tokens: Some(size(512)), ..BatchOverrides::default() };
        let config = said.apply(BatchConfig::default());
        assert_eq!((config.max_batch_tokens, config.oversized), (size(512), Oversized::Split));
        let over = BatchOverrides { max_batch_tokens: Some(size(64)), ..BatchOverrides::default() }.over(&said);
        assert_eq!(over.max_batch_tokens, Some(size(64)));
        assert_eq!(BatchOverrides::default().over(&said).max_batch_tokens, Some(size(512)));
    }

    #[test]
    fn waits_and_sizes_keep_their_units() {
        let said = BatchOverrides {
            batch_timeout_micros: Some(1500),
            allowed_batch_sizes: Some(vec![size(1), size(8)]),
            ..BatchOverrides::default()
        };
        let config = said.apply(BatchConfig::default());
        assert_eq!(config.waiting, Waiting::Fixed(Duration::from_micros(1500)));
        assert_eq!((config.sizes, config.max_batch_size), (Sizes::Allowed(vec![size(1), size(8)]), size(8)));
    }

    #[test]
    fn contradictions_are_named() {
        let both = BatchOverrides {
            batch_timeout_micros: Some(1),
            latency_goal: Some(Duration::ZERO),
            ..BatchOverrides::default()
        };
        assert_eq!(both.check(), Err(BatchOverridesError::Both("batch_timeout_micros", "latency_goal")));
        let unsorted =
            BatchOverrides { preferred_batch_size: Some(vec![size(8), size(4)]), ..BatchOverrides::default() };
        assert_eq!(unsorted.check(), Err(BatchOverridesError::Sizes("preferred_batch_size")));
        let last = BatchOverrides {
            max_batch_size: Some(size(16)),
            allowed_batch_sizes: Some(vec![size(8)]),
            ..BatchOverrides::default()
        };
        assert_eq!(last.check(), Err(BatchOverridesError::Last { last: size(8), max: size(16) }));
    }
}
