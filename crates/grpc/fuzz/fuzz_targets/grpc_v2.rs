//! Any bytes as the body of a call by the Open Inference Protocol, whole or in two pieces, to a model of any dtype: no
//! panic, an answer of messages and a status, and tensors no larger than what was sent could hold.

#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use millrace_core::DType;

const METHODS: [&str; 6] = [
    "/inference.GRPCInferenceService/ModelInfer",
    "/inference.GRPCInferenceService/ModelStreamInfer",
    "/inference.GRPCInferenceService/ModelMetadata",
    "/inference.GRPCInferenceService/RepositoryModelLoad",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
];

fuzz_target!(|input: (u8, u8, bool, &[u8])| {
    let (method, which, is_framed, body) = input;
    let dtype = DType::ALL[usize::from(which) % DType::ALL.len()];
    // A byte of the wire may be a number of eight, or a string with two offsets.
    common::call(METHODS[usize::from(method) % METHODS.len()], dtype, 16 * body.len(), is_framed, body);
});
