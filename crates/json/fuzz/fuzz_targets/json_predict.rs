//! Any bytes as a predict body, under a signature of any dtype: no panic, and tensors within a small multiple of the
//! body. What is read and can be written must read back the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_core::{DType, Dim, Signature, Signatures, Tensor, TensorSpec};
use millrace_json::{DEFAULT_MAX_DEPTH, Form, check_examples, decode_predict, encode_predict};

fuzz_target!(|input: (u8, bool, &[u8])| {
    let (which, is_pair, body) = input;
    let dtype = DType::ALL[usize::from(which) % DType::ALL.len()];
    let spec = |name: &str| TensorSpec::new(name, dtype, [Dim::symbol("N")]);
    // Outputs of such names are sent as base64, which holds any bytes.
    let specs = || if is_pair { vec![spec("a_bytes"), spec("b_bytes")] } else { vec![spec("a_bytes")] };
    let signature = Signature::new(specs(), specs()).expect("names differ and the symbol is bound");
    let signatures = Signatures::single(signature.clone());
    let _ = check_examples(body, &signatures, DEFAULT_MAX_DEPTH);
    let Ok(decoded) = decode_predict(body, &signatures, DEFAULT_MAX_DEPTH) else { return };
    let n_bytes = decoded.inputs.iter().map(Tensor::n_bytes).sum::<usize>();
    assert!(n_bytes <= 8 * body.len(), "{n_bytes} bytes of tensors out of {}", body.len());

    let text = encode_predict(Form::Columns, &signature, &decoded.inputs).expect("what was read can be written");
    let text = String::from_utf8(text).expect("JSON is UTF-8").replacen("\"outputs\"", "\"inputs\"", 1);
    let again = decode_predict(text.as_bytes(), &signatures, DEFAULT_MAX_DEPTH).expect("what was written can be read");
    for (first, second) in decoded.inputs.iter().zip(&again.inputs) {
        assert_eq!(first.shape(), second.shape());
        assert_eq!(first.bytes(), second.bytes());
        assert_eq!(first.strings(), second.strings());
    }
});
