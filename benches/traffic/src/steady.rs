//! One small HTTP/1.1 request over and over at random times, for as little of the generator's time as can be.
//!
//! A plan's requests cost its generator some 25 µs each, far more than a server of small models needs, so a quick server is
//! never busy with them. Here the bytes are made beforehand, one thread does nothing but write, wait and read, and it never
//! sleeps.

use std::collections::VecDeque;
use std::error::Error;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream as Blocking};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::now;
use crate::tally::{Summary, Tally};

/// Arguments, as [`run`] wants them.
pub(crate) const USAGE: &str = "millrace-traffic steady ADDRESS REQUEST RATE SECONDS CONNECTIONS [SEED]";

/// Before anything is counted.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long answers are waited for after the last request.
const GRACE: Duration = Duration::from_secs(5);
/// Of one answer.
const MOST_BYTES: usize = 64 << 10;
const MOST_HEADERS: usize = 32;

/// A connection, and what is under way on it.
struct Line {
    stream: TcpStream,
    due: Option<Instant>,
    answer: Vec<u8>,
}

/// Asks what lies in the file REQUEST, head and body as they are sent, RATE times a second for SECONDS, each independent of the
/// others (a Poisson process), over so many connections. Latencies count from when a request was due.
///
/// # Errors
/// Arguments that mean nothing, no server, or an answer that is none.
pub(crate) fn run(arguments: &[String]) -> Result<Summary, Box<dyn Error>> {
    let [address, request, rate, seconds, connections, seed @ ..] = arguments else { return Err(USAGE.into()) };
    let request = fs::read(request).map_err(|error| format!("{request}: {error}"))?;
    let (address, rate): (SocketAddr, f64) = (address.parse()?, rate.parse()?);
    let (seconds, connections): (f64, usize) = (seconds.parse()?, connections.parse()?);
    let seed = seed.first().map_or(Ok(1), |seed| seed.parse())?;
    if !(rate > 0.0 && rate.is_finite() && (0.0..=3600.0).contains(&seconds) && connections > 0) {
        return Err(format!("{USAGE}: a rate, an hour at most, and a connection").into());
    }
    let mut poll = Poll::new()?;
    let mut lines = Vec::with_capacity(connections);
    for number in 0..connections {
        let stream = Blocking::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
        lines.push(Line { stream, due: None, answer: Vec::new() });
    }
    let begin = now() + WARM_UP;
    let end = begin + Duration::from_secs_f64(seconds);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut gap = || Duration::from_secs_f64(-(1.0 - random.f64()).ln() / rate);
    let mut next = begin - WARM_UP + gap();
    let (mut free, mut waiting) = ((0..connections).collect::<VecDeque<_>>(), VecDeque::new());
    let (mut tally, mut events) = (Tally::default(), Events::with_capacity(connections));
    while (next < end || !waiting.is_empty() || free.len() < connections) && now() < end + GRACE {
        let at = now();
        while next <= at && next < end {
            if next >= begin {
                tally.due += 1;
                tally.lag.push(crate::tally::micros(at - next));
            }
            waiting.push_back(next);
            next += gap();
        }
        while let (Some(due), Some(number)) = (waiting.front(), free.front()) {
            let line = &mut lines[*number];
            line.due = Some(*due);
            // A small request fits into an idle connection's buffer.
            line.stream.write_all(&request)?;
            waiting.pop_front();
            free.pop_front();
        }
        poll.poll(&mut events, Some(Duration::ZERO))?;
        for event in &events {
            let Token(number) = event.token();
            let line = &mut lines[number];
            let Some(status) = line.read()? else { continue };
            let Some(due) = line.due.take() else { return Err("an answer to nothing".into()) };
            free.push_back(number);
            let done = now();
            match status {
                _ if due < begin => {}
                200 => tally.good(done - due, done - begin),
                status => tally.refused(status, done - due),
            }
        }
    }
    Ok(tally.summary(seconds))
}

impl Line {
    /// Reads what has come. Gives the status once the answer is whole.
    fn read(&mut self) -> Result<Option<u16>, Box<dyn Error>> {
        let mut piece = [0; 4096];
        loop {
            let length = match self.stream.read(&mut piece) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            };
            self.answer.extend_from_slice(&piece[..length]);
            // Less than there was room for was all there is: saves asking.
            if length < piece.len() {
                break;
            }
        }
        let status = whole(&self.answer)?;
        if status.is_some() {
            self.answer.clear();
        } else if self.answer.len() > MOST_BYTES {
            return Err("an answer is too long".into());
        }
        Ok(status)
    }
}

/// The status of an answer that is all there.
fn whole(answer: &[u8]) -> Result<Option<u16>, Box<dyn Error>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = head.parse(answer)? else { return Ok(None) };
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: usize = match length {
        Some(header) => std::str::from_utf8(header.value)?.trim().parse()?,
        None => return Err("an answer does not say how long it is".into()),
    };
    let end = start.saturating_add(length);
    if answer.len() > end {
        return Err("an answer is longer than it says".into());
    }
    Ok(head.code.filter(|_| answer.len() == end))
}

#[cfg(test)]
mod tests {
    use super::whole;

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nabc";
        for length in 0..answer.len() {
            assert_eq!(whole(&answer[..length]).unwrap(), None);
        }
        assert_eq!(whole(answer).unwrap(), Some(503));
        assert!(whole(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\na").is_err());
        assert!(whole(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(whole(b"SMTP").is_err());
    }
}
