//! Tells the manager that something may have changed on disk. What changed, only a scan says.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

/// Follows folders until dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    _watcher: RecommendedWatcher,
    told: Arc<AtomicBool>,
}

impl Watch {
    /// Follows `roots`; `touched` is called once for any number of changes, until [`Watch::listen`].
    /// Also gives what could not be followed, in words.
    pub(crate) fn start(roots: &[PathBuf], touched: impl Fn() + Send + 'static) -> (Option<Self>, Vec<String>) {
        let told = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&told);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error may be a lost event; looking again is never wrong.
            let matters = event.map_or(true, |event| is_change(&event));
            if matters && !seen.swap(true, Ordering::AcqRel) {
                touched();
            }
        });
        let mut watcher = match watcher {
            Ok(watcher) => watcher,
            Err(error) => return (None, vec![format!("changes on disk are found by polling alone: {error}")]),
        };
        let mut warnings = Vec::new();
        for root in roots {
            if let Err(error) = watcher.watch(root, RecursiveMode::Recursive) {
                let root = root.display();
                warnings.push(format!("changes below {root} are found by polling alone: {error}"));
            }
        }
        (Some(Self { _watcher: watcher, told }), warnings)
    }

    /// Listens again; call it before looking at the disk, so that a change during the look is told.
    pub(crate) fn listen(&self) {
        self.told.store(false, Ordering::Release);
    }
}

/// Whether an event can be a change: reading, which scans and loads do themselves, is none.
fn is_change(event: &notify::Event) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => event.need_rescan(),
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => true,
    }
}
