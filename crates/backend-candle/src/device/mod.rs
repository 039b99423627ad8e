//! Where a model's tensors live, on which threads or streams its runs compute, and how much memory they may take there.
//!
//! Networks see a [`Place`] and nothing of the rest. What is known of NVIDIA cards stands in `cuda`, or in `absent` for programs
//! that are built without it.

#[cfg(not(feature = "cuda"))]
mod absent;
#[cfg(feature = "cuda")]
mod cuda;
mod groups;
mod memory;
mod options;
mod staging;
mod streams;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::sync::{Arc, Once};

use candle_core::Device;
use millrace_core::{LoadError, LoadErrorKind, RunError};

#[cfg(not(feature = "cuda"))]
use absent as gpu;
#[cfg(feature = "cuda")]
use cuda as gpu;

pub(crate) use groups::Grouping;
pub(crate) use memory::Room;
pub(crate) use options::{DeviceOptions, Wish};
pub(crate) use staging::Staging;
pub(crate) use streams::spread;

use gpu::Card;
use memory::{Budget, NoRoom};

/// The place of one model's tensors: the CPU, or one stream of a card. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    device: Device,
    /// Its number and itself.
    card: Option<(usize, Arc<Card>)>,
    budget: Arc<Budget>,
}

impl Place {
    /// The places that `options` ask for, one for each stream; they share one budget.
    ///
    /// # Errors
    /// [`LoadError`] that says what is missing where a card is demanded and does not answer.
    pub(crate) fn open(options: &DeviceOptions) -> Result<Vec<Self>, LoadError> {
        let demanded = |reason| LoadError::new(LoadErrorKind::Unsupported, format!("option `device`: {reason}"));
        match options.wish {
            Wish::Cpu => Ok(vec![Self::cpu()]),
            Wish::Cuda(number) => Self::on_card(number, options).map_err(demanded),
            Wish::Auto if !gpu::IS_BUILT_IN => Ok(vec![Self::cpu()]),
            Wish::Auto => Ok(Self::on_card(0, options).unwrap_or_else(|reason| {
                // Once, not for every model: it is about the machine.
                static SAID: Once = Once::new();
                SAID.call_once(|| tracing::warn!(%reason, "no card answers: models run on the CPU"));
                vec![Self::cpu()]
            })),
        }
    }

    /// The CPU.
    pub(crate) fn cpu() -> Self {
        Self { device: Device::Cpu, card: None, budget: Budget::new(None) }
    }

    fn on_card(number: usize, options: &DeviceOptions) -> Result<Vec<Self>, String> {
        let budget = Budget::new(options.memory);
        let mut places = Vec::with_capacity(options.streams);
        for _ in 0..options.streams {
            let card = Card::open(number)?;
            let device = card.device();
            places.push(Self { device, card: Some((number, Arc::new(card))), budget: Arc::clone(&budget) });
        }
        Ok(places)
    }

    /// candle's name for it.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Whether the tensors lie in the machine's own memory.
    pub(crate) fn is_cpu(&self) -> bool {
        self.card.is_none()
    }

    /// As `facts` show it: `cpu`, `cuda:0 (NVIDIA H200, compute capability 9.0)`.
    pub(crate) fn name(&self) -> String {
        match &self.card {
            None => "cpu".to_owned(),
            Some((number, card)) => format!("cuda:{number} ({})", card.name()),
        }
    }

    /// How rows of different lengths share attention here.
    pub(crate) fn grouping(&self) -> Grouping {
        if self.is_cpu() { Grouping::Equal } else { Grouping::CARD }
    }

    /// Buffers for the inputs and outputs of one instance.
    pub(crate) fn staging(&self) -> Staging {
        self.card.as_ref().map_or(Staging::Cpu, |(_, card)| Staging::Card(gpu::Pinned::new(card)))
    }

    /// Counts `bytes` of weights, before they are loaded, for as long as the model lives. The CPU counts none here: the source's
    /// own budget is about that.
    ///
    /// # Errors
    /// [`LoadError`] where they do not fit the model's `device_memory` or the card.
    pub(crate) fn hold_weights(&self, bytes: u64) -> Result<(), LoadError> {
        let Some((_, card)) = &self.card else { return Ok(()) };
        self.budget
            .hold_weights(bytes, &**card)
            .map_err(|error| LoadError::new(LoadErrorKind::TooLarge, format!("the weights: {error}")).with_cause(error))
    }

    /// Room for a run that is about to take some `bytes` beside the weights; `None` on the CPU.
    ///
    /// # Errors
    /// [`RunError::InvalidInput`] where `device_memory` leaves less than that to any run; [`RunError::Failed`] where other runs
    /// or other programs hold it just now.
    pub(crate) fn hold_run(&self, bytes: u64) -> Result<Option<Room>, RunError> {
        let Some((_, card)) = &self.card else { return Ok(None) };
        self.budget.hold_run(bytes, &**card).map(Some).map_err(|error| match error {
            NoRoom::Limit { .. } => RunError::InvalidInput(error.to_string()),
            NoRoom::Busy { .. } | NoRoom::Card { .. } => RunError::Failed(Box::new(error)),
        })
    }

    /// What candle's error in a run means. Where the card ran out of memory, what its allocator keeps is given back first, so that
    /// the next run finds it.
    pub(crate) fn failed(&self, error: candle_core::Error) -> RunError {
        match self.out_of_memory(error) {
            Ok(error) => RunError::Failed(Box::new(error)),
            Err(error) => RunError::Failed(Box::new(error)),
        }
    }

    /// What candle's error while `what` is loaded means.
    pub(crate) fn load_failed(&self, what: &str, error: candle_core::Error) -> LoadError {
        let (kind, cause) = match self.out_of_memory(error) {
            Ok(error) => (LoadErrorKind::TooLarge, Box::new(error) as Box<dyn Error + Send + Sync>),
            Err(error) => (LoadErrorKind::Engine, Box::new(error) as Box<dyn Error + Send + Sync>),
        };
        LoadError::new(kind, format!("{what}: {cause}")).with_cause(cause)
    }

    fn out_of_memory(&self, error: candle_core::Error) -> Result<OutOfMemory, candle_core::Error> {
        match &self.card {
            Some((number, card)) if gpu::is_out_of_memory(&error) => {
                card.trim();
                Ok(OutOfMemory { card: *number, source: error })
            }
            _ => Err(error),
        }
    }

    /// Runs `work` where candle's operations use `threads` threads and no others.
    ///
    /// # Errors
    /// When the system gives no further threads.
    pub(crate) fn run<T: Send>(&self, threads: usize, work: impl FnOnce() -> T + Send) -> Result<T, PlaceError> {
        // What a card computes does not come by rayon.
        if self.is_cpu() { Ok(millrace_threads::within(threads, work)?) } else { Ok(work()) }
    }
}

/// A card ran out of memory in the middle of something; the run is lost and nothing else.
#[derive(Debug, thiserror::Error)]
#[error("card {card} ran out of memory")]
pub(crate) struct OutOfMemory {
    card: usize,
    source: candle_core::Error,
}

/// A run had no place to be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// No threads.
    #[error("no threads to run on")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}
