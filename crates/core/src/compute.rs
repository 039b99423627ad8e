//! CPU work that must not run on an I/O thread.

use crate::Refusal;

/// A piece of CPU work.
pub type Job = Box<dyn FnOnce() + Send + 'static>;

/// Runs CPU work such as decoding large bodies or images on the same bounded threads that run models.
///
/// A job never waits for an inference: it would hold the very thread that the inference needs.
pub trait Compute: std::fmt::Debug + Send + Sync {
    /// Runs `job` soon, on some compute thread. A panic inside it is contained there.
    ///
    /// # Errors
    /// A [`Refusal`] (`QueueFull` or `Draining`) when the pool will not take it; `job` is then dropped unrun.
    fn run(&self, job: Job) -> Result<(), Refusal>;

    /// How many threads there are, where that can be told.
    fn workers(&self) -> Option<usize> {
        None
    }
}
