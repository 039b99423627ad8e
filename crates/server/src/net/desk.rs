//! Where an HTTP/1 connection keeps the request that it is answering.
//!
//! The connection's task polls the request before hyper does, and hyper finds the answer ready, and free the part of its read
//! buffer in which the request lay. Without it small requests per second were 1 to 3 % fewer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;

/// Room for one request. Used again for the next, so that none costs an allocation. The lock is never waited for: only the
/// connection's task takes it.
pub(super) struct Desk<F: Future>(Arc<Mutex<Place<F>>>);

struct Place<F: Future> {
    request: Pin<Box<Option<F>>>,
    answer: Option<F::Output>,
    /// Whether hyper is the first to poll it in this turn of the task. It may poll several times, and a request that yields
    /// so that others can come means a whole turn. None is lost: what a request waits for wakes the task.
    is_due: bool,
}

impl<F: Future> Desk<F> {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Place { request: Box::pin(None), answer: None, is_due: false })))
    }

    /// Makes a request here, where it lies until it is done: as an argument all its room would be copied. hyper asks the
    /// [`Seat`] for its answer; dropping that gives the request up.
    #[inline]
    pub(super) fn put(&self, request: impl FnOnce() -> F) -> Seat<F> {
        let mut place = self.0.lock();
        place.request.set(Some(request()));
        place.is_due = true;
        drop(place);
        Seat(Arc::clone(&self.0))
    }

    /// Polls the request, if there is one, ahead of hyper and in place of it.
    pub(super) fn poll(&self, context: &mut Context<'_>) {
        let mut place = self.0.lock();
        place.is_due = false;
        if let Poll::Ready(answer) = place.poll(context) {
            place.answer = Some(answer);
        }
    }
}

impl<F: Future> Place<F> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<F::Output> {
        let Some(request) = self.request.as_mut().as_pin_mut() else { return Poll::Pending };
        let answer = ready!(request.poll(context));
        self.request.set(None);
        Poll::Ready(answer)
    }
}

/// hyper's end of a request.
pub(super) struct Seat<F: Future>(Arc<Mutex<Place<F>>>);

impl<F: Future> Future for Seat<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let mut place = self.0.lock();
        match place.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None if std::mem::take(&mut place.is_due) => place.poll(context),
            None => Poll::Pending,
        }
    }
}

impl<F: Future> Drop for Seat<F> {
    fn drop(&mut self) {
        let mut place = self.0.lock();
        place.request.set(None);
        place.answer = None;
        place.is_due = false;
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use super::Desk;

    /// A request that is ready when polled for the third time, and holds `held` until then.
    fn request(held: Arc<()>) -> impl Future<Output = &'static str> {
        let mut polls = 0;
        poll_fn(move |_| {
            let _held = &held;
            polls += 1;
            if polls == 3 { Poll::Ready("answer") } else { Poll::Pending }
        })
    }

    #[test]
    fn a_request_is_polled_ahead_of_hyper_and_done_before_it() {
        let (desk, held) = (Desk::new(), Arc::new(()));
        let mut context = Context::from_waker(Waker::noop());
        desk.poll(&mut context);
        let mut seat = pin!(desk.put(|| request(Arc::clone(&held))));
        // However often hyper asks, that is one turn.
        (0..3).for_each(|_| assert!(seat.as_mut().poll(&mut context).is_pending()));
        desk.poll(&mut context);
        assert!(seat.as_mut().poll(&mut context).is_pending());
        desk.poll(&mut context);
        assert_eq!(Arc::strong_count(&held), 1, "what the request held is free before hyper asks");
        assert_eq!(seat.as_mut().poll(&mut context), Poll::Ready("answer"));
    }

    #[test]
    fn a_request_that_hyper_gives_up_is_dropped_and_its_room_used_again() {
        let (desk, held) = (Desk::new(), Arc::new(()));
        let mut context = Context::from_waker(Waker::noop());
        drop(desk.put(|| request(Arc::clone(&held))));
        assert_eq!(Arc::strong_count(&held), 1);
        let mut seat = pin!(desk.put(|| request(held)));
        assert!(seat.as_mut().poll(&mut context).is_pending());
        desk.poll(&mut context);
        desk.poll(&mut context);
        assert_eq!(seat.as_mut().poll(&mut context), Poll::Ready("answer"));
    }
}
