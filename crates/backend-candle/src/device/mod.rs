//! Where a model's tensors live and on which threads its runs compute.

mod pools;

use candle_core::Device;
use millrace_core::LoadError;

use crate::options::Options;

/// The place of one model's tensors. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    device: Device,
}

impl Place {
    /// The place that `options` ask for.
    ///
    /// # Errors
    /// [`LoadError`] when there is no such device.
    pub(crate) fn open(_options: &Options) -> Result<Self, LoadError> {
        Ok(Self { device: Device::Cpu })
    }

    /// candle's name for it.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Whether the tensors lie in the machine's own memory.
    pub(crate) fn is_cpu(&self) -> bool {
        self.device.is_cpu()
    }

    /// As `facts` show it: `cpu`, `cuda:0`.
    pub(crate) fn name(&self) -> String {
        "cpu".to_owned()
    }

    /// Runs `work` where candle's operations use `threads` threads and no others.
    ///
    /// # Errors
    /// When the system gives no further threads.
    pub(crate) fn run<T: Send>(&self, threads: usize, work: impl FnOnce() -> T + Send) -> Result<T, PlaceError> {
        pools::within(threads, work)
    }
}

/// A run had no place to be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// No threads.
    #[error("no threads to run on")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}
