//! Where the system finds idle processors by itself, or gives no say: nothing of what `apart` does.

/// The threads of a pool.
#[derive(Debug, Clone, Default)]
pub(crate) struct Members;

impl Members {
    pub(crate) fn join(&self, _index: usize) {}
}

/// Where the threads of a run may be.
#[derive(Clone, Copy)]
pub(crate) struct Places;

impl Places {
    pub(crate) fn here() -> Self {
        Self
    }

    pub(crate) fn apart(self, _members: &Members, _first: usize) {}
}
