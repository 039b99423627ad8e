//! Any bytes as a body of the general endpoints and as a CloudEvent: answered or refused, never a fault of the server.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_http_fuzz::ask;

const PATHS: [&str; 4] = ["/predict", "/predict/FP32", "/batch_predict", "/v1/models/FP32:predict"];

fuzz_target!(|input: (u8, &[u8])| {
    let (which, body) = input;
    let path = PATHS[usize::from(which) % PATHS.len()];
    let (status, _, answer) = ask(path, Some(("content-type", "application/cloudevents+json")), body);
    assert!(matches!(status.as_u16(), 200 | 400 | 404 | 413 | 422 | 424 | 501), "{status}: {answer:?}");
    assert!(std::str::from_utf8(&answer).is_ok());
});
