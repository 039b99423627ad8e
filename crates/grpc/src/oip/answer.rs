//! Writes a `ModelInferResponse` by hand: large tensors stay where they are and become pieces of the answer.

use std::borrow::Cow;
use std::mem::take;

use bytes::Bytes;
use millrace_core::{Refusal, Tensor, TensorList};
use millrace_protocol::oip::{OutputPlan, PlannedOutput, raw_bytes, sizes_of};
use prost::encoding::{encode_varint, encoded_len_varint};

use crate::body::Pieces;
use crate::reply::{Reply, begin};

/// Bytes. Smaller tensors are copied: a piece of its own costs more than so many bytes.
const COPY_BELOW: usize = 8 << 10;

/// An entry of the parameters: `triton_final_response`, a boolean.
const FINAL: [u8; 29] = *b"\x22\x1b\x0a\x15triton_final_response\x12\x02\x08\x01";
const NOT_FINAL: [u8; 29] = *b"\x22\x1b\x0a\x15triton_final_response\x12\x02\x08\x00";

/// An answer to be written.
pub(super) struct Answer<'a> {
    pub(super) model: &'a str,
    pub(super) version: u64,
    pub(super) id: &'a str,
    /// Whether it is the last one to its request. `None` where it is no part of a stream.
    pub(super) is_final: Option<bool>,
    pub(super) outputs: &'a Outputs,
    /// Further parameters.
    pub(super) told: &'a Told,
}

/// What a request is told about itself: names and texts of parameters.
pub(super) type Told = Vec<(&'static str, String)>;

/// The outputs of an answer, in its order.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    plan: OutputPlan,
    tensors: TensorList,
    /// The elements of byte strings in the layout of raw tensors; those of numbers lie so already.
    packed: Vec<Option<Bytes>>,
}

/// One of them.
#[derive(Clone, Copy)]
struct Output<'a> {
    planned: &'a PlannedOutput,
    tensor: &'a Tensor,
    raw: &'a Bytes,
}

impl Outputs {
    /// Those of `plan`, from what the model gave.
    ///
    /// # Errors
    /// Those of [`OutputPlan::apply`] and [`raw_bytes`].
    pub(super) fn new(plan: OutputPlan, mut tensors: TensorList) -> Result<Self, Refusal> {
        if let Cow::Owned(changed) = plan.apply(&tensors)? {
            tensors = changed.into();
        }
        let pack = |tensor: &Tensor| tensor.strings().map(|_| raw_bytes(tensor)).transpose();
        let has_strings = tensors.iter().any(|tensor| tensor.strings().is_some());
        let packed = if has_strings { tensors.iter().map(pack).collect::<Result<_, _>>()? } else { Vec::new() };
        Ok(Self { plan, tensors, packed })
    }

    fn iter(&self) -> impl Iterator<Item = Output<'_>> {
        self.plan.outputs.iter().zip(&self.tensors).enumerate().map(|(index, (planned, tensor))| {
            let packed = self.packed.get(index).and_then(Option::as_ref);
            Output { planned, tensor, raw: packed.or_else(|| tensor.bytes()).unwrap_or(&NOTHING) }
        })
    }
}

static NOTHING: Bytes = Bytes::new();

impl Answer<'_> {
    /// The answer as a message; as a part of `ModelStreamInferResponse` where it belongs to a stream.
    ///
    /// # Errors
    /// `TooLarge` when it does not fit the four bytes of its length.
    pub(super) fn write(&self) -> Result<Reply, Refusal> {
        let mut digits = itoa::Buffer::new();
        let version = digits.format(self.version);
        let mut length = text_len(self.model) + text_len(version) + text_len(self.id);
        length += self.is_final.map_or(0, |_| FINAL.len());
        length += self.told.iter().map(|(name, text)| bytes_len(entry_len(name, text))).sum::<usize>();
        let mut kept = 0;
        for output in self.outputs.iter() {
            length += bytes_len(output.len()) + bytes_len(output.raw.len());
            kept += if output.raw.len() < COPY_BELOW { 0 } else { output.raw.len() };
        }
        let whole = self.is_final.map_or(length, |_| bytes_len(length));

        let mut buffer = begin(whole, whole - kept)?;
        if self.is_final.is_some() {
            key(&mut buffer, 2, length);
        }
        put_text(&mut buffer, 1, self.model);
        put_text(&mut buffer, 2, version);
        put_text(&mut buffer, 3, self.id);
        match self.is_final {
            Some(true) => buffer.extend_from_slice(&FINAL),
            Some(false) => buffer.extend_from_slice(&NOT_FINAL),
            None => {}
        }
        for (name, text) in self.told {
            key(&mut buffer, 4, entry_len(name, text));
            put_text(&mut buffer, 1, name);
            key(&mut buffer, 2, text_len(text));
            put_text(&mut buffer, 3, text);
        }
        for output in self.outputs.iter() {
            key(&mut buffer, 5, output.len());
            output.put(&mut buffer);
        }
        let mut pieces = Pieces::new();
        for Output { raw, .. } in self.outputs.iter() {
            key(&mut buffer, 6, raw.len());
            if raw.len() < COPY_BELOW {
                buffer.extend_from_slice(raw);
            } else {
                pieces.push(Bytes::from(take(&mut buffer)));
                pieces.push(raw.clone());
            }
        }
        if !buffer.is_empty() {
            pieces.push(Bytes::from(buffer));
        }
        Ok(Reply::from_pieces(pieces))
    }
}

impl Output<'_> {
    /// Of its description, without key and length.
    fn len(&self) -> usize {
        let shape = self.shape_len();
        let shape = if shape == 0 { 0 } else { bytes_len(shape) };
        text_len(&self.planned.name) + text_len(self.tensor.dtype().name()) + shape
    }

    fn shape_len(&self) -> usize {
        sizes_of(self.tensor.shape()).map(|size| encoded_len_varint(size.cast_unsigned())).sum()
    }

    fn put(&self, buffer: &mut Vec<u8>) {
        put_text(buffer, 1, &self.planned.name);
        put_text(buffer, 2, self.tensor.dtype().name());
        let shape = self.shape_len();
        if shape > 0 {
            key(buffer, 3, shape);
            sizes_of(self.tensor.shape()).for_each(|size| encode_varint(size.cast_unsigned(), buffer));
        }
    }
}

/// The key and the length of field `number`, which holds `length` bytes. All numbers here are below 16.
fn key(buffer: &mut Vec<u8>, number: u8, length: usize) {
    buffer.push(number << 3 | 2);
    encode_varint(length as u64, buffer);
}

/// Texts that are empty are left out, as protobuf does.
fn put_text(buffer: &mut Vec<u8>, number: u8, text: &str) {
    if !text.is_empty() {
        key(buffer, number, text.len());
        buffer.extend_from_slice(text.as_bytes());
    }
}

/// An entry of the parameters that is a text, without key and length.
fn entry_len(name: &str, text: &str) -> usize {
    text_len(name) + bytes_len(text_len(text))
}

fn text_len(text: &str) -> usize {
    if text.is_empty() { 0 } else { bytes_len(text.len()) }
}

/// A field of `length` bytes with its key and its length.
fn bytes_len(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use millrace_core::{DType, Shape, Tensor};
    use millrace_proto::inference::infer_parameter::ParameterChoice;
    use millrace_proto::inference::model_infer_response::InferOutputTensor;
    use millrace_proto::inference::{InferParameter, ModelInferResponse, ModelStreamInferResponse};
    use millrace_protocol::oip::{OutputPlan, PlannedOutput};
    use proptest::prelude::*;
    use prost::Message as _;

    use super::{Answer, COPY_BELOW, Output, Outputs, Told};
    use crate::frame::PREFIX;

    fn outputs(all: &[(&str, &[usize], &Bytes)]) -> Outputs {
        let mut plan = OutputPlan::default();
        plan.outputs.extend(all.iter().enumerate().map(|(index, (name, ..))| PlannedOutput {
            name: Arc::from(*name),
            index,
            classification: None,
            binary: true,
            is_batched: false,
        }));
        let tensor = |(_, sizes, raw): &(&str, &[usize], &Bytes)| {
            Tensor::new(DType::Uint8, Shape::new(sizes).unwrap(), Bytes::clone(raw)).unwrap()
        };
        Outputs::new(plan, all.iter().map(tensor).collect()).unwrap()
    }

    fn expected(answer: &Answer<'_>) -> ModelInferResponse {
        let one = |output: Output<'_>| InferOutputTensor {
            name: output.planned.name.to_string(),
            datatype: "UINT8".to_owned(),
            shape: output.tensor.shape().iter().map(|&size| i64::try_from(size).unwrap()).collect(),
            ..InferOutputTensor::default()
        };
        let parameter = |value| InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(value)) };
        let text =
            |text: &String| InferParameter { parameter_choice: Some(ParameterChoice::StringParam(text.clone())) };
        ModelInferResponse {
            model_name: answer.model.to_owned(),
            model_version: answer.version.to_string(),
            id: answer.id.to_owned(),
            parameters: answer
                .is_final
                .map(|value| ("triton_final_response".to_owned(), parameter(value)))
                .into_iter()
                .chain(answer.told.iter().map(|(name, told)| ((*name).to_owned(), text(told))))
                .collect(),
            outputs: answer.outputs.iter().map(one).collect(),
            raw_output_contents: answer.outputs.iter().map(|output| output.raw.clone()).collect(),
        }
    }

    fn written(answer: &Answer<'_>) -> Vec<Bytes> {
        answer.write().unwrap().into_pieces().into_vec()
    }

    proptest! {
        #[test]
        fn what_is_written_by_hand_reads_as_the_generated_type_writes_it(
            id in ".{0,20}",
            version in any::<u64>(),
            is_final in any::<Option<bool>>(),
            lengths in prop::collection::vec(prop_oneof![0_usize..40, COPY_BELOW - 2..COPY_BELOW + 2], 0..4),
            told in prop::sample::subsequence(vec!["millrace_timing", "millrace_explain"], 0..=2),
            words in ".{1,300}",
        ) {
            let raw: Vec<Bytes> = lengths.iter().map(|&length| Bytes::from(vec![7; length])).collect();
            let sizes: Vec<Vec<usize>> =
                lengths.iter().map(|&length| if length == 1 { vec![] } else { vec![length, 1] }).collect();
            let all: Vec<_> = sizes.iter().zip(&raw).map(|(sizes, raw)| ("y", sizes.as_slice(), raw)).collect();
            let outputs = outputs(&all);
            let told: Told = told.into_iter().map(|name| (name, words.clone())).collect();
            let answer = Answer { model: "m", version, id: &id, is_final, outputs: &outputs, told: &told };
            let bytes = written(&answer).concat();
            let (prefix, message) = bytes.split_at(PREFIX);
            prop_assert_eq!(&prefix[1..], &u32::try_from(message.len()).unwrap().to_be_bytes()[..]);
            let read = match is_final {
                None => ModelInferResponse::decode(message).unwrap(),
                Some(_) => ModelStreamInferResponse::decode(message).unwrap().infer_response.unwrap(),
            };
            prop_assert_eq!(read, expected(&answer));
        }
    }

    #[test]
    fn a_large_tensor_leaves_as_it_is_and_small_ones_in_one_piece() {
        let (large, small) = (Bytes::from(vec![1; COPY_BELOW]), Bytes::from(vec![2; 4]));
        let both = outputs(&[("a", &[large.len()], &large), ("b", &[4], &small)]);
        let answer = Answer { model: "m", version: 1, id: "", is_final: None, outputs: &both, told: &Told::new() };
        let pieces = written(&answer);
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[1].as_ptr(), large.as_ptr());
        let small = outputs(&[("b", &[4], &small)]);
        assert_eq!(written(&Answer { outputs: &small, ..answer }).len(), 1);
    }
}
