//! The clock is paused: time passes only while everything waits.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, sleep};

use super::{Activity, Patience, Timed};

const HEADER: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(60);
const WRITE: Duration = Duration::from_secs(30);

/// A stream under test, its peer, and what requests tell it. The kernel's part is played by 1 KiB of buffer.
fn pair() -> (Timed<DuplexStream>, DuplexStream, Arc<Activity>) {
    pair_with(IDLE)
}

fn pair_with(idle: Duration) -> (Timed<DuplexStream>, DuplexStream, Arc<Activity>) {
    let (server, client) = duplex(1024);
    let activity = Arc::new(Activity::default());
    let patience = Patience { header: HEADER, idle, write: WRITE };
    (Timed::new(server, Vec::new(), false, patience, Arc::clone(&activity)), client, activity)
}

/// Reads until the stream gives up; how long that took.
async fn until_timed_out(stream: &mut Timed<DuplexStream>) -> Duration {
    let begin = Instant::now();
    let mut byte = [0];
    loop {
        match stream.read(&mut byte).await {
            Ok(1) => {}
            Ok(_) => panic!("the peer has closed"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::TimedOut);
                return begin.elapsed();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_is_closed_after_the_idle_limit() {
    let (mut stream, _client, _) = pair();
    assert_eq!(until_timed_out(&mut stream).await.as_secs(), IDLE.as_secs());
}

#[tokio::test(start_paused = true)]
async fn headers_that_trickle_in_are_closed_after_the_header_limit() {
    let (mut stream, mut client, _) = pair();
    let trickle = tokio::spawn(async move {
        while client.write_all(b"x").await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    });
    assert_eq!(until_timed_out(&mut stream).await.as_secs(), HEADER.as_secs());
    trickle.abort();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_long_is_not_idle_and_idling_counts_from_its_end() {
    let (mut stream, mut client, activity) = pair();
    client.write_all(b"x").await.unwrap();
    stream.read_u8().await.unwrap();
    activity.begin();
    // hyper reads on while a request is answered, to notice that the client has gone.
    let long = IDLE * 5;
    assert!(tokio::time::timeout(long, stream.read_u8()).await.is_err(), "closed while busy");
    activity.end();
    let idled = until_timed_out(&mut stream).await;
    assert!((IDLE..=IDLE * 2).contains(&idled), "{idled:?}");
}

#[tokio::test(start_paused = true)]
async fn a_body_is_not_taken_for_slow_headers() {
    let (mut stream, mut client, activity) = pair();
    activity.begin();
    client.write_all(b"a body").await.unwrap();
    for _ in 0..6 {
        stream.read_u8().await.unwrap();
    }
    activity.end();
    let idled = until_timed_out(&mut stream).await;
    assert!((IDLE..=IDLE * 2).contains(&idled), "{idled:?}");
}

/// Writes until done or given up; how long that took.
async fn write_all(stream: &mut Timed<DuplexStream>, length: usize) -> (Duration, Option<ErrorKind>) {
    let begin = Instant::now();
    let result = stream.write_all(&vec![0; length]).await;
    (begin.elapsed(), result.err().map(|error| error.kind()))
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_closed_after_the_write_limit() {
    let (mut stream, _client, _) = pair();
    let (took, error) = write_all(&mut stream, 1 << 20).await;
    assert_eq!((took.as_secs(), error), (WRITE.as_secs(), Some(ErrorKind::TimedOut)));
}

/// Reads `bytes` every second for as long as there is anything.
fn read_slowly(mut client: DuplexStream, bytes: usize) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut buffer = vec![0; bytes];
        while client.read_exact(&mut buffer).await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_a_byte_now_and_then_is_closed_all_the_same() {
    let (mut stream, client, _) = pair();
    let reader = read_slowly(client, 1);
    let (took, error) = write_all(&mut stream, 1 << 20).await;
    assert_eq!(error, Some(ErrorKind::TimedOut));
    assert!(took < WRITE * 2, "{took:?}");
    reader.abort();
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_that_keeps_reading_gets_all_of_a_long_answer() {
    let (mut stream, client, _) = pair();
    let reader = read_slowly(client, 1 << 14);
    let (took, error) = write_all(&mut stream, 4 << 20).await;
    assert_eq!(error, None);
    assert!(took > IDLE * 2, "{took:?} is too short to show anything");
    reader.abort();
}

#[tokio::test(start_paused = true)]
async fn taking_a_long_answer_is_not_idling() {
    let (stream, client, _) = pair();
    let (mut read_half, mut write_half) = tokio::io::split(stream);
    let reader = read_slowly(client, 1 << 14);
    let answer = vec![0; 4 << 20];
    // As hyper does: one task reads and writes.
    tokio::select! {
        error = read_half.read_u8() => panic!("{error:?}"),
        result = write_half.write_all(&answer) => result.unwrap(),
    }
    reader.abort();
}

#[tokio::test(start_paused = true)]
async fn a_pause_in_taking_an_answer_is_judged_by_the_write_limit_alone() {
    let (stream, mut client, _) = pair_with(WRITE / 10);
    let (mut read_half, mut write_half) = tokio::io::split(stream);
    let reader = tokio::spawn(async move {
        sleep(WRITE / 2).await;
        client.read_exact(&mut vec![0; 4096]).await.unwrap();
        client
    });
    let answer = vec![0; 4096];
    tokio::select! {
        error = read_half.read_u8() => panic!("{error:?}"),
        result = write_half.write_all(&answer) => result.unwrap(),
    }
    reader.await.unwrap();
}

/// As [`pair`], for HTTP/2, with an answer under way.
fn taking() -> (Timed<DuplexStream>, DuplexStream, Arc<Activity>) {
    let (server, client) = duplex(1024);
    let activity = Arc::new(Activity::default());
    let patience = Patience { header: HEADER, idle: IDLE, write: WRITE };
    let stream = Timed::new(server, Vec::new(), true, patience, Arc::clone(&activity));
    activity.offer();
    (stream, client, activity)
}

#[tokio::test(start_paused = true)]
async fn an_http2_client_that_opens_no_window_is_closed_after_the_write_limit() {
    let (mut stream, _client, activity) = taking();
    // Another request at work makes no difference: it is the client who takes nothing.
    activity.begin();
    let took = until_timed_out(&mut stream).await;
    assert!((WRITE..=WRITE * 2).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_http2_client_that_takes_its_answer_slowly_is_not_idle() {
    let (stream, client, activity) = taking();
    let (mut read_half, mut write_half) = tokio::io::split(stream);
    let reader = read_slowly(client, 4096);
    let window = async {
        // Flow control lets out a little at a time, whatever the socket could take.
        for _ in 0..20 {
            write_half.write_all(&[0; 20 << 10]).await.unwrap();
            sleep(WRITE / 2).await;
        }
    };
    tokio::select! {
        error = read_half.read_u8() => panic!("{error:?}"),
        () = window => {}
    }
    activity.take();
    assert!(activity.is_quiet());
    reader.abort();
}

#[tokio::test(start_paused = true)]
async fn pings_do_not_pass_for_progress() {
    let (stream, client, _activity) = taking();
    let (mut read_half, mut write_half) = tokio::io::split(stream);
    let reader = read_slowly(client, 17);
    let pings = async {
        loop {
            write_half.write_all(&[0; 17]).await.unwrap();
            sleep(WRITE / 3).await;
        }
    };
    let begin = Instant::now();
    tokio::select! {
        error = read_half.read_u8() => assert_eq!(error.unwrap_err().kind(), ErrorKind::TimedOut),
        () = pings => {}
    }
    assert!(begin.elapsed() <= WRITE * 2, "{:?}", begin.elapsed());
    reader.abort();
}

#[tokio::test(start_paused = true)]
async fn small_answers_that_are_taken_at_once_pass_for_progress() {
    let (mut stream, _client, activity) = taking();
    activity.begin();
    let answers = async {
        // At the moment of every look there is something to take, and it is never the same.
        for _ in 0..40 {
            sleep(WRITE / 8).await;
            activity.offer();
            activity.take();
        }
    };
    tokio::select! {
        took = until_timed_out(&mut stream) => panic!("closed after {took:?}"),
        () = answers => {}
    }
    let took = until_timed_out(&mut stream).await;
    assert!(took <= WRITE * 2, "{took:?}");
}

#[tokio::test]
async fn zeros_pass_for_a_body_that_nobody_reads_a_piece_at_a_time_and_no_byte_of_the_next_request() {
    for length in [3, 8 << 10, 20_000, 50_000] {
        let (server, mut client) = duplex(1 << 16);
        let activity = Arc::new(Activity::default());
        let patience = Patience { header: HEADER, idle: IDLE, write: WRITE };
        let mut stream = Timed::new(server, Vec::new(), false, patience, Arc::clone(&activity));
        activity.set_unread(length as u64);
        client.write_all(&[&vec![b'x'; length][..], b"GET"].concat()).await.unwrap();
        let (mut room, mut got) = ([b'?'; 1 << 16], 0);
        while got < length {
            let n = stream.read(&mut room).await.unwrap();
            assert!((1..=8 << 10).contains(&n), "{n} of {length} at once");
            assert!(room[..n].iter().all(|byte| *byte == 0), "{length}");
            got += n;
        }
        assert_eq!(got, length);
        let n = stream.read(&mut room).await.unwrap();
        assert_eq!(&room[..n], b"GET", "{length}");
    }
}
