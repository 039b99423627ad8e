//! Any bytes as a body of the text routes: read and refused, for no model here takes text. Never a fault of the server.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_http_fuzz::ask;

const PATHS: [&str; 8] = [
    "/v1/embeddings",
    "/embed/FP32",
    "/embed_all/FP32",
    "/similarity/FP32",
    "/rerank/FP32",
    "/predict/FP32",
    "/tokenize/FP32",
    "/decode/FP32",
];

fuzz_target!(|input: (u8, &[u8])| {
    let (which, body) = input;
    let path = PATHS[usize::from(which) % PATHS.len()];
    let (status, _, answer) = ask(path, None, body);
    assert!(matches!(status.as_u16(), 200 | 400 | 404 | 413 | 422 | 424 | 501), "{status}: {answer:?}");
    assert!(std::str::from_utf8(&answer).is_ok());
});
