//! Announcing a request before its inputs are there: whoever would be refused whatever they are need not read them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use millrace_core::{Progress, Refusal, RequestContext};

use crate::queue::{Checked, Queue, RETRY};
use crate::{BatchQueue, clock};

/// A request that was announced and is still to come.
pub struct Expected(Arc<Queue>);

impl fmt::Debug for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expected").field("model", &self.0.name).finish_non_exhaustive()
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.expected.fetch_sub(1, Ordering::Relaxed);
    }
}

impl BatchQueue {
    /// Announces a request whose inputs are still to come, with about so much `work` (see [`Arrival::work`]), or 1 where
    /// nothing is known; it is expected until what this returns is dropped, which is to be before it is queued.
    ///
    /// [`Arrival::work`]: crate::Arrival::work
    ///
    /// # Errors
    /// A [`Refusal`], which counts as one, where the most urgent request of so much work would be refused, with all that are
    /// expected before it.
    pub fn knock(&self, context: &RequestContext, work: usize) -> Result<Expected, Refusal> {
        let queue = self.queue();
        queue.knock(context, work.max(1)).map_err(|refusal| {
            queue.statistics.refused();
            queue.metrics.refused(refusal.reason());
            refusal.with_progress(Progress::Door)
        })?;
        queue.expected.fetch_add(1, Ordering::Relaxed);
        Ok(Expected(Arc::clone(queue)))
    }
}

impl Queue {
    /// Whether a request with this context and so much work would be let in now, behind those that are expected.
    fn knock(&self, context: &RequestContext, work: usize) -> Result<(), Refusal> {
        self.check_open()?;
        let now = clock::now();
        if context.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(self.late());
        }
        let mut state = self.state.lock();
        if state.workers == 0 {
            return Err(self.idle());
        }
        // Where there are several groups, what a request would cost and wait for depends on its own.
        let only = state.former.only_group();
        let deadline = context.deadline.filter(|_| only.is_some());
        let group = only.unwrap_or_default();
        let typical = state.former.typical_work();
        let expected = self.expected.load(Ordering::Relaxed);
        let before = state.former.time_of(&group, expected.saturating_mul(typical));
        let takes = before + state.former.time_of(&group, work);
        let left = deadline.map(|deadline| deadline.saturating_duration_since(now));
        if !before.is_zero() && left.is_some_and(|left| takes > left) || before > self.config.max_queue_time {
            let wait = state.former.retry_after(&group, typical, now).unwrap_or(RETRY);
            let message = format!("requests that take {} ms are still arriving", before.as_millis());
            return Err(self.full(&message).with_retry_after(wait));
        }
        let deadline = deadline.and_then(|deadline| deadline.checked_sub(before));
        // A class is named in the body; once one was that goes before others, any request may be of it.
        let priority = state.most_urgent.min(context.priority);
        let context = RequestContext { deadline, priority, ..*context };
        let least = Checked { rows: 1, work, promised: typical, group, bytes: 0, now };
        let mut gone = Vec::new();
        let room = self.make_room(&mut state, &least, &context, &mut gone);
        drop(state);
        self.finish_dropped(gone);
        room
    }
}
