//! Any bytes behind a document, and any document before them: what is answered in binary form goes in again and comes out
//! the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_core::DType;
use millrace_http_fuzz::infer;

fuzz_target!(|input: (u8, u8, u16, bool, &[u8])| {
    let (which, rows, length, is_ours, bytes) = input;
    let dtype = DType::ALL[usize::from(which) % DType::ALL.len()];
    if !is_ours {
        let (status, _, answer) = infer(dtype, Some(&length.to_string()), bytes);
        // 500: strings that came as bytes, are no text and are wanted as JSON.
        assert!(matches!(status.as_u16(), 200 | 400 | 413 | 500 | 501 | 503 | 504), "{status}: {answer:?}");
        return;
    }
    let texts = usize::from(length).min(bytes.len());
    let (a, b) = (bytes.len() - texts, texts);
    let document = format!(
        r#"{{"inputs":[{{"name":"a","shape":[{rows},2],"datatype":"{dtype}","parameters":{{"binary_data_size":{a}}}}},{{"name":"b","shape":[{rows}],"datatype":"BYTES","parameters":{{"binary_data_size":{b}}}}}],"parameters":{{"binary_data_output":true}}}}"#
    );
    let body = [document.as_bytes(), bytes].concat();
    let (status, headers, answer) = infer(dtype, Some(&document.len().to_string()), &body);
    if status != 200 {
        assert_eq!(status, 400, "{answer:?}");
        return;
    }
    let header = headers.get("inference-header-content-length").expect("there are bytes");
    let header: usize = header.to_str().expect("digits").parse().expect("a number");
    assert_eq!(&answer[header..], bytes);
});
