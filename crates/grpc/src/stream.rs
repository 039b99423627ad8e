//! Drives a call with many messages either way: reads requests, has several at work at once, sends answers as they come.
//!
//! Nothing runs ahead of a client that does not take its answers: work waits to hand its answer over, and while as much
//! as is allowed is at work no further request is read. Dropping the answer's body cancels all of it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body, Frame};
use millrace_core::{Reason, Refusal};
use smallvec::SmallVec;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;
use tokio::time::Sleep;

use crate::body::{GrpcBody, ok_trailers};
use crate::call::{Call, RequestBody, late};
use crate::failure::Failure;
use crate::head::Head;
use crate::receive::{Message, Messages};
use crate::reply::{Reply, answer};
use crate::service::Shared;

/// Where the work of one request hands over its answers.
pub(crate) type Answers = Sender<Reply>;

/// How a stream is served.
pub(crate) struct Plan<F> {
    /// Largest message in bytes.
    pub(crate) max_message_bytes: usize,
    /// Requests at work at once.
    pub(crate) at_once: usize,
    /// Puts what goes wrong with the stream itself in the protocol's terms.
    pub(crate) failure: fn(Refusal) -> Failure,
    /// Begins the work of one request. A failure of it ends the call.
    pub(crate) work: F,
}

/// Answers a call whose every request is worked on by `plan.work`.
pub(crate) fn serve<B, F, W>(shared: &Arc<Shared>, call: Call<'_>, body: B, plan: Plan<F>) -> Response<GrpcBody>
where
    B: RequestBody,
    F: FnMut(Message, Answers) -> W + Send + Unpin + 'static,
    W: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let parts = &shared.parts;
    let (sender, receiver) = mpsc::channel(1);
    let bounds = (&parts.front, &parts.config);
    let messages = Messages::new(Box::pin(body), call.head.coding, plan.max_message_bytes, None, bounds);
    let expiry = call.deadline().map(|deadline| (Box::pin(tokio::time::sleep_until(deadline.into())), deadline));
    let driver = Driver {
        shared: Arc::clone(shared),
        head: call.head.clone(),
        received: call.received,
        expiry,
        messages: Some(messages),
        plan,
        at_work: JoinSet::new(),
        sender,
        receiver,
        sending: SmallVec::<[Bytes; 2]>::new().into_iter(),
        ended: false,
    };
    answer(GrpcBody::stream(driver), call.head)
}

struct Driver<B, F> {
    shared: Arc<Shared>,
    head: Head,
    received: Instant,
    expiry: Option<(Pin<Box<Sleep>>, Instant)>,
    /// `None` once all requests are read.
    messages: Option<Messages<Pin<Box<B>>>>,
    plan: Plan<F>,
    at_work: JoinSet<Result<(), Failure>>,
    sender: Answers,
    receiver: Receiver<Reply>,
    /// What is left of the answer that is being sent.
    sending: smallvec::IntoIter<[Bytes; 2]>,
    ended: bool,
}

impl<B, F, W> Driver<B, F>
where
    B: RequestBody,
    F: FnMut(Message, Answers) -> W + Send + Unpin + 'static,
    W: Future<Output = Result<(), Failure>> + Send + 'static,
{
    /// The next piece of data; `Ok(None)` once everything is answered.
    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        if let Some((sleep, deadline)) = &mut self.expiry
            && sleep.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err((self.plan.failure)(late(*deadline, self.received))));
        }
        loop {
            if let Some(piece) = self.sending.next() {
                return Poll::Ready(Ok(Some(piece)));
            }
            if let Poll::Ready(Some(reply)) = self.receiver.poll_recv(context) {
                self.sending = reply.into_pieces().into_iter();
                continue;
            }
            match self.at_work.poll_join_next(context) {
                Poll::Ready(Some(Ok(Ok(())))) => continue,
                Poll::Ready(Some(Ok(Err(failure)))) => return Poll::Ready(Err(failure)),
                Poll::Ready(Some(Err(error))) => {
                    let refusal = Refusal::new(Reason::BackendBroken, "the server failed on this request");
                    let cause: Box<dyn std::error::Error + Send + Sync> = error.into();
                    return Poll::Ready(Err((self.plan.failure)(refusal.with_cause(cause))));
                }
                Poll::Ready(None) | Poll::Pending => {}
            }
            if self.at_work.len() < self.plan.at_once
                && let Some(messages) = &mut self.messages
            {
                match messages.poll_next(context) {
                    Poll::Ready(Some(Ok(message))) => {
                        let work = (self.plan.work)(message, self.sender.clone());
                        self.at_work.spawn(work);
                        continue;
                    }
                    Poll::Ready(Some(Err(refusal))) => return Poll::Ready(Err((self.plan.failure)(refusal))),
                    Poll::Ready(None) => self.messages = None,
                    Poll::Pending => {}
                }
            }
            // Work that is done has handed everything over before: nothing can be left in the channel.
            let is_idle = self.at_work.is_empty() && self.receiver.is_empty();
            if is_idle && self.messages.is_some() && self.shared.parts.readiness.is_refusing() {
                // A client may keep its stream open for ever; whoever carries this body asks again when draining begins.
                let refusal = Refusal::new(Reason::Draining, "the server is shutting down");
                return Poll::Ready(Err((self.plan.failure)(refusal)));
            }
            let is_over = is_idle && self.messages.is_none();
            return if is_over { Poll::Ready(Ok(None)) } else { Poll::Pending };
        }
    }

    fn last_words(&self, result: Result<(), Failure>) -> HeaderMap {
        match result {
            Ok(()) => ok_trailers(),
            Err(failure) => {
                self.shared.log(&failure, &self.head);
                failure.trailers()
            }
        }
    }
}

impl<B, F, W> Body for Driver<B, F>
where
    B: RequestBody,
    F: FnMut(Message, Answers) -> W + Send + Unpin + 'static,
    W: Future<Output = Result<(), Failure>> + Send + 'static,
{
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let end = match ready!(self.poll_data(context)) {
            Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
            Ok(None) => Ok(()),
            Err(failure) => Err(failure),
        };
        self.ended = true;
        self.messages = None;
        self.at_work.abort_all();
        let trailers = self.last_words(end);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
