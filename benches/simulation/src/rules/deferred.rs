//! Deferred batch scheduling: wait as long as one request more could still ride and everybody be in time.

use std::collections::VecDeque;

use super::{Decider, Key, Next};
use crate::Request;

pub(super) struct Deferred<C> {
    size: usize,
    cost: C,
    /// Requests with their deadlines, earliest first.
    queue: VecDeque<(usize, f64)>,
}

impl<C: Fn(usize) -> f64> Deferred<C> {
    pub(super) fn new(size: usize, cost: C) -> Self {
        Self { size, cost, queue: VecDeque::new() }
    }

    /// The most requests from the front that a run begun `now` answers by the deadline of the first.
    fn fitting(&self, now: f64) -> usize {
        let Some((_, deadline)) = self.queue.front() else { return 0 };
        let most = self.queue.len().min(self.size);
        (1..=most).take_while(|count| now + (self.cost)(*count) <= *deadline).count()
    }
}

impl<C: Fn(usize) -> f64> Decider for Deferred<C> {
    fn push(&mut self, id: usize, request: &Request, now: f64) -> Result<(), f64> {
        let deadline = now + request.within;
        let place = self.queue.partition_point(|(_, earlier)| *earlier <= deadline);
        self.queue.insert(place, (id, deadline));
        Ok(())
    }

    fn take(&mut self, now: f64) -> Next {
        // A head that cannot be in time, or keeps the others in smaller batches than they could have, is given up.
        while let Some((_, deadline)) = self.queue.front()
            && now + (self.cost)(1) > *deadline
        {
            self.queue.pop_front();
        }
        let count = self.fitting(now);
        let Some((_, deadline)) = self.queue.front() else { return Next::Nothing };
        let latest = deadline - (self.cost)(count + 1);
        if count < self.size && count == self.queue.len() && now < latest {
            return Next::Ask(latest);
        }
        Next::Run { ids: self.queue.drain(..count).map(|(id, _)| id).collect(), runs: vec![count], key: None }
    }

    fn ran(&mut self, _: usize, _: f64) {}

    fn ended(&mut self, _: Key) {}
}
