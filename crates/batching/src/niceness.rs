//! What stands back for what, where cores are few. Threads that read requests and write answers go first: they need little,
//! and what they hold up waits for a batch more. A compute thread that shares a core with them would be taken off it only
//! every few milliseconds otherwise, and a long body needs many such turns to arrive.

/// Compute threads: a quarter of a core where somebody with normal priority wants all of it, else all of it.
pub(crate) const COMPUTE: i32 = 5;
/// What only makes later runs faster.
pub(crate) const PREPARE: i32 = 15;

/// Makes the calling thread so much nicer. What the operating system does not allow, or cannot do for one thread, is left
/// as it is.
pub(crate) fn stand_back(by: i32) {
    if cfg!(target_os = "linux")
        && let Err(error) = rustix::process::nice(by)
    {
        tracing::debug!(%error, "a thread keeps its normal priority");
    }
}
