//! Doubly linked lists over small numbers, so that turns rotate and members leave in constant time, without a node each.
//!
//! Who the numbers stand for is the user's matter. All chains of one kind share one [`Links`]: a number is in at most
//! one of them.

const NONE: usize = usize::MAX;

/// The neighbours of every number: previous and next.
#[derive(Debug, Default)]
pub(crate) struct Links(Vec<[usize; 2]>);

/// One list: its first and last number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chain {
    head: usize,
    tail: usize,
}

impl Default for Chain {
    fn default() -> Self {
        Self { head: NONE, tail: NONE }
    }
}

impl Chain {
    /// The first number.
    pub(crate) fn head(self) -> Option<usize> {
        (self.head != NONE).then_some(self.head)
    }

    /// Adds a number that is in no chain.
    pub(crate) fn push_back(&mut self, links: &mut Links, id: usize) {
        links.make_room(id);
        links.0[id] = [self.tail, NONE];
        match self.tail {
            NONE => self.head = id,
            tail => links.0[tail][1] = id,
        }
        self.tail = id;
    }

    /// Adds a number that is in no chain, at the front.
    pub(crate) fn push_front(&mut self, links: &mut Links, id: usize) {
        links.make_room(id);
        links.0[id] = [NONE, self.head];
        match self.head {
            NONE => self.tail = id,
            head => links.0[head][0] = id,
        }
        self.head = id;
    }

    /// Takes out a number that is in this chain.
    pub(crate) fn remove(&mut self, links: &mut Links, id: usize) {
        let [before, after] = links.0[id];
        match before {
            NONE => self.head = after,
            before => links.0[before][1] = after,
        }
        match after {
            NONE => self.tail = before,
            after => links.0[after][0] = before,
        }
    }
}

impl Links {
    fn make_room(&mut self, id: usize) {
        if self.0.len() <= id {
            self.0.resize(id + 1, [NONE, NONE]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Chain, Links};

    fn drain(mut chain: Chain, links: &mut Links) -> Vec<usize> {
        let mut seen = Vec::new();
        while let Some(id) = chain.head() {
            chain.remove(links, id);
            seen.push(id);
        }
        seen
    }

    #[test]
    fn members_leave_from_anywhere_and_rejoin_at_either_end() {
        let (mut chain, mut links) = (Chain::default(), Links::default());
        for id in 0..5 {
            chain.push_back(&mut links, id);
        }
        chain.remove(&mut links, 2);
        chain.remove(&mut links, 4);
        chain.push_front(&mut links, 4);
        chain.remove(&mut links, 0);
        chain.push_back(&mut links, 0);
        assert_eq!(drain(chain, &mut links), [4, 1, 3, 0]);
    }
}
