//! Keeps the threads of one run on processors of their own.
//!
//! A thread that is woken belongs on an idle processor, and Linux looks for one; but in a virtual machine it takes a halted
//! processor for one that another guest has (`vcpu_is_preempted`), and may put the woken thread where its waker is, there to
//! wait for it: two threads then compute for as long as one. So for the time of a run its first thread stays where it is,
//! and the others keep away from there.

use std::sync::Arc;

use parking_lot::Mutex;
use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// The threads of a pool, by their index there, as far as they have begun.
#[derive(Debug, Clone, Default)]
pub(crate) struct Members(Arc<Mutex<Vec<(usize, Pid)>>>);

impl Members {
    /// Says that the calling thread is number `index`.
    pub(crate) fn join(&self, index: usize) {
        self.0.lock().push((index, gettid()));
    }
}

/// Where the threads of a run may be: wherever who asked for it may be.
#[derive(Clone, Copy)]
pub(crate) struct Places(Option<CpuSet>);

impl Places {
    /// Those of the calling thread.
    pub(crate) fn here() -> Self {
        Self(sched_getaffinity(None).ok().filter(|allowed| allowed.count() > 1))
    }

    /// Keeps `members` apart until what this gives is dropped. The calling one is `first`.
    pub(crate) fn apart(self, members: &Members, first: usize) -> Apart<'_> {
        let here = sched_getcpu();
        let is_known = |allowed: &CpuSet| here < CpuSet::MAX_CPU && allowed.is_set(here);
        let allowed = self.0.filter(|allowed| is_known(allowed) && members.0.lock().len() > 1);
        if let Some(allowed) = &allowed {
            let members = members.0.lock();
            let others: Vec<usize> = set_of(allowed).filter(|place| *place != here).collect();
            // Where there are as many processors as threads each has its own. Where there are more, the system chooses
            // among them: it knows which ones are idle.
            let is_one_each = members.len() > others.len();
            let mut next = 0;
            for (index, thread) in &*members {
                if *index == first {
                    keep(*thread, &[here]);
                } else if is_one_each {
                    keep(*thread, &others[next % others.len()..][..1]);
                    next += 1;
                } else {
                    keep(*thread, &others);
                }
            }
        }
        Apart { members, allowed }
    }
}

/// The threads of a run that are kept apart, until this is dropped.
pub(crate) struct Apart<'a> {
    members: &'a Members,
    allowed: Option<CpuSet>,
}

impl Drop for Apart<'_> {
    fn drop(&mut self) {
        let Some(allowed) = &self.allowed else { return };
        for (_, thread) in &*self.members.0.lock() {
            let _ = sched_setaffinity(Some(*thread), allowed);
        }
    }
}

/// Where it may not be moved a thread stays: that costs time and nothing else.
fn keep(thread: Pid, places: &[usize]) {
    let mut set = CpuSet::new();
    for place in places {
        set.set(*place);
    }
    let _ = sched_setaffinity(Some(thread), &set);
}

fn set_of(set: &CpuSet) -> impl Iterator<Item = usize> {
    (0..CpuSet::MAX_CPU).filter(|place| set.is_set(*place))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    fn of(thread: Pid) -> Vec<usize> {
        set_of(&sched_getaffinity(Some(thread)).unwrap()).collect()
    }

    /// The places of each of `count` threads while they are kept apart and afterwards; the first one's come first.
    fn places(count: usize) -> [Vec<Vec<usize>>; 2] {
        let (members, all_are_there, may_end) = (Members::default(), Barrier::new(count), Barrier::new(count));
        let others = members.clone();
        thread::scope(|scope| {
            for index in 1..count {
                let (others, all_are_there, may_end) = (&others, &all_are_there, &may_end);
                scope.spawn(move || {
                    others.join(index);
                    all_are_there.wait();
                    may_end.wait();
                });
            }
            let seen = scope.spawn(|| {
                members.join(0);
                all_are_there.wait();
                let each = || {
                    let mut all: Vec<(usize, Pid)> = members.0.lock().clone();
                    all.sort_unstable_by_key(|(index, _)| *index);
                    all.into_iter().map(|(_, thread)| of(thread)).collect::<Vec<_>>()
                };
                let apart = Places::here().apart(&members, 0);
                let during = each();
                drop(apart);
                let after = each();
                may_end.wait();
                [during, after]
            });
            seen.join().unwrap()
        })
    }

    #[test]
    fn threads_of_a_run_are_apart_and_free_again_afterwards() {
        let allowed: Vec<usize> = set_of(&sched_getaffinity(None).unwrap()).collect();
        if allowed.len() < 2 {
            return; // nothing to be apart on
        }
        let [during, after] = places(allowed.len());
        assert!(after.iter().all(|places| *places == allowed), "{after:?}");
        let mut taken: Vec<usize> = during.concat();
        taken.sort_unstable();
        assert_eq!((taken, during.len()), (allowed.clone(), allowed.len()), "each has one of its own");

        let [during, _] = places(2);
        assert_eq!(during[0].len(), 1);
        assert!(!during[1].is_empty() && !during[1].contains(&during[0][0]), "{during:?}");
        assert_eq!(during[1].len(), allowed.len() - 1, "all the others");

        // More threads than processors: they share, and none is lost.
        let [during, _] = places(allowed.len() + 2);
        assert!(during.iter().all(|places| places.len() == 1), "{during:?}");
    }
}
