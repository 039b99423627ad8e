//! HTTP/2 clients that flood, bomb and break rules: they cost little and harm nobody else.

use std::io::Write as _;
use std::time::Duration;

use crate::support::frames::{END_HEADERS, END_STREAM, frame, goaway, headers, hello, kind, parse};
use crate::support::{Client, HALF_PLUS_TWO, Process, Repository, TestServer, prediction, serve};

const MIB: u64 = 1 << 20;
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const ENHANCE_YOUR_CALM: u32 = 11;

fn start() -> (Process, Repository) {
    let repository = Repository::new().copy("models/half_plus_two/1", "half_plus_two", 1);
    let mut command = serve(repository.path());
    command.env("MILLRACE_LIMITS__WRITE_TIMEOUT", "1s");
    let process = Process::start(&mut command);
    process.logged("ready");
    process.is_well();
    (process, repository)
}

/// Sends `flood` in pieces of many frames until it ends or the server closes, then says that no more follows. Gives
/// what the server said meanwhile, which nobody read before, as frames.
fn flood(process: &Process, first: &[u8], flood: impl Iterator<Item = Vec<u8>>) -> Vec<(u8, Vec<u8>)> {
    let mut client = Client::connect(process.address);
    client.send(hello());
    let mut sender = client.sender();
    let mut piece = first.to_vec();
    for frame in flood {
        piece.extend(frame);
        if piece.len() > 32 << 10 {
            if sender.write_all(&piece).is_err() {
                piece.clear();
                break;
            }
            piece.clear();
        }
    }
    let _ = sender.write_all(&piece);
    client.half_close();
    parse(&client.rest_until_close())
}

/// The headers of a gRPC call whose message is still to come; 31 is the static table's `content-type`.
fn call() -> Vec<u8> {
    let path = "/inference.GRPCInferenceService/ModelInfer";
    [&headers("POST", path)[..], b"\x0f\x10\x10application/grpc"].concat()
}

/// The flood cost at most so much memory and five seconds of computing, and the server is well.
#[track_caller]
fn costs_little(process: &Process, most: u64, act: impl FnOnce()) {
    let before = process.computed();
    let growth = process.peak_growth(act);
    let computed = process.computed() - before;
    assert!(growth < most, "{growth} bytes");
    assert!(computed < Duration::from_secs(5), "{computed:?}");
    process.is_well();
}

fn odd_streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|index| 2 * index + 1)
}

#[test]
fn row_44_rapid_resets_by_either_side_end_the_connection_calmly() {
    let (process, _repository) = start();
    let get = headers("GET", "/v2/health/live");
    let open = |stream: u32| frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &get);
    let call = call();
    let begin = |stream: u32| frame(kind::HEADERS, END_HEADERS, stream, &call);
    let calm = |frames: &[(u8, Vec<u8>)]| {
        // Swallowed, perhaps, by the reset that follows unread bytes.
        let code = goaway(frames);
        assert!(code.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{code:?}");
    };
    costs_little(&process, 16 * MIB, || {
        let cancel = |stream| frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        calm(&flood(&process, b"", odd_streams(20_000).map(|stream| [open(stream), cancel(stream)].concat())));
        calm(&flood(&process, b"", odd_streams(20_000).map(|stream| [begin(stream), cancel(stream)].concat())));
    });
    // A window beyond its limit is an error of the stream: the server has to reset it.
    costs_little(&process, 16 * MIB, || {
        let provoke = |stream| frame(kind::WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes());
        calm(&flood(&process, b"", odd_streams(5_000).map(|stream| [open(stream), provoke(stream)].concat())));
        calm(&flood(&process, b"", odd_streams(5_000).map(|stream| [begin(stream), provoke(stream)].concat())));
    });
}

#[test]
fn row_45_floods_of_control_frames_fill_no_queue() {
    let (process, _repository) = start();
    for one in [
        frame(kind::SETTINGS, 0, 0, b""),
        frame(kind::PING, 0, 0, b"12345678"),
        frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 1]),
        frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
    ] {
        costs_little(&process, 16 * MIB, || {
            flood(&process, b"", (0..50_000).map(|_| one.clone()));
        });
    }
}

#[test]
fn row_46_endless_and_empty_frames_and_packed_header_bombs_are_refused() {
    let (process, _repository) = start();
    let post = headers("POST", HALF_PLUS_TWO);
    let begun = frame(kind::HEADERS, END_HEADERS, 1, &post);
    let unfinished = frame(kind::HEADERS, 0, 1, &post);
    let called = frame(kind::HEADERS, END_HEADERS, 1, &call());
    // Sixteen megabytes are announced, and come byte by byte.
    let announced = [&called[..], &frame(kind::DATA, 0, 1, b"\x00\x01\x00\x00\x00")].concat();
    let literal = [&b"\x00\x01x\x64"[..], &[b'y'; 100]].concat().repeat(100);
    for (first, one, count) in [
        (&begun, frame(kind::DATA, 0, 1, b""), 50_000),
        (&begun, frame(kind::DATA, 0, 1, b"x"), 200_000),
        (&called, frame(kind::DATA, 0, 1, b""), 50_000),
        (&announced, frame(kind::DATA, 0, 1, b"x"), 200_000),
        (&unfinished, frame(kind::CONTINUATION, 0, 1, b""), 50_000),
        (&unfinished, frame(kind::CONTINUATION, 0, 1, &literal), 50_000),
    ] {
        costs_little(&process, 16 * MIB, || {
            flood(&process, first, (0..count).map(|_| one.clone()));
        });
    }
    // One header of 4 000 bytes enters the table; each further byte stands for it once more: 47 MB in one frame.
    let remembered = [&b"\x40\x01x\x7f\xa1\x1e"[..], &[b'y'; 4_000]].concat();
    let bomb = [post, remembered, vec![0xbe; 11_750]].concat();
    costs_little(&process, 8 * MIB, || {
        let frames = flood(&process, &frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &bomb), std::iter::empty());
        let refused = |(kind, payload): &(u8, Vec<u8>)| match *kind {
            // `:status` by its number in the static table, then 431 in Huffman's code.
            kind::HEADERS => payload.starts_with(b"\x48\x83\x69\x90\xff"),
            kind::RST_STREAM => true,
            kind::GOAWAY => goaway(&frames) != Some(0),
            _ => false,
        };
        assert!(frames.iter().any(refused), "{frames:?}");
    });
}

#[test]
fn row_47_broken_frames_end_their_connection_with_the_right_code_and_no_other() {
    let server = TestServer::double(|_| {});
    let mut other = server.client();
    let get = headers("GET", "/v2/health/live");
    let most = &0x7fff_ffff_u32.to_be_bytes();
    for (what, bytes, codes) in [
        ("a stream that only the server may open", frame(kind::HEADERS, 5, 2, &get), &[PROTOCOL_ERROR][..]),
        ("headers of no stream", frame(kind::HEADERS, 5, 0, &get), &[PROTOCOL_ERROR]),
        ("data of no stream", frame(kind::DATA, 0, 0, b"x"), &[PROTOCOL_ERROR]),
        ("data of a stream that never began", frame(kind::DATA, 0, 5, b"x"), &[PROTOCOL_ERROR, STREAM_CLOSED]),
        ("a window beyond its limit", frame(kind::WINDOW_UPDATE, 0, 0, most), &[FLOW_CONTROL_ERROR]),
        ("a frame that is too long", frame(kind::HEADERS, 5, 1, &[0; 16_385]), &[FRAME_SIZE_ERROR]),
        // The `h2` crate takes the more general code for these two.
        ("a ping that is too short", frame(kind::PING, 0, 0, b"1234567"), &[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ("settings cut off", frame(kind::SETTINGS, 0, 0, b"12345"), &[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
    ] {
        let mut client = server.client();
        client.send(hello());
        client.send(bytes);
        let frames = parse(&client.rest_until_close());
        let code = goaway(&frames);
        assert!(code.is_some_and(|code| codes.contains(&code)), "{what}: {code:?} in {frames:?}");
        other.post(crate::support::DOUBLE, r#"{"instances": [1.0]}"#).gives(&prediction(2.0));
    }
    server.is_well();
}
