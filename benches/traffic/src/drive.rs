//! Keeps to the plan: timetables for arrivals by rate, loops for callers, and a tally for each piece.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinHandle, spawn_local, yield_now};
use tokio::time::{sleep, sleep_until, timeout_at};

use crate::client::{Connection, Question};
use crate::now;
use crate::plan::{Load, Piece, Plan, Stream};
use crate::tally::{Summary, Tally, micros};

/// tokio's timers are good to a millisecond; what is nearer is waited for by yielding.
const COARSE: Duration = Duration::from_millis(2);
/// Between the last connection and the first request.
const BREATH: Duration = Duration::from_millis(20);

/// What came of each stream in each piece.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    streams: BTreeMap<String, Vec<Part>>,
}

#[derive(Debug, Serialize)]
struct Part {
    piece: String,
    seconds: f64,
    #[serde(flatten)]
    summary: Summary,
}

/// A request of the timetable.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    piece: usize,
    is_again: bool,
}

/// What all tasks of a stream share.
struct Shared {
    question: Question,
    address: SocketAddr,
    is_http2: bool,
    deadline: Duration,
    /// When each piece begins.
    begins: Vec<Instant>,
    tallies: RefCell<Vec<Tally>>,
}

/// Follows `plan` to its end.
///
/// # Errors
/// A body that cannot be read, or no server.
pub(crate) async fn all(plan: Plan) -> Result<Report, Box<dyn Error>> {
    let Plan { address, pieces, streams, seed, grace_seconds } = plan;
    let mut connected = Vec::new();
    for stream in &streams {
        let mut connections = Vec::with_capacity(stream.in_flight);
        for index in 0..stream.in_flight {
            let share = stream.http2.filter(|n| index >= *n).and_then(|n| connections.get(index % n));
            let shared = share.and_then(Connection::share);
            connections.push(match shared {
                Some(connection) => connection,
                None => Connection::open(address, stream.http2.is_some()).await?,
            });
        }
        connected.push(connections);
    }
    let mut end = now() + BREATH;
    let begins: Vec<Instant> = pieces
        .iter()
        .map(|piece| {
            let begin = end;
            end += Duration::from_secs_f64(piece.seconds);
            begin
        })
        .collect();
    let mut running = Vec::new();
    for ((index, stream), connections) in streams.iter().enumerate().zip(connected) {
        let shared = Rc::new(Shared {
            question: Question::new(address, stream)?,
            address,
            is_http2: stream.http2.is_some(),
            deadline: stream.deadline_ms.map_or(Duration::MAX, |ms| Duration::from_secs_f64(ms / 1e3)),
            begins: begins.clone(),
            tallies: RefCell::new(pieces.iter().map(|_| Tally::default()).collect()),
        });
        let workers = start(&shared, stream, &pieces, connections, end, seed.wrapping_add(index as u64));
        running.push((stream.name.clone(), shared, workers));
    }
    let last = (end + Duration::from_secs_f64(grace_seconds)).into();
    let mut report = Report { streams: BTreeMap::new() };
    for (name, shared, workers) in running {
        for mut worker in workers {
            if timeout_at(last, &mut worker).await.is_err() {
                worker.abort();
            }
        }
        let tallies = shared.tallies.take();
        let parts = pieces.iter().zip(tallies).map(|(piece, tally)| Part {
            piece: piece.name.clone(),
            seconds: piece.seconds,
            summary: tally.summary(piece.seconds),
        });
        report.streams.insert(name, parts.collect());
    }
    Ok(report)
}

/// Starts the tasks of a stream.
fn start(
    shared: &Rc<Shared>,
    stream: &Stream,
    pieces: &[Piece],
    connections: Vec<Connection>,
    end: Instant,
    seed: u64,
) -> Vec<JoinHandle<()>> {
    match &stream.load {
        Load::Callers(callers) => connections
            .into_iter()
            .enumerate()
            .map(|(index, connection)| {
                let mut ends = shared.begins.iter().skip(1).copied().collect::<Vec<_>>();
                ends.push(end);
                let turns: Vec<(usize, Instant)> = ends.into_iter().enumerate().collect();
                let turns = turns.into_iter().filter(|(piece, _)| index < callers[*piece]).collect();
                spawn_local(caller(Rc::clone(shared), connection, turns))
            })
            .collect(),
        Load::Rates(rates) => {
            let (sender, receiver) = unbounded_channel();
            // Weak, for the timetable ends when nobody can add to it.
            let again = stream.obeys_retry_after.then(|| sender.downgrade());
            let receiver = Rc::new(Mutex::new(receiver));
            let spans = shared
                .begins
                .iter()
                .zip(pieces)
                .zip(rates)
                .map(|((begin, piece), rate)| (*begin, Duration::from_secs_f64(piece.seconds), *rate));
            let mut tasks = vec![spawn_local(timetable(Rc::clone(shared), spans.collect(), sender, seed))];
            for connection in connections {
                let (receiver, again) = (Rc::clone(&receiver), again.clone());
                let shared = Rc::clone(shared);
                tasks.push(spawn_local(async move {
                    let mut connection = Some(connection);
                    while let Some(due) = next(&receiver).await {
                        // Held for as long as the request may be asked again.
                        let again = again.as_ref().and_then(|sender| sender.upgrade());
                        shared.ask(&mut connection, due, again).await;
                    }
                }));
            }
            tasks
        }
    }
}

async fn next(receiver: &Mutex<UnboundedReceiver<Due>>) -> Option<Due> {
    receiver.lock().await.recv().await
}

/// Makes requests due at random times, each independent of the others.
async fn timetable(shared: Rc<Shared>, spans: Vec<(Instant, Duration, f64)>, sender: UnboundedSender<Due>, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    for (piece, (begin, length, rate)) in spans.into_iter().enumerate() {
        if rate <= 0.0 {
            continue;
        }
        let mut at = 0.0;
        loop {
            at += -(1.0 - random.f64()).ln() / rate;
            if at >= length.as_secs_f64() {
                break;
            }
            let due = begin + Duration::from_secs_f64(at);
            until(due).await;
            {
                let tally = &mut shared.tallies.borrow_mut()[piece];
                tally.due += 1;
                tally.lag.push(micros(now().saturating_duration_since(due)));
            }
            if sender.send(Due { at: due, piece, is_again: false }).is_err() {
                return;
            }
        }
    }
}

async fn until(due: Instant) {
    let far = due.saturating_duration_since(now());
    if far > COARSE {
        sleep_until((due - COARSE / 2).into()).await;
    }
    while now() < due {
        yield_now().await;
    }
}

/// Asks back to back in each piece of `turns`, which says when they end.
async fn caller(shared: Rc<Shared>, connection: Connection, turns: Vec<(usize, Instant)>) {
    let mut connection = Some(connection);
    for (piece, end) in turns {
        sleep_until(shared.begins[piece].into()).await;
        while now() < end {
            shared.tallies.borrow_mut()[piece].due += 1;
            shared.ask(&mut connection, Due { at: now(), piece, is_again: false }, None).await;
        }
    }
}

impl Shared {
    /// Asks once, and counts what comes of it. Where the answer says when to come back, that is put on the timetable.
    async fn ask(&self, place: &mut Option<Connection>, due: Due, again: Option<UnboundedSender<Due>>) {
        let left = self.deadline.saturating_sub(now().saturating_duration_since(due.at));
        if left.is_zero() {
            // Whoever waited for this has gone.
            self.tallies.borrow_mut()[due.piece].given_up += u64::from(!due.is_again);
            return;
        }
        if place.as_ref().is_none_or(Connection::is_closed) {
            *place = Connection::open(self.address, self.is_http2).await.ok();
        }
        if due.is_again {
            self.tallies.borrow_mut()[due.piece].retried += 1;
        }
        let answer = match place {
            Some(connection) => connection.ask(&self.question, left).await.ok(),
            None => None,
        };
        let end = now();
        let latency = end.saturating_duration_since(due.at);
        let mut tallies = self.tallies.borrow_mut();
        let tally = &mut tallies[due.piece];
        match answer {
            None => {
                *place = None;
                tally.broken += u64::from(!due.is_again);
            }
            Some(answer) if answer.status == 200 => match (due.is_again, latency <= self.deadline) {
                (true, in_time) => tally.retried_good += u64::from(in_time),
                (false, true) => tally.good(latency, end.saturating_duration_since(self.begins[due.piece])),
                (false, false) => tally.late(latency),
            },
            Some(answer) if !due.is_again => {
                tally.refused(answer.status, latency);
                if let (Some(sender), Some(wait)) = (again, answer.retry_after) {
                    spawn_local(async move {
                        sleep(wait).await;
                        // Nobody listens any more once the waiting is over.
                        let _ = sender.send(Due { at: now(), is_again: true, ..due });
                    });
                }
            }
            Some(_) => {}
        }
    }
}
