//! Any bytes as the body of a call by TensorFlow Serving's or TorchServe's services, to a model of any dtype: no panic, an
//! answer of messages and a status, and tensors no larger than the limit of a message, whatever a few bytes ask for.

#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use millrace_core::DType;

const METHODS: [&str; 8] = [
    "/tensorflow.serving.PredictionService/Predict",
    "/tensorflow.serving.PredictionService/Predict",
    "/tensorflow.serving.PredictionService/Classify",
    "/tensorflow.serving.PredictionService/MultiInference",
    "/tensorflow.serving.PredictionService/GetModelMetadata",
    "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
    "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions",
    "/org.pytorch.serve.grpc.inference.InferenceAPIsService/StreamPredictions2",
];

/// Two inputs of `dtype`, `a` and `b`: the beginning of a request that reaches the model.
fn beginning(dtype: DType, rest: &[u8]) -> Vec<u8> {
    let number = u8::try_from(millrace_protocol::tfs::data_type_number(dtype)).expect("numbers are small");
    let mut message = vec![0x0a, 3, 0x0a, 1, b'm'];
    let (half, other) = rest.split_at(rest.len() / 2);
    for (name, values) in [(b'a', half), (b'b', other)] {
        let values = &values[..values.len().min(100)];
        let tensor = [&[0x08, number][..], values].concat();
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("at most 102 and 7 more");
        let entry = [&[0x0a, 1, name, 0x12, length(&tensor)][..], &tensor].concat();
        message.extend_from_slice(&[0x12, length(&entry)]);
        message.extend_from_slice(&entry);
    }
    message
}

fuzz_target!(|input: (u8, u8, bool, &[u8])| {
    let (method, which, is_begun, body) = input;
    let dtype = DType::ALL[usize::from(which) % DType::ALL.len()];
    let method = usize::from(method) % METHODS.len();
    let message = if is_begun && method < 2 { beginning(dtype, body) } else { body.to_vec() };
    // JSON in TorchServe's messages is never larger than its tensors by more than a number of eight bytes to a byte.
    let most = common::MAX_MESSAGE + 16 * message.len() + 64;
    common::call(METHODS[method], dtype, most, true, &message);
});
