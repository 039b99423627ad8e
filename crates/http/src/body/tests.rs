//! Bodies from a script, with tokio's clock paused: what is read, what is refused, and when.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::{Bounds, Received, check_length, read};
use crate::error::Failure;
use millrace_protocol::front::Budget;

/// One step of a body: some bytes after some time, or a broken connection.
enum Step {
    Data(Duration, &'static [u8]),
    Broken,
}

struct Scripted {
    steps: VecDeque<Step>,
    declared: u64,
    /// Whether the last frame says that it is the last.
    marks_end: bool,
    sleep: Option<Pin<Box<Sleep>>>,
}

fn body(steps: impl IntoIterator<Item = Step>) -> Scripted {
    Scripted { steps: steps.into_iter().collect(), declared: 0, marks_end: false, sleep: None }
}

fn at_once(data: &'static [u8]) -> Step {
    Step::Data(Duration::ZERO, data)
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        let wait = match self.steps.front() {
            None => return Poll::Ready(None),
            Some(Step::Broken) => return Poll::Ready(Some(Err("the connection is gone"))),
            Some(Step::Data(wait, _)) => *wait,
        };
        if !wait.is_zero() {
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(wait)));
            std::task::ready!(sleep.as_mut().poll(context));
            self.sleep = None;
        }
        let Some(Step::Data(_, data)) = self.steps.pop_front() else { unreachable!("it was looked at") };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.marks_end && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.declared);
        hint
    }
}

fn bounds() -> Bounds<'static> {
    let started = Instant::now().into_std();
    Bounds { bytes: 1 << 20, time: Duration::from_secs(30), rate: 1024, started, until: None, budget: None }
}

fn paused<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
}

fn status(result: Result<Received, Failure>) -> StatusCode {
    result.unwrap_err().status()
}

#[test]
fn a_body_in_one_frame_is_not_copied() {
    paused(async {
        static DATA: &[u8] = b"{\"instances\": [1]}";
        let read = read(body([at_once(DATA)]), bounds()).await.unwrap();
        assert_eq!(read.as_ptr(), DATA.as_ptr());
        assert_eq!(super::read(body([]), bounds()).await.unwrap().bytes, "");
    });
}

#[test]
fn frames_are_joined_in_order() {
    paused(async {
        let frames = [at_once(b""), at_once(b"ab"), at_once(b"c"), at_once(b""), at_once(b"def")];
        assert_eq!(read(body(frames), bounds()).await.unwrap().bytes, "abcdef");
    });
}

#[test]
fn a_declared_length_over_the_limit_is_413_before_any_byte_is_read() {
    let mut claims = body([Step::Broken]);
    assert!(check_length(Some(1 << 20), &claims, 1 << 20).is_ok());
    assert_eq!(check_length(Some((1 << 20) + 1), &claims, 1 << 20).unwrap_err().status(), 413);
    claims.declared = 10_000_000_000_000;
    assert_eq!(check_length(None, &claims, 1 << 20).unwrap_err().status(), 413);
}

#[test]
fn one_byte_over_the_limit_is_413_even_without_a_declared_length() {
    paused(async {
        let bounds = Bounds { bytes: 5, ..bounds() };
        assert_eq!(read(body([at_once(b"abc"), at_once(b"de")]), bounds).await.unwrap().bytes, "abcde");
        assert_eq!(status(read(body([at_once(b"abc"), at_once(b"def")]), bounds).await), 413);
        assert_eq!(status(read(body([at_once(b"abcdef")]), bounds).await), 413);
    });
}

#[test]
fn a_huge_claim_reserves_nothing() {
    paused(async {
        let mut claims = body([at_once(b"ab"), at_once(b"cd")]);
        claims.declared = u64::MAX;
        let read = read(claims, bounds()).await.unwrap().bytes;
        assert_eq!(read, "abcd");
        assert!(read.try_into_mut().unwrap().capacity() <= 2 << 20);
    });
}

#[test]
fn a_million_chunks_of_one_byte_are_refused_early() {
    paused(async {
        let chunks = (0..1_000_000).map(|_| at_once(b"["));
        let failure = read(body(chunks), bounds()).await.unwrap_err();
        assert_eq!(failure.status(), 400);
        assert!(failure.refusal().message().contains("chunk limit"));
        let empty = (0..1_000_000).map(|_| at_once(b""));
        assert_eq!(status(read(body(empty), bounds()).await), 400);
    });
}

#[test]
fn many_chunks_of_a_fair_size_are_fine() {
    paused(async {
        let chunks = (0..10_000).map(|_| at_once(&[b' '; 64]));
        assert_eq!(read(body(chunks), bounds()).await.unwrap().len(), 640_000);
    });
}

#[test]
fn a_body_that_stops_is_408_when_its_time_is_over() {
    paused(async {
        let started = Instant::now();
        let stuck = body([at_once(b"{"), Step::Data(Duration::from_secs(3600), b"}")]);
        assert_eq!(status(read(stuck, bounds()).await), 408);
        let waited = started.elapsed();
        assert!((30..31).contains(&waited.as_secs()), "{waited:?}");
    });
}

#[test]
fn a_body_above_the_minimum_rate_may_take_longer_than_the_time_out() {
    paused(async {
        static SECOND: [u8; 2048] = [b' '; 2048];
        let steady = (0..60).map(|_| Step::Data(Duration::from_secs(1), &SECOND));
        assert_eq!(read(body(steady), bounds()).await.unwrap().len(), 60 * 2048);
        let slow = (0..3600).map(|_| Step::Data(Duration::from_secs(1), &SECOND[..100]));
        let started = Instant::now();
        assert_eq!(status(read(body(slow), bounds()).await), 408);
        assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
    });
}

#[test]
fn a_body_that_breaks_off_is_400_and_its_cause_stays_private() {
    paused(async {
        let failure = read(body([at_once(b"{"), Step::Broken]), bounds()).await.unwrap_err();
        assert_eq!(failure.status(), 400);
        assert!(!failure.refusal().message().contains("gone"));
        assert_eq!(failure.refusal().cause().unwrap().to_string(), "the connection is gone");
    });
}

#[test]
fn a_client_that_stops_waiting_gets_504_while_its_body_still_comes() {
    paused(async {
        let started = Instant::now();
        let bounds = Bounds { until: Some((started + Duration::from_secs(2)).into_std()), ..bounds() };
        let slow = (0..60).map(|_| Step::Data(Duration::from_millis(900), b"123"));
        assert_eq!(status(read(body(slow), bounds).await), 504);
        assert_eq!(started.elapsed().as_secs(), 2);
    });
}

#[test]
fn bodies_that_arrive_share_a_budget_until_they_are_dropped() {
    paused(async {
        let budget = Budget::new(10);
        let bounds = Bounds { budget: Some(&budget), ..bounds() };
        let first = read(body([at_once(b"abc"), at_once(b"def")]), bounds).await.unwrap();
        let failure = read(body([at_once(b"1234"), at_once(b"5")]), bounds).await.unwrap_err();
        assert_eq!(failure.status(), 503);
        let answer = failure.answer(http::Version::HTTP_11);
        assert_eq!(
            (&answer.headers()["retry-after"], &answer.headers()["connection"]),
            (&"1".parse().unwrap(), &"close".parse().unwrap())
        );
        let second = read(body([at_once(b"12"), at_once(b"34")]), bounds).await.unwrap();
        assert_eq!((&*first, &*second), (&b"abcdef"[..], &b"1234"[..]));
        drop(first);
        assert!(read(body([at_once(b"abc"), at_once(b"def")]), bounds).await.is_ok(), "the first gave its share back");
        drop(second);
        assert!(read(body([at_once(b"12345"), at_once(b"67890")]), bounds).await.is_ok(), "and a refused one too");
    });
}

#[test]
fn a_body_that_is_whole_at_once_needs_no_budget() {
    paused(async {
        let budget = Budget::new(0);
        let bounds = Bounds { budget: Some(&budget), ..bounds() };
        let mut whole = body([at_once(b"abc")]);
        whole.marks_end = true;
        assert_eq!(read(whole, bounds).await.unwrap().bytes, "abc");
        let mut halves = body([at_once(b"a"), at_once(b"bc")]);
        halves.marks_end = true;
        assert_eq!(status(read(halves, bounds).await), 503);
    });
}

#[test]
fn a_body_whose_client_leaves_gives_its_share_back() {
    paused(async {
        let budget = Budget::new(10);
        let bounds = Bounds { budget: Some(&budget), ..bounds() };
        {
            let stuck = body([at_once(b"abcdef"), Step::Data(Duration::from_secs(3600), b"}")]);
            let mut reading = std::pin::pin!(read(stuck, bounds));
            tokio::select! {
                biased;
                _ = &mut reading => panic!("it was whole"),
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
            assert_eq!(budget.taken(), 6);
        }
        assert_eq!(budget.taken(), 0);
    });
}
