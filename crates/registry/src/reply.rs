//! Answers that come later, on any executor: one to one order, and one event to everybody who waits for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use millrace_core::{Reason, Refusal, Registered};
use parking_lot::Mutex;

/// What an order comes to; registering tells what was registered.
pub(crate) type OrderResult = Result<Option<Registered>, Refusal>;

/// Gives the answer to one order. Dropped without one, the order is refused: the registry has shut down.
#[derive(Debug)]
pub(crate) struct Reply(Option<Arc<Mutex<State>>>);

/// Waits for the answer to one order.
#[derive(Debug)]
pub(crate) struct Answer(Arc<Mutex<State>>);

#[derive(Debug)]
enum State {
    Waiting(Option<Waker>),
    Answered(Option<OrderResult>),
}

/// An order's two ends.
pub(crate) fn reply() -> (Reply, Answer) {
    let state = Arc::new(Mutex::new(State::Waiting(None)));
    (Reply(Some(Arc::clone(&state))), Answer(state))
}

/// The refusal of everything after a shutdown.
pub(crate) fn shut_down() -> Refusal {
    Refusal::new(Reason::Draining, "the server is shutting down")
}

impl Reply {
    pub(crate) fn give(mut self, result: OrderResult) {
        self.answer(result);
    }

    fn answer(&mut self, result: OrderResult) {
        let Some(state) = self.0.take() else { return };
        let before = std::mem::replace(&mut *state.lock(), State::Answered(Some(result)));
        if let State::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.answer(Err(shut_down()));
    }
}

impl Future for Answer {
    type Output = OrderResult;

    /// # Panics
    /// When polled again after it was ready, as futures may.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<OrderResult> {
        match &mut *self.0.lock() {
            State::Waiting(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            State::Answered(result) => Poll::Ready(result.take().expect("polled after it was ready")),
        }
    }
}

/// An event that happens once.
#[derive(Debug, Default)]
pub(crate) struct Event(Mutex<EventState>);

#[derive(Debug, Default)]
struct EventState {
    happened: bool,
    released: bool,
    waiting: Vec<Waker>,
}

impl Event {
    /// It happens.
    pub(crate) fn happen(&self) {
        self.release(true);
    }

    /// It never will: whoever waits goes on all the same.
    pub(crate) fn give_up(&self) {
        self.release(false);
    }

    /// Whether it has happened.
    pub(crate) fn has_happened(&self) -> bool {
        self.0.lock().happened
    }

    fn release(&self, happened: bool) {
        let waiting = {
            let mut state = self.0.lock();
            state.released = true;
            state.happened |= happened;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.released {
            return Poll::Ready(());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            state.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}

/// Waits for an [`Event`] of something shared.
pub(crate) struct Happened<T>(pub(crate) Arc<T>, pub(crate) fn(&T) -> &Event);

impl<T> Future for Happened<T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        (self.1)(&self.0).poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use millrace_core::Reason;

    use super::{Event, Happened, reply};

    #[test]
    fn an_answer_reaches_a_waiter_on_another_thread() {
        let (reply, answer) = reply();
        let waiter = thread::spawn(move || pollster::block_on(answer));
        reply.give(Ok(None));
        waiter.join().unwrap().unwrap();
    }

    #[test]
    fn a_lost_order_is_refused() {
        let (lost, answer) = reply();
        drop(lost);
        assert_eq!(pollster::block_on(answer).unwrap_err().reason(), Reason::Draining);
    }

    #[test]
    fn an_event_wakes_everybody_and_stays() {
        let event = Arc::new(Event::default());
        let wait = |event: &Arc<Event>| Happened(Arc::clone(event), |event| event);
        let waiters: Vec<_> =
            (0..4).map(|_| wait(&event)).map(|wait| thread::spawn(move || pollster::block_on(wait))).collect();
        event.happen();
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        pollster::block_on(wait(&event));
        assert!(event.has_happened());
    }

    #[test]
    fn an_event_given_up_has_not_happened() {
        let event = Arc::new(Event::default());
        event.give_up();
        pollster::block_on(Happened(Arc::clone(&event), |event| event));
        assert!(!event.has_happened());
    }
}
