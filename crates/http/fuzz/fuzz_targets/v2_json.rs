//! Any bytes as the document of an inference request: answered or refused, never a fault of the server.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_core::DType;
use millrace_http_fuzz::infer;

fuzz_target!(|input: (u8, &[u8])| {
    let (which, body) = input;
    let dtype = DType::ALL[usize::from(which) % DType::ALL.len()];
    let (status, headers, answer) = infer(dtype, None, body);
    assert!(matches!(status.as_u16(), 200 | 400 | 413 | 501 | 503 | 504), "{status}: {answer:?}");
    assert!(answer.len() <= 64 * body.len() + 4096, "{} bytes for {}", answer.len(), body.len());
    if headers.get("inference-header-content-length").is_none() {
        assert!(std::str::from_utf8(&answer).is_ok());
    }
});
