//! Any bytes as a body of TorchServe's inference API, in each layout that a content type announces: answered or refused,
//! never a fault of the server.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_core::DType;
use millrace_http_fuzz::ask;

const LAYOUTS: [&str; 5] = [
    "multipart/form-data; boundary=B",
    "application/x-www-form-urlencoded",
    "application/json",
    "application/octet-stream",
    "",
];

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (which, layout, body) = input;
    let dtype = DType::ALL[usize::from(which) % DType::ALL.len()];
    let layout = LAYOUTS[usize::from(layout) % LAYOUTS.len()];
    let (status, _, answer) = ask(&format!("/predictions/{dtype}"), Some(("content-type", layout)), body);
    assert!(matches!(status.as_u16(), 200 | 400 | 413 | 501), "{status}: {answer:?}");
    assert!(std::str::from_utf8(&answer).is_ok());
    assert!(answer.len() <= 64 * body.len() + 4096, "{} bytes for {}", answer.len(), body.len());
});
