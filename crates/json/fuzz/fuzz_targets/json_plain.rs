//! Any bytes as a body without an envelope and as a document to take apart: no panic, and tensors within a small multiple
//! of the body.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_core::{DType, Dim, Signature, Signatures, Tensor, TensorSpec};
use millrace_json::{DEFAULT_MAX_DEPTH, decode_plain, list, object};

fuzz_target!(|input: (u8, bool, &[u8])| {
    let (which, is_pair, body) = input;
    let dtype = DType::ALL[usize::from(which) % DType::ALL.len()];
    let spec = |name: &str| TensorSpec::new(name, dtype, [Dim::symbol("N")]);
    let specs = || if is_pair { vec![spec("a"), spec("b")] } else { vec![spec("a")] };
    let signatures = Signatures::single(Signature::new(specs(), specs()).expect("names differ and the symbol is bound"));
    if let Ok(decoded) = decode_plain(body, &signatures, DEFAULT_MAX_DEPTH) {
        let n_bytes = decoded.inputs.iter().map(Tensor::n_bytes).sum::<usize>();
        assert!(n_bytes <= 8 * body.len(), "{n_bytes} bytes of tensors out of {}", body.len());
    }
    for (key, value) in object(body, DEFAULT_MAX_DEPTH).unwrap_or_default() {
        assert!(!value.text().is_empty() && key.len() <= body.len());
        let _ = value.tensor(&spec("a"), DEFAULT_MAX_DEPTH);
    }
    let _ = list(body, DEFAULT_MAX_DEPTH, 100);
});
