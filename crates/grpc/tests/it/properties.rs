//! Whatever a tensor holds, it is the same tensor raw and in typed lists.

use std::sync::Arc;

use millrace_core::{DType, Tensor};
use millrace_proto::inference::model_infer_request::InferInputTensor;
use millrace_proto::inference::{InferTensorContents, ModelInferRequest, ModelInferResponse};
use parking_lot::Mutex;
use proptest::prelude::*;

use crate::harness::{Models, TestServer, answered, spec};
use crate::oip::{INFER, input};

/// A datatype, its elements in their typed list, and the same elements raw.
fn tensors() -> impl Strategy<Value = (DType, usize, InferTensorContents, Vec<u8>)> {
    fn raw<T: Copy, const N: usize>(elements: &[T], bytes: fn(T) -> [u8; N]) -> Vec<u8> {
        elements.iter().flat_map(|&element| bytes(element)).collect()
    }
    macro_rules! numbers {
        ($dtype:ident, $type:ty, $list:ident) => {
            prop::collection::vec(any::<$type>(), 1..20).prop_map(|elements| {
                let raw = raw(&elements, <$type>::to_le_bytes);
                let $list = elements.iter().map(|&element| element.into()).collect();
                (DType::$dtype, elements.len(), InferTensorContents { $list, ..Default::default() }, raw)
            })
        };
    }
    let bools = prop::collection::vec(any::<bool>(), 1..20).prop_map(|bool_contents| {
        let raw = bool_contents.iter().map(|&element| u8::from(element)).collect();
        (DType::Bool, bool_contents.len(), InferTensorContents { bool_contents, ..Default::default() }, raw)
    });
    let strings = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 1..9).prop_map(|strings| {
        let length = |string: &Vec<u8>| u32::try_from(string.len()).unwrap().to_le_bytes();
        let raw = strings.iter().flat_map(|string| [&length(string)[..], string].concat()).collect();
        let bytes_contents = strings.iter().map(|string| string.clone().into()).collect();
        (DType::Bytes, strings.len(), InferTensorContents { bytes_contents, ..Default::default() }, raw)
    });
    prop_oneof![
        bools,
        strings,
        numbers!(Int8, i8, int_contents),
        numbers!(Int16, i16, int_contents),
        numbers!(Int32, i32, int_contents),
        numbers!(Int64, i64, int64_contents),
        numbers!(Uint8, u8, uint_contents),
        numbers!(Uint16, u16, uint_contents),
        numbers!(Uint32, u32, uint_contents),
        numbers!(Uint64, u64, uint64_contents),
        numbers!(Fp32, f32, fp32_contents),
        numbers!(Fp64, f64, fp64_contents),
    ]
}

/// Whether two tensors are the same to the bit.
fn is_same(a: &Tensor, b: &Tensor) -> bool {
    (a.dtype(), a.shape(), a.bytes(), a.strings()) == (b.dtype(), b.shape(), b.bytes(), b.strings())
}

proptest! {
    #[test]
    fn a_tensor_is_the_same_raw_and_typed_and_comes_back_as_it_went((dtype, n, contents, raw) in tensors()) {
        let seen: Arc<Mutex<Vec<Tensor>>> = Arc::default();
        let log = Arc::clone(&seen);
        let signature = millrace_core::Signature::new(
            vec![spec("x", dtype, &[-1])], vec![spec("y", dtype, &[-1])]).unwrap();
        let models = Models::new().version("m", 1, signature, move |request| {
            log.lock().push(request.inputs[0].clone());
            answered(request.inputs)
        });
        let server = TestServer::new(models);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let ask = |contents: Option<InferTensorContents>, raw_input_contents| -> ModelInferResponse {
            let input = InferInputTensor { contents, ..input("x", dtype.name(), &[i64::try_from(n).unwrap()]) };
            let request =
                ModelInferRequest { model_name: "m".to_owned(), inputs: vec![input], raw_input_contents, ..Default::default() };
            runtime.block_on(server.ask(INFER, &request)).gives()
        };
        let typed = ask(Some(contents), Vec::new());
        let from_raw = ask(None, vec![raw.clone().into()]);
        let seen = seen.lock();
        prop_assert!(is_same(&seen[0], &seen[1]));
        prop_assert_eq!(&typed, &from_raw);
        prop_assert_eq!(&typed.raw_output_contents[0], &raw);
    }
}
