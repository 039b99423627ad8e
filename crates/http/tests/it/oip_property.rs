//! What holds for every tensor: whichever form it comes in and whichever it leaves in, it is the same tensor.

use bytes::Bytes;
use http::Method;
use millrace_core::{DType, Element, Strings, Tensor};
use millrace_protocol::oip::{raw_bytes, tensor_from_raw};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::harness::{Answer, TestServer};
use crate::oip::oip_models;

const LENGTH: &str = "inference-header-content-length";

/// Asks the model that gives its input back. `input` is the form that goes in, `is_binary` the one that comes out.
fn ask(input: &Input<'_>, dtype: DType, is_binary: bool) -> Answer {
    let mut member = json!({"name": "x", "shape": input.tensor.shape().to_vec(), "datatype": dtype.name()});
    let mut blob = Bytes::new();
    match &input.data {
        Some(data) => member["data"] = data.clone(),
        None => {
            blob = raw_bytes(input.tensor).unwrap();
            member["parameters"] = json!({"binary_data_size": blob.len()});
        }
    }
    let document = json!({"inputs": [member], "outputs": [{"name": "y", "parameters": {"binary_data": is_binary}}]});
    let mut body = document.to_string().into_bytes();
    let length = body.len().to_string();
    body.extend_from_slice(&blob);
    let headers = [(LENGTH, length.as_str())];
    let headers = if input.data.is_none() { &headers[..] } else { &[] };
    let path = format!("/v2/models/id_{dtype}/infer");
    let runtime = Runtime::new().unwrap();
    runtime.block_on(TestServer::new(oip_models()).ask(Method::POST, &path, headers, body))
}

struct Input<'a> {
    tensor: &'a Tensor,
    /// The elements as JSON; none for the binary form.
    data: Option<Value>,
}

/// The one output of a binary answer.
fn binary_output(answer: &Answer, tensor: &Tensor) -> Tensor {
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    let length: usize = answer.headers[LENGTH].to_str().unwrap().parse().unwrap();
    let model = "m".parse().unwrap();
    tensor_from_raw(&model, "y", tensor.dtype(), tensor.shape().clone(), answer.body.slice(length..)).unwrap()
}

fn json_output(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.json()["outputs"][0]["data"].clone()
}

/// Every way in and every way out give `tensor` back; `data` is it as JSON.
fn check(tensor: &Tensor, data: &Value) {
    for input in [Some(data.clone()), None] {
        let input = Input { tensor, data: input };
        assert_eq!(binary_output(&ask(&input, tensor.dtype(), true), tensor), *tensor);
        assert_eq!(json_output(&ask(&input, tensor.dtype(), false)), *data);
    }
}

fn pairs<T: Element + serde::Serialize>(mut elements: Vec<T>) {
    elements.truncate(elements.len() / 2 * 2);
    if elements.is_empty() {
        return;
    }
    let data = json!(elements);
    check(&Tensor::from_vec(&[elements.len() / 2, 2], elements).unwrap(), &data);
}

/// By text read with the standard library, which rounds correctly, and by bytes.
fn floats<T: Element + serde::Serialize + std::str::FromStr>(mut elements: Vec<T>)
where
    T::Err: std::fmt::Debug,
{
    elements.truncate(elements.len() / 2 * 2);
    if elements.is_empty() {
        return;
    }
    let data = json!(elements);
    let tensor = Tensor::from_vec(&[elements.len() / 2, 2], elements).unwrap();
    let by_text = ask(&Input { tensor: &tensor, data: Some(data) }, T::DTYPE, true);
    assert_eq!(binary_output(&by_text, &tensor).bytes(), tensor.bytes());
    let answer = ask(&Input { tensor: &tensor, data: None }, T::DTYPE, false);
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let (_, list) = text.split_once("\"data\":[").unwrap();
    let (list, _) = list.split_once(']').unwrap();
    let read: Vec<T> = list.split(',').map(|float| float.parse().unwrap()).collect();
    assert_eq!(Tensor::from_vec(tensor.shape(), read).unwrap().bytes(), tensor.bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn numbers_are_the_same_by_json_and_by_bytes(
        bools: Vec<bool>, u8s: Vec<u8>, u64s: Vec<u64>, i16s: Vec<i16>, i64s: Vec<i64>,
    ) {
        pairs(bools);
        pairs(u8s);
        pairs(u64s);
        pairs(i16s);
        pairs(i64s);
    }

    #[test]
    fn floats_come_back_to_the_bit(bits in prop::collection::vec(any::<u64>(), 2..32)) {
        let wide: Vec<f64> = bits.iter().copied().map(f64::from_bits).filter(|float| float.is_finite()).collect();
        let narrow = bits.iter().map(|bits| u32::try_from(bits >> 32).unwrap());
        let narrow: Vec<f32> = narrow.map(f32::from_bits).filter(|float| float.is_finite()).collect();
        floats(wide);
        floats(narrow);
    }

    #[test]
    fn texts_are_the_same_by_json_and_by_bytes(texts in prop::collection::vec(any::<String>(), 1..8)) {
        let texts: Vec<String> = texts.iter().chain(&texts).cloned().collect();
        let strings: Strings = texts.iter().collect();
        check(&Tensor::from_strings(&[texts.len() / 2, 2], strings).unwrap(), &json!(texts));
    }

    #[test]
    fn any_bytes_are_strings_by_bytes(strings in prop::collection::vec(any::<Vec<u8>>(), 1..8)) {
        let strings: Vec<Vec<u8>> = strings.iter().chain(&strings).cloned().collect();
        let tensor = Tensor::from_strings(&[strings.len() / 2, 2], strings.iter().collect()).unwrap();
        let answer = ask(&Input { tensor: &tensor, data: None }, DType::Bytes, true);
        prop_assert_eq!(binary_output(&answer, &tensor), tensor);
    }
}
