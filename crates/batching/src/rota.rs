//! Whose turn it is among those that wait: newcomers first, then the others in rotation. Pure, in constant time.
//!
//! Whoever comes when nothing of theirs waits has not used their share lately, and goes before those who were served since
//! they came: one request beside a hundred of somebody else waits for none of them. So that many newcomers do not keep the
//! others waiting for ever, they pass those in rotation at most as often in a row as there are members, and at most
//! [`MOST_PASSES`] times.
//!
//! Members are numbers; who they stand for is the user's matter.

use crate::chain::{Chain, Links};

/// However many there are, newcomers pass those in rotation no oftener than this in a row: where most that come are newcomers,
/// whoever has a second request waiting would wait for ever.
const MOST_PASSES: usize = 4;

/// Where each number stands. All rotas of one kind share one: a number is in at most one of them.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    links: Links,
    /// Whether it had a turn since it came.
    is_served: Vec<bool>,
}

/// One rota.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rota {
    fresh: Chain,
    served: Chain,
    members: usize,
    /// How many turns newcomers had since one of the others had one.
    passes: usize,
}

impl Rota {
    /// Whose turn it is.
    pub(crate) fn head(self) -> Option<usize> {
        let (fresh, served) = (self.fresh.head(), self.served.head());
        if self.passes < self.members.min(MOST_PASSES) { fresh.or(served) } else { served.or(fresh) }
    }

    /// Adds a number that is in no rota.
    pub(crate) fn join(&mut self, seats: &mut Seats, id: usize) {
        if seats.is_served.len() <= id {
            seats.is_served.resize(id + 1, false);
        }
        seats.is_served[id] = false;
        self.fresh.push_back(&mut seats.links, id);
        self.members += 1;
    }

    /// A member has had a turn, and still waits.
    pub(crate) fn serve(&mut self, seats: &mut Seats, id: usize) {
        let passes = !seats.is_served[id] && self.served.head().is_some();
        self.passes = if passes { self.passes + 1 } else { 0 };
        self.chain(seats, id).remove(&mut seats.links, id);
        seats.is_served[id] = true;
        self.served.push_back(&mut seats.links, id);
    }

    /// Gives the next turn to a member.
    pub(crate) fn lead(&mut self, seats: &mut Seats, id: usize) {
        self.chain(seats, id).remove(&mut seats.links, id);
        self.chain(seats, id).push_front(&mut seats.links, id);
        self.passes = if seats.is_served[id] { usize::MAX } else { 0 };
    }

    /// Takes out a member.
    pub(crate) fn leave(&mut self, seats: &mut Seats, id: usize) {
        self.chain(seats, id).remove(&mut seats.links, id);
        self.members -= 1;
        if self.members == 0 {
            self.passes = 0;
        }
    }

    fn chain(&mut self, seats: &Seats, id: usize) -> &mut Chain {
        if seats.is_served[id] { &mut self.served } else { &mut self.fresh }
    }
}

#[cfg(test)]
mod tests {
    use super::{Rota, Seats};

    /// Gives so many turns; a newcomer comes before each, and leaves when served. Returns who had them.
    fn with_newcomers(rota: &mut Rota, seats: &mut Seats, turns: usize) -> Vec<usize> {
        let give = |turn: usize| {
            rota.join(seats, 100 + turn);
            let id = rota.head().unwrap();
            rota.serve(seats, id);
            if id >= 100 {
                rota.leave(seats, id);
            }
            id
        };
        (0..turns).map(give).collect()
    }

    #[test]
    fn newcomers_go_before_those_in_rotation_and_do_not_starve_them() {
        let (mut rota, mut seats) = (Rota::default(), Seats::default());
        rota.join(&mut seats, 0);
        rota.join(&mut seats, 1);
        for expected in [0, 1, 0, 1, 0] {
            assert_eq!(rota.head(), Some(expected));
            rota.serve(&mut seats, expected);
        }
        // Three wait then, so every fourth turn is of the rotation; with the newcomers that were passed over there are more.
        let turns = with_newcomers(&mut rota, &mut seats, 40);
        assert_eq!(turns[..3], [100, 101, 102]);
        assert_eq!(turns.iter().copied().find(|id| *id < 100), Some(1));
        let others = turns.iter().filter(|id| **id < 100).count();
        assert!((4..=10).contains(&others), "{turns:?}");
    }

    #[test]
    fn who_leads_has_the_next_turn_wherever_it_stood() {
        let (mut rota, mut seats) = (Rota::default(), Seats::default());
        for id in 0..3 {
            rota.join(&mut seats, id);
        }
        rota.serve(&mut seats, 0);
        rota.lead(&mut seats, 0);
        assert_eq!(rota.head(), Some(0));
        rota.lead(&mut seats, 2);
        assert_eq!(rota.head(), Some(2));
        rota.leave(&mut seats, 2);
        assert_eq!(rota.head(), Some(1));
    }
}
