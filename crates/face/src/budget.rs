//! How much memory pictures may take at once: who comes when there is no room waits for its turn.
//!
//! A semaphore with weights, first come, first served, that needs no runtime. Dropping a waiter leaves the queue.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// How many pixels may be in work at once, in all pipelines that share it. A picture that finds no room waits its turn, in
/// the order of arrival; one larger than the whole budget waits until it is alone.
///
/// At most 1024 pictures wait; further ones are refused. A picture takes about 25 bytes for each of its pixels, and while the
/// first network runs as much again.
///
/// What the pictures in work ask the networks is bounded as well, at 128 MiB together: half of what a network's queue takes by
/// default, so that no picture that was admitted is refused half-way because of others like it.
///
/// A handle: clones are one budget.
#[derive(Clone)]
pub struct PictureBudget {
    pictures: Arc<Shared>,
    /// What a picture counts for at the least.
    least: usize,
    questions: Arc<Shared>,
}

struct Shared {
    whole: usize,
    most_waiting: usize,
    state: Mutex<State>,
}

struct State {
    left: usize,
    /// The number of the next waiter.
    next: u64,
    /// Those who wait, in the order they came.
    queue: VecDeque<Waiting>,
}

struct Waiting {
    number: u64,
    units: usize,
    waker: Waker,
}

/// Bytes of all questions together that the networks are asked at once.
const QUESTIONS: usize = 128 << 20;
/// How many pictures may wait for room: each holds the request that it came in.
const MOST_WAITING: usize = 1024;

/// Too many pictures wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MOST_WAITING} pictures wait already")]
pub(crate) struct Full;

/// Room for one picture, or for one question. Dropping it gives the room back.
#[must_use = "dropping it gives the room back"]
pub(crate) struct Room {
    budget: Arc<Shared>,
    units: usize,
}

impl PictureBudget {
    /// A budget of this many pixels.
    pub fn new(whole: usize) -> Self {
        // Who asks has been admitted, so that their number is bounded already.
        Self { pictures: Shared::new(whole, MOST_WAITING), least: 0, questions: Shared::new(QUESTIONS, usize::MAX) }
    }

    /// Waits for room for `pixels`.
    ///
    /// # Errors
    /// [`Full`], without waiting.
    pub(crate) fn room(&self, pixels: usize) -> impl Future<Output = Result<Room, Full>> + Send + use<> {
        Turn::new(&self.pictures, pixels.max(self.least))
    }

    /// Waits for room for a question of so many bytes. Only for pictures that have their own.
    ///
    /// # Errors
    /// None: nobody is too many.
    pub(crate) fn question(&self, bytes: usize) -> impl Future<Output = Result<Room, Full>> + Send + use<> {
        Turn::new(&self.questions, bytes)
    }
}

impl Shared {
    fn new(whole: usize, most_waiting: usize) -> Arc<Self> {
        let state = State { left: whole, next: 0, queue: VecDeque::new() };
        Arc::new(Self { whole, most_waiting, state: Mutex::new(state) })
    }
}

impl Default for PictureBudget {
    /// 16 777 216 pixels, and at most four pictures for each core: more would share the cores until all of them are late, where
    /// the first ones could be done in time.
    fn default() -> Self {
        let whole = 1 << 24;
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { least: whole / (4 * cores), ..Self::new(whole) }
    }
}

impl fmt::Debug for PictureBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.pictures.state.lock();
        write!(f, "PictureBudget({} of {} pixels left, {} wait)", state.left, self.pictures.whole, state.queue.len())
    }
}

/// Waits until its turn has come and there is room.
struct Turn {
    budget: Arc<Shared>,
    units: usize,
    /// Its number in the queue, once it stands there.
    number: Option<u64>,
}

impl Turn {
    fn new(budget: &Arc<Shared>, units: usize) -> Self {
        Self { budget: Arc::clone(budget), units: units.min(budget.whole), number: None }
    }
}

impl Future for Turn {
    type Output = Result<Room, Full>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Room, Full>> {
        let budget = Arc::clone(&self.budget);
        let mut state = budget.state.lock();
        let is_first = match self.number {
            Some(number) => state.queue.front().is_some_and(|first| first.number == number),
            None => state.queue.is_empty(),
        };
        if is_first && self.units <= state.left {
            state.left -= self.units;
            if self.number.take().is_some() {
                state.queue.pop_front();
            }
            let next = state.ready();
            drop(state);
            wake(next);
            return Poll::Ready(Ok(Room { budget, units: self.units }));
        }
        let waker = context.waker();
        if self.number.is_none() && state.queue.len() >= budget.most_waiting {
            return Poll::Ready(Err(Full));
        }
        match self.number.and_then(|number| state.queue.iter_mut().find(|waiting| waiting.number == number)) {
            Some(waiting) => waiting.waker.clone_from(waker),
            None => {
                let number = state.next;
                state.next += 1;
                state.queue.push_back(Waiting { number, units: self.units, waker: waker.clone() });
                self.number = Some(number);
            }
        }
        Poll::Pending
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut state = self.budget.state.lock();
        state.queue.retain(|waiting| waiting.number != number);
        let next = state.ready();
        drop(state);
        wake(next);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut state = self.budget.state.lock();
        state.left += self.units;
        let next = state.ready();
        drop(state);
        wake(next);
    }
}

impl State {
    /// Whom to wake: the first in the queue, if there is room for it.
    fn ready(&self) -> Option<Waker> {
        self.queue.front().filter(|first| first.units <= self.left).map(|first| first.waker.clone())
    }
}

/// Wakes outside of the lock: a waker may run anything.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    use super::{Full, MOST_WAITING, PictureBudget, QUESTIONS, Room};

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// One who wants room.
    struct Wants {
        future: Pin<Box<dyn Future<Output = Result<Room, Full>>>>,
        counter: Arc<Counter>,
    }

    impl Wants {
        fn new(budget: &PictureBudget, pixels: usize) -> Self {
            Self { future: Box::pin(budget.room(pixels)), counter: Arc::default() }
        }

        fn poll(&mut self) -> Option<Room> {
            let waker = Waker::from(Arc::clone(&self.counter));
            match self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(room) => Some(room.unwrap()),
                Poll::Pending => None,
            }
        }

        fn woken(&self) -> usize {
            self.counter.0.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn who_finds_no_room_waits_until_there_is_some() {
        let budget = PictureBudget::new(10);
        let (first, mut second) = (Wants::new(&budget, 6).poll().unwrap(), Wants::new(&budget, 6));
        assert!(second.poll().is_none());
        drop(first);
        assert_eq!(second.woken(), 1);
        assert!(second.poll().is_some());
    }

    #[test]
    fn small_ones_do_not_overtake_a_large_one() {
        let budget = PictureBudget::new(10);
        let first = Wants::new(&budget, 6).poll().unwrap();
        let (mut large, mut small) = (Wants::new(&budget, 8), Wants::new(&budget, 1));
        assert!(large.poll().is_none() && small.poll().is_none());
        drop(first);
        assert_eq!((large.woken(), small.woken()), (1, 0));
        let large = large.poll().unwrap();
        // Who got in wakes the next one, as there is room left.
        assert_eq!(small.woken(), 1);
        drop((large, small.poll().unwrap()));
    }

    #[test]
    fn who_leaves_the_queue_lets_the_next_one_in() {
        let budget = PictureBudget::new(10);
        let _first = Wants::new(&budget, 6).poll().unwrap();
        let (mut large, mut small) = (Wants::new(&budget, 8), Wants::new(&budget, 1));
        assert!(large.poll().is_none() && small.poll().is_none());
        drop(large);
        assert_eq!(small.woken(), 1);
        assert!(small.poll().is_some());
    }

    #[test]
    fn what_is_too_large_for_the_budget_goes_alone() {
        let budget = PictureBudget::new(10);
        let first = Wants::new(&budget, 1).poll().unwrap();
        let mut huge = Wants::new(&budget, 1000);
        assert!(huge.poll().is_none());
        drop(first);
        let huge = huge.poll().unwrap();
        let mut next = Wants::new(&budget, 1);
        assert!(next.poll().is_none());
        drop(huge);
        assert!(next.poll().is_some());
    }

    #[test]
    fn questions_wait_for_one_another_and_not_for_pictures() {
        let budget = PictureBudget::new(1);
        let _picture = Wants::new(&budget, 1).poll().unwrap();
        let ask = |bytes| Wants { future: Box::pin(budget.question(bytes)), counter: Arc::default() };
        let first = ask(QUESTIONS).poll().unwrap();
        let mut others: Vec<_> = (0..2 * MOST_WAITING).map(|_| ask(1)).collect();
        assert!(others.iter_mut().all(|wants| wants.poll().is_none()));
        drop(first);
        let rooms: Vec<_> = others.iter_mut().map(Wants::poll).collect();
        assert!(rooms.iter().all(Option::is_some));
    }

    #[test]
    fn only_so_many_wait() {
        let budget = PictureBudget::new(10);
        let _first = Wants::new(&budget, 10).poll().unwrap();
        let mut waiting: Vec<_> = (0..MOST_WAITING).map(|_| Wants::new(&budget, 1)).collect();
        assert!(waiting.iter_mut().all(|wants| wants.poll().is_none()));
        let one_more = pollster::block_on(budget.room(1));
        assert_eq!(one_more.err(), Some(Full));
        waiting.pop();
        assert!(Wants::new(&budget, 1).poll().is_none());
    }
}
