//! Rows 48 to 50: gRPC messages that are none.

use bytes::Bytes;
use prost::Message as _;

use super::{Doors, MIB, MODEL_INFER, good, request};
use crate::support::grpc::{Ended, code, framed};

const PREDICT: &str = "/tensorflow.serving.PredictionService/Predict";

/// Numbers that look random and are the same in every run.
fn noise(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// The call ended with a status that blames the message, and without an answer.
#[track_caller]
fn is_refused(ended: &Ended, what: &str) {
    let blamed =
        [code::INVALID_ARGUMENT, code::NOT_FOUND, code::INTERNAL, code::RESOURCE_EXHAUSTED, code::UNIMPLEMENTED];
    assert!(ended.code.is_some_and(|code| blamed.contains(&code)), "{what}: {ended:?}");
    assert!(ended.messages.is_empty(), "{what}");
}

/// `tag`, and a length-delimited field around `inside`.
fn field(tag: u8, inside: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    prost::encoding::encode_varint(inside.len() as u64, &mut bytes);
    bytes.extend_from_slice(inside);
    bytes
}

#[test]
fn row_48_bytes_that_are_no_message_are_refused_and_cost_little() {
    let mut doors = Doors::open();
    let whole = request(good()).encode_to_vec();
    let growth = doors.process.peak_growth(|| {
        for path in [MODEL_INFER, PREDICT] {
            let send = |bytes: &[u8]| doors.grpc.send(path, &[], framed(bytes)).wait();
            let mut next = noise(48);
            for round in 0..300 {
                let length = usize::try_from(next() % 200).unwrap() + 1;
                let bytes: Vec<u8> = (0..length).map(|_| next().to_le_bytes()[0]).collect();
                is_refused(&send(&bytes), &format!("{round}: {bytes:?}"));
            }
            // 100 000 groups that begin and never end, as a known field and as an unknown one.
            is_refused(&send(&[0x0b; 100_000]), "groups");
            is_refused(&send(&[0x7b; 100_000]), "unknown groups");
            // 9 000 messages inside of each other, in fields of every sort.
            for tag in [0x2a, 0x22, 0x12, 0x7a] {
                let nested = (0..9_000).fold(Vec::new(), |inside, _| field(tag, &inside));
                is_refused(&send(&nested), &format!("nested {tag:#x}"));
            }
            // Fields that claim 2 GB, or all that a varint can say.
            for tag in [0x0a, 0x2a, 0x3a, 0x12] {
                is_refused(&send(&[&[tag, 0xff, 0xff, 0xff, 0xff, 0x07], &b"abc"[..]].concat()), "2 GB");
                is_refused(&send(&[&[tag][..], &[0xff; 9], &[0x01], b"abc"].concat()), "2^64");
            }
        }
        for cut in 0..whole.len() {
            is_refused(&doors.grpc.send(MODEL_INFER, &[], framed(&whole[..cut])).wait(), &format!("cut at {cut}"));
        }
    });
    assert!(growth < 32 * MIB, "{growth} bytes");
    doors.is_well();
}

#[test]
fn row_48_a_message_of_many_tiny_parts_is_bounded() {
    let mut doors = Doors::open();
    // Two bytes each on the wire, a hundred in memory: inputs, requested outputs, raw contents.
    let growth = doors.process.peak_growth(|| {
        for tag in [0x2a, 0x32, 0x3a, 0x22] {
            let message = [tag, 0].repeat(4 << 20);
            is_refused(&doors.grpc.send(MODEL_INFER, &[], framed(&message)).wait(), &format!("{tag:#x}"));
        }
    });
    assert!(growth < 256 * MIB, "{growth} bytes");
    doors.is_well();
}

#[test]
fn row_49_frames_that_lie_about_their_message_end_in_a_status() {
    let mut doors = Doors::open();
    let good = framed(&request(good()).encode_to_vec());
    let growth = doors.process.peak_growth(|| {
        for (bytes, what) in [
            (vec![0, 0xff, 0xff, 0xff, 0xff], "4 GB"),
            ([&[0, 0xff, 0xff, 0xff, 0xff], &[0; 1000][..]].concat(), "4 GB, and a little of it"),
            ([&[0, 0x03, 0xff, 0xff, 0xff], &[0; 1000][..]].concat(), "just below the limit, and a little of it"),
            ([&[2], &good[1..]].concat(), "a flag that is none"),
            ([&[0xff], &good[1..]].concat(), "a flag that is none"),
            ([&[1], &good[1..]].concat(), "compressed, without a word by what"),
            (Vec::new(), "no message"),
            (good[..3].to_vec(), "half a frame's head"),
            (good[..good.len() - 1].to_vec(), "half a frame"),
            ([&good[..], &good[..]].concat(), "two messages to a call that takes one"),
            ([&good[..], &[0]].concat(), "something after the message"),
        ] {
            for path in [MODEL_INFER, PREDICT] {
                let ended = doors.grpc.send(path, &[], Bytes::from(bytes.clone())).wait();
                is_refused(&ended, what);
                assert_eq!(ended.http, 200, "{what}: it is a gRPC answer");
            }
        }
    });
    assert!(growth < 8 * MIB, "{growth} bytes");
    doors.is_well();
}

#[test]
fn row_50_methods_and_services_that_are_none_are_not_implemented() {
    let mut doors = Doors::open();
    let body = framed(&request(good()).encode_to_vec());
    for path in [
        "/inference.GRPCInferenceService/Nothing",
        "/inference.GRPCInferenceService/modelinfer",
        "/nothing.Service/ModelInfer",
        "/inference.GRPCInferenceService/ModelInfer/",
        "/inference.GRPCInferenceService/",
        "/inference.GRPCInferenceService",
        "/",
        "/v2/models/half_plus_two/infer",
        "/a/b/c/d",
    ] {
        doors.grpc.send(path, &[], body.clone()).wait().refuses(code::UNIMPLEMENTED, "");
    }
    for path in ["/v2/nothing", "/v2/models/half_plus_two/nothing", "/v2/models/half_plus_two/versions/one/infer"] {
        let reply = doors.http.post(path, "{}");
        reply.refuses(404, "");
    }
    doors.is_well();
}
