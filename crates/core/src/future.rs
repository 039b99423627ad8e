//! The answer that is on its way.
//!
//! [`InferFuture`] is one concrete type, so that the plain path (a queue's slot) boxes nothing, whatever layers the
//! request passed through.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::cell::Cell;
use crate::{InferResponse, Reason, Refusal};

/// What a servable gives in the end.
pub type InferResult = Result<InferResponse, Refusal>;

/// The answer to one request. Dropping it cancels the request: work that has not begun never will.
#[must_use = "dropping it cancels the request"]
pub struct InferFuture(Kind);

enum Kind {
    Ready(Option<Box<InferResult>>),
    Slot(Arc<Cell<InferResult>>),
    Led(Led),
    Boxed(Pin<Box<dyn Future<Output = InferResult> + Send + 'static>>),
}

impl InferFuture {
    /// An answer that is there already.
    pub fn ready(result: InferResult) -> Self {
        Self(Kind::Ready(Some(Box::new(result))))
    }

    /// A refusal that is there already.
    pub fn refused(refusal: Refusal) -> Self {
        Self::ready(Err(refusal))
    }

    /// Any future. Costs a box; meant for layers that do more than pass a request on.
    pub fn boxed(future: impl Future<Output = InferResult> + Send + 'static) -> Self {
        Self(Kind::Boxed(Box::pin(future)))
    }

    /// The same, with a chance for the thread that polls it to do the work itself: the first poll yields once, so that
    /// whoever asks at the same time on this thread can join; the next one calls the leader, unless the answer has come.
    ///
    /// Only futures of [`InferFuture::slot`] are led; any other comes back as it is, and the leader is dropped.
    pub fn led_by(mut self, leader: Box<dyn Leader>) -> Self {
        if let Kind::Slot(cell) = &self.0 {
            let cell = Arc::clone(cell);
            self.0 = Kind::Led(Led { cell, leader: Some(leader), turn: Turn::First });
        }
        self
    }

    /// The same for one whose answer somebody else leads to, whose turn on this thread comes before: the first poll asks for
    /// another one, which mostly finds the answer.
    pub fn led_elsewhere(mut self) -> Self {
        if let Kind::Slot(cell) = &self.0 {
            let cell = Arc::clone(cell);
            self.0 = Kind::Led(Led { cell, leader: None, turn: Turn::First });
        }
        self
    }

    /// Whether it has just asked to be polled again at once, because of [`InferFuture::led_by`] or
    /// [`InferFuture::led_elsewhere`]: no time to set a timer.
    pub fn is_yielding(&self) -> bool {
        matches!(&self.0, Kind::Led(Led { turn: Turn::Yielded, .. }))
    }

    /// An answer that another thread will give through the [`Slot`].
    pub fn slot() -> (Slot, Self) {
        let cell = Arc::new(Cell::default());
        (Slot(Some(Arc::clone(&cell))), Self(Kind::Slot(cell)))
    }
}

impl Future for InferFuture {
    type Output = InferResult;

    /// # Panics
    /// When polled again after it was ready, as futures may.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<InferResult> {
        match &mut self.0 {
            Kind::Ready(result) => Poll::Ready(*result.take().expect("polled after it was ready")),
            Kind::Slot(cell) => cell.poll(context),
            Kind::Led(led) => led.poll(context),
            Kind::Boxed(future) => future.as_mut().poll(context),
        }
    }
}

impl Drop for InferFuture {
    fn drop(&mut self) {
        if let Kind::Slot(cell) | Kind::Led(Led { cell, .. }) = &self.0 {
            cell.cancel();
        }
    }
}

impl fmt::Debug for InferFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Ready(_) => "InferFuture::Ready",
            Kind::Slot(_) => "InferFuture::Slot",
            Kind::Led(_) => "InferFuture::Led",
            Kind::Boxed(_) => "InferFuture::Boxed",
        })
    }
}

/// Work that the thread which polls an answer may do itself, in place of waking another one for it.
///
/// Dropped unused, as when the caller has gone, it must see to it that somebody else does the work: others may count on
/// it.
pub trait Leader: Send + 'static {
    /// Does the work, or has it done elsewhere. Short: the thread has other requests to see to.
    fn lead(self: Box<Self>);
}

struct Led {
    cell: Arc<Cell<InferResult>>,
    leader: Option<Box<dyn Leader>>,
    turn: Turn,
}

/// What the next poll is there for.
enum Turn {
    /// To let others come.
    First,
    /// To lead, or to find the answer.
    Yielded,
    /// To find the answer: it takes longer.
    Over,
}

impl Led {
    fn poll(&mut self, context: &Context<'_>) -> Poll<InferResult> {
        let answer = self.cell.poll(context);
        if answer.is_ready() {
            return answer;
        }
        if matches!(self.turn, Turn::First) {
            self.turn = Turn::Yielded;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.turn = Turn::Over;
        match self.leader.take() {
            Some(leader) => {
                leader.lead();
                self.cell.poll(context)
            }
            None => Poll::Pending,
        }
    }
}

/// The end of an [`InferFuture`] that gives the answer, once. Dropped without one, the caller gets `BackendBroken`.
#[must_use = "dropping it fails the request"]
pub struct Slot(Option<Arc<Cell<InferResult>>>);

impl Slot {
    /// Whether the caller has gone. An answer would reach nobody.
    pub fn is_cancelled(&self) -> bool {
        self.0.as_ref().is_none_or(|cell| cell.is_cancelled())
    }

    /// Gives the answer and wakes the caller.
    pub fn answer(mut self, result: InferResult) {
        if let Some(waker) = self.0.take().and_then(|cell| cell.answer(result)) {
            waker.wake();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(cell) = self.0.take() {
            let lost = Refusal::new(Reason::BackendBroken, "the request was dropped before it was answered");
            if let Some(waker) = cell.answer(Err(lost)) {
                waker.wake();
            }
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("cancelled", &self.is_cancelled()).finish()
    }
}

/// A sequence of answers to one request. Today's servables give exactly one; decoupled models will give more.
#[derive(Debug)]
pub struct InferStream(Option<InferFuture>);

impl InferStream {
    /// A stream of the one answer.
    pub fn once(future: InferFuture) -> Self {
        Self(Some(future))
    }

    /// The next answer, or `None` when there is no more.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<InferResult>> {
        let Some(future) = &mut self.0 else { return Poll::Ready(None) };
        let result = std::task::ready!(Pin::new(future).poll(context));
        self.0 = None;
        Poll::Ready(Some(result))
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::thread;

    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use parking_lot::Mutex;

    use super::{InferFuture, Leader, Slot};
    use crate::{Reason, Refusal};

    /// Answers the slot when it leads, and counts how it ended.
    struct Answers {
        slot: Arc<Mutex<Option<Slot>>>,
        dropped: Arc<AtomicUsize>,
    }

    impl Leader for Answers {
        fn lead(self: Box<Self>) {
            if let Some(slot) = self.slot.lock().take() {
                slot.answer(Err(Refusal::new(Reason::Late, "led")));
            }
        }
    }

    impl Drop for Answers {
        fn drop(&mut self) {
            self.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn led() -> (Arc<Mutex<Option<Slot>>>, Arc<AtomicUsize>, InferFuture) {
        let (slot, future) = InferFuture::slot();
        let (slot, dropped) = (Arc::new(Mutex::new(Some(slot))), Arc::new(AtomicUsize::new(0)));
        let leader = Answers { slot: Arc::clone(&slot), dropped: Arc::clone(&dropped) };
        (slot, dropped, future.led_by(Box::new(leader)))
    }

    #[test]
    fn whoever_polls_again_leads() {
        let (_, dropped, future) = led();
        assert_eq!(pollster::block_on(future).unwrap_err().message(), "led");
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn an_answer_that_came_by_itself_needs_no_leader() {
        let (slot, dropped, future) = led();
        slot.lock().take().unwrap().answer(Err(Refusal::new(Reason::Late, "came")));
        assert_eq!(pollster::block_on(future).unwrap_err().message(), "came");
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_led_future_that_is_dropped_cancels_and_lets_its_leader_go() {
        let (slot, dropped, future) = led();
        drop(future);
        assert!(slot.lock().as_ref().unwrap().is_cancelled());
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn one_that_another_leads_to_asks_once_more_and_then_waits() {
        let (slot, future) = InferFuture::slot();
        let mut future = future.led_elsewhere();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut poll = || {
            let is_pending = std::pin::Pin::new(&mut future).poll(&mut context).is_pending();
            (is_pending, future.is_yielding())
        };
        assert_eq!((poll(), poll(), poll()), ((true, true), (true, false), (true, false)));
        slot.answer(Err(Refusal::new(Reason::Late, "came")));
        assert_eq!(pollster::block_on(future).unwrap_err().message(), "came");
    }

    #[test]
    fn an_answer_from_another_thread_arrives() {
        let (slot, future) = InferFuture::slot();
        let thread = thread::spawn(move || slot.answer(Err(Refusal::new(Reason::Late, "late"))));
        assert_eq!(pollster::block_on(future).unwrap_err().reason(), Reason::Late);
        thread.join().unwrap();
    }

    #[test]
    fn a_dropped_future_is_seen_as_cancelled() {
        let (slot, future) = InferFuture::slot();
        assert!(!slot.is_cancelled());
        drop(future);
        assert!(slot.is_cancelled());
    }

    #[test]
    fn a_dropped_slot_is_an_error_and_not_a_hang() {
        let (slot, future) = InferFuture::slot();
        drop(slot);
        assert_eq!(pollster::block_on(future).unwrap_err().reason(), Reason::BackendBroken);
    }
}
