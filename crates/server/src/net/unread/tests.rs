//! Random requests in random packets over one connection, some read and some refused before: each has its own answer, in
//! order, and nothing of a body is taken for a request.
//!
//! What is thrown away rests on how hyper reads: only into an empty buffer, and never beyond what it was given. This test is
//! what tells when another hyper does not.

use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Response};
use http_body_util::{BodyExt as _, Full};
use millrace_core::CallerId;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

use super::{LEAST, RequestBody};
use crate::net::connection::{Answer, serve};
use crate::net::socket::Stream;
use crate::net::{ConnectionLimits, Phases};

/// What bodies are made of: whoever takes one for a request finds this.
const BAIT: &[u8] = b"GET /bait HTTP/1.1\r\nhost: a\r\n\r\n";
/// Longer than any of it takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// Its body is read, and the answer says what it was.
    Read,
    /// It is refused after the task has yielded so often.
    Refuse(u8),
    /// It is refused once some of its body was read.
    Taste,
}

/// How a body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Whole,
    /// In chunks of so many bytes.
    Chunks(usize),
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    deed: Deed,
    form: Form,
    length: usize,
}

/// Where a packet ends.
#[derive(Debug, Clone, Copy)]
struct Cut {
    place: Place,
    /// Whether all answers that are due are waited for before more is sent.
    waits: bool,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// Anywhere.
    At(prop::sample::Index),
    /// So far from the end of a head or a body.
    Near(prop::sample::Index, i8),
}

/// The body of a request, its own among those of a connection.
fn body(nth: usize, length: usize) -> Bytes {
    Bytes::from(BAIT.repeat((nth + length) / BAIT.len() + 1)).slice(nth..nth + length)
}

impl Asked {
    /// Whether the connection may close after the answer: what is left of the body is not worth it.
    fn may_close(self) -> bool {
        match self.deed {
            Deed::Read => false,
            Deed::Taste => self.length > 0,
            Deed::Refuse(_) => self.form != Form::Whole || (1..LEAST).contains(&(self.length as u64)),
        }
    }

    /// The bytes of its head, and of its body.
    fn bytes(self, nth: usize) -> (Vec<u8>, Vec<u8>) {
        let path = match self.deed {
            Deed::Read => format!("/{nth}/read"),
            Deed::Refuse(turns) => format!("/{nth}/refuse/{turns}"),
            Deed::Taste => format!("/{nth}/taste"),
        };
        let head = |framing: String| format!("POST {path} HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n").into_bytes();
        let body = body(nth, self.length);
        match self.form {
            Form::Whole => (head(format!("content-length: {}", self.length)), body.to_vec()),
            Form::Chunks(size) => {
                let mut chunked = Vec::new();
                for chunk in body.chunks(size) {
                    chunked.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                    chunked.extend([chunk, b"\r\n"].concat());
                }
                chunked.extend(b"0\r\n\r\n");
                (head("transfer-encoding: chunked".to_owned()), chunked)
            }
        }
    }

    /// The body of its answer.
    fn answer(self, nth: usize) -> String {
        let path = String::from_utf8(self.bytes(nth).0).expect("a head is text");
        let path = path.split(' ').nth(1).expect("a head has a path");
        match self.deed {
            Deed::Read => said(path, Some(&body(nth, self.length))),
            Deed::Refuse(_) | Deed::Taste => said(path, None),
        }
    }
}

/// What the server answers, having read so much.
fn said(path: &str, read: Option<&[u8]>) -> String {
    match read {
        Some(body) => {
            let mut hasher = DefaultHasher::new();
            hasher.write(body);
            format!("{path} {} {:x}", body.len(), hasher.finish())
        }
        None => format!("{path} unread"),
    }
}

/// Does what the path of a request says.
#[derive(Debug, Clone)]
struct Server;

impl Answer for Server {
    type Body = Full<Bytes>;
    type Tongue = ();

    fn tongue(_parts: &Parts) {}

    async fn answer(&self, _: (), parts: &Parts, body: RequestBody, caller: CallerId) -> Response<Full<Bytes>> {
        self.answer_http1(parts, body, caller).await
    }

    async fn answer_http1(&self, parts: &Parts, mut body: RequestBody, _: CallerId) -> Response<Full<Bytes>> {
        let path = parts.uri.path();
        let mut steps = path.split('/').skip(2);
        let text = match steps.next() {
            Some("read") => said(path, Some(&body.collect().await.expect("the body is whole").to_bytes())),
            Some("refuse") => {
                let turns: u8 = steps.next().and_then(|turns| turns.parse().ok()).expect("a number of turns");
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                said(path, None)
            }
            Some("taste") => {
                drop(body.frame().await);
                said(path, None)
            }
            _ => said(path, None),
        };
        Response::new(Full::from(text))
    }

    fn cut(_tongue: ()) -> Response<Full<Bytes>> {
        Response::new(Full::default())
    }

    fn last_words(_tongue: ()) -> Option<HeaderMap> {
        None
    }
}

/// Reads answers until there are `most` or the connection closes, and says how many there are.
async fn read(mut stream: impl AsyncRead + Unpin, most: usize, count: watch::Sender<usize>) -> Vec<String> {
    let (mut answers, mut bytes) = (Vec::new(), Vec::new());
    while answers.len() < most {
        while let Some((answer, length)) = first(&bytes) {
            answers.push(answer);
            bytes.drain(..length);
            count.send_replace(answers.len());
        }
        // A connection that closes over unread bytes is reset.
        if answers.len() < most && !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            break;
        }
    }
    count.send_replace(usize::MAX);
    answers
}

/// The body of the first of several answers, and how many bytes it takes.
fn first(bytes: &[u8]) -> Option<(String, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map(str::parse::<usize>);
    let length = length.expect("answers have a length").expect("it is a number");
    let body = bytes.get(end..end + length)?;
    Some((
        format!("{}{}", if head.starts_with("http/1.1 200 ") { "" } else { &head }, String::from_utf8_lossy(body)),
        end + length,
    ))
}

/// Sends `asked` in packets that end at `cuts`. Gives the answers.
async fn converse<C>(server: Stream, client: C, asked: &[Asked], cuts: &[Cut]) -> Vec<String>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let served = serve(server, CallerId(1), Server, Arc::new(ConnectionLimits::default()), Phases::default());
    let served = tokio::spawn(served);
    // The bytes, and how many of them each answer takes.
    let (mut bytes, mut edges, mut needs) = (Vec::new(), Vec::new(), Vec::new());
    for (nth, asked) in asked.iter().enumerate() {
        let (head, body) = asked.bytes(nth);
        let is_unread = matches!(asked.deed, Deed::Refuse(_)) && !asked.may_close();
        edges.extend([bytes.len() + head.len(), bytes.len() + head.len() + body.len()]);
        needs.push(bytes.len() + head.len() + if is_unread { 0 } else { body.len() });
        bytes.extend([head, body].concat());
    }
    let at = |place: Place| match place {
        Place::At(index) => index.index(bytes.len()),
        Place::Near(edge, by) => edges[edge.index(edges.len())].saturating_add_signed(isize::from(by)).min(bytes.len()),
    };
    let mut cuts: Vec<_> = cuts.iter().map(|cut| (at(cut.place), cut.waits)).collect();
    cuts.sort_unstable();
    cuts.push((bytes.len(), true));
    let (reading, mut writing) = tokio::io::split(client);
    let (count, mut counted) = watch::channel(0);
    let write = async {
        let mut sent = 0;
        for (end, waits) in cuts {
            // The server may have closed; how far it came shows in its answers.
            if writing.write_all(&bytes[sent..end]).await.is_err() || writing.flush().await.is_err() {
                break;
            }
            sent = end;
            if waits {
                let due = needs.iter().take_while(|need| **need <= sent).count();
                counted.wait_for(|count| *count >= due).await.expect("the reader says when it ends");
            } else {
                tokio::task::yield_now().await;
            }
        }
    };
    let both = async { tokio::join!(read(reading, asked.len(), count), write).0 };
    let answers = tokio::time::timeout(PATIENCE, both).await.expect("every answer that is due comes");
    served.abort();
    answers
}

fn run(is_tcp: bool, asked: &[Asked], cuts: &[Cut]) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        if is_tcp {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
            let client = client.expect("the listener is there");
            client.set_nodelay(true).expect("the option is known");
            converse(Stream::Tcp(server.expect("a client has come").0), client, asked, cuts).await
        } else {
            let (client, server) = UnixStream::pair().expect("a pair of sockets");
            converse(Stream::Unix(server), client, asked, cuts).await
        }
    })
}

fn requests() -> impl Strategy<Value = Vec<Asked>> {
    let least = usize::try_from(LEAST).expect("a small number");
    let length = prop_oneof![
        1 => Just(0),
        2 => 1..300_usize,
        2 => least - 200..least + 200,
        3 => least..70_000,
        1 => 200_000..400_000_usize,
    ];
    let deed = prop_oneof![
        3 => Just(Deed::Read),
        5 => (0..4_u8).prop_map(Deed::Refuse),
        1 => Just(Deed::Taste),
    ];
    let form = prop_oneof![3 => Just(Form::Whole), 1 => (500..20_000_usize).prop_map(Form::Chunks)];
    prop::collection::vec((deed, form, length).prop_map(|(deed, form, length)| Asked { deed, form, length }), 1..7)
}

fn cuts() -> impl Strategy<Value = Vec<Cut>> {
    let place = prop_oneof![
        any::<prop::sample::Index>().prop_map(Place::At),
        (any::<prop::sample::Index>(), -4..5_i8).prop_map(|(edge, by)| Place::Near(edge, by)),
    ];
    prop::collection::vec((place, any::<bool>()).prop_map(|(place, waits)| Cut { place, waits }), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Over TCP, where the system throws bytes away. What closes the connection is left out there: the reset that follows
    /// may take answers along that the client has not read yet.
    #[test]
    fn every_request_has_its_own_answer_over_tcp(mut asked in requests(), cuts in cuts()) {
        asked.iter_mut().filter(|asked| asked.may_close()).for_each(|asked| asked.deed = Deed::Read);
        let expected: Vec<_> = asked.iter().enumerate().map(|(nth, asked)| asked.answer(nth)).collect();
        prop_assert_eq!(run(true, &asked, &cuts), expected);
    }

    /// Over a socket of this machine, where nothing is lost by closing.
    #[test]
    fn every_request_until_the_connection_closes_has_its_own_answer(asked in requests(), cuts in cuts()) {
        let expected: Vec<_> = asked.iter().enumerate().map(|(nth, asked)| asked.answer(nth)).collect();
        let answers = run(false, &asked, &cuts);
        prop_assert_eq!(&answers[..], &expected[..answers.len()]);
        if answers.len() < asked.len() {
            prop_assert!(answers.last().is_some() && asked[answers.len() - 1].may_close(), "closed after {:?}", answers);
        }
    }
}
