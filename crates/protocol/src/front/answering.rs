//! Waits for a model's answer: its panics are contained, and it is given up at the deadline.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use millrace_core::{InferFuture, InferResult, contained};
use tokio::time::{Sleep, sleep_until};

/// The answer, or `None` once the deadline has passed. Small, because every request on its way holds one: the timer gets
/// its room only when the answer really has to be waited for.
#[derive(Debug)]
#[must_use = "dropping it cancels the request"]
pub struct Answering {
    future: InferFuture,
    deadline: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Answering {
    /// Waits for `future` until `deadline`.
    pub fn new(future: InferFuture, deadline: Instant) -> Self {
        Self { future, deadline, timer: None }
    }
}

impl Future for Answering {
    type Output = Option<InferResult>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<InferResult>> {
        let this = &mut *self;
        match contained(|| Pin::new(&mut this.future).poll(context)) {
            Ok(Poll::Ready(result)) => return Poll::Ready(Some(result)),
            Err(refusal) => return Poll::Ready(Some(Err(refusal))),
            Ok(Poll::Pending) => {}
        }
        if this.future.is_yielding() {
            // It is polled again at once, and has mostly its answer then.
            return Poll::Pending;
        }
        let deadline = this.deadline;
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline.into())));
        timer.as_mut().poll(context).map(|()| None)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millrace_core::{InferFuture, Reason, Refusal};

    use super::Answering;
    use crate::front::now;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_is_given_up_at_the_deadline() {
        let (slot, future) = InferFuture::slot();
        let deadline = now() + Duration::from_secs(3);
        assert!(Answering::new(future, deadline).await.is_none());
        assert_eq!(now(), deadline);
        assert!(slot.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_time_is_the_answer() {
        let (slot, future) = InferFuture::slot();
        slot.answer(Err(Refusal::new(Reason::QueueFull, "full")));
        let answer = Answering::new(future, now()).await.unwrap();
        assert_eq!(answer.unwrap_err().reason(), Reason::QueueFull);
    }

    #[tokio::test]
    async fn a_panic_is_a_refusal() {
        let future = InferFuture::boxed(async { panic!("of the model's own") });
        let answer = Answering::new(future, now() + Duration::from_secs(3)).await.unwrap();
        assert_eq!(answer.unwrap_err().reason(), Reason::BackendBroken);
    }
}
