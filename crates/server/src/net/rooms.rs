//! Where an HTTP/2 connection keeps the requests that it is answering.
//!
//! A request's future has some kilobytes. Made in a room that another has left, it costs no allocation, and what the
//! processor's caches hold of the room is of use again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;

/// Rooms kept when nobody is in them. A connection that rests holds no more.
const KEPT: usize = 32;

/// The rooms of one connection.
pub(super) struct Rooms<F>(Arc<Mutex<Vec<Room<F>>>>);

type Room<F> = Pin<Box<Option<F>>>;

impl<F: Future> Rooms<F> {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// Makes a request in a room of its own: as an argument all its room would be copied.
    #[inline]
    pub(super) fn put(&self, request: impl FnOnce() -> F) -> Lodger<F> {
        let empty = self.0.lock().pop();
        let mut room = empty.unwrap_or_else(|| Box::pin(None));
        room.set(Some(request()));
        Lodger { room: Some(room), empty: Arc::clone(&self.0) }
    }
}

/// A request in its room. Dropping it gives the request up.
pub(super) struct Lodger<F> {
    /// There until it is dropped.
    room: Option<Room<F>>,
    empty: Arc<Mutex<Vec<Room<F>>>>,
}

impl<F: Future> Future for Lodger<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let request = self.room.as_mut().and_then(|room| room.as_mut().as_pin_mut());
        request.expect("not polled after it was dropped").poll(context)
    }
}

impl<F> Drop for Lodger<F> {
    fn drop(&mut self) {
        let Some(mut room) = self.room.take() else { return };
        room.set(None);
        let mut empty = self.empty.lock();
        if empty.len() < KEPT {
            empty.push(room);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, pending, ready};
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use super::{KEPT, Rooms};

    #[test]
    fn a_request_that_is_given_up_is_dropped_and_its_room_used_again() {
        let (rooms, held) = (Rooms::new(), Arc::new(()));
        let request = || {
            let held = Arc::clone(&held);
            async move {
                pending::<()>().await;
                drop(held);
            }
        };
        let first = rooms.put(request);
        let place = room_of(&first);
        assert_eq!(Arc::strong_count(&held), 2);
        drop(first);
        assert_eq!(Arc::strong_count(&held), 1);
        let second = rooms.put(request);
        assert_eq!(room_of(&second), place);
        assert_ne!(room_of(&rooms.put(request)), place);
    }

    #[test]
    fn a_request_is_answered_in_its_room() {
        let rooms = Rooms::new();
        let mut request = pin!(rooms.put(|| ready("answer")));
        assert_eq!(request.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready("answer"));
    }

    #[test]
    fn few_rooms_are_kept_after_many_requests_at_once() {
        let rooms = Rooms::new();
        drop((0..KEPT * 2).map(|_| rooms.put(|| ready(()))).collect::<Vec<_>>());
        assert_eq!(rooms.0.lock().len(), KEPT);
    }

    fn room_of<F>(lodger: &super::Lodger<F>) -> *const Option<F> {
        &raw const **lodger.room.as_ref().unwrap()
    }
}
