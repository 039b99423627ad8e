//! Writes a `ModelInferResponse` by hand: large tensors stay where they are and become pieces of the answer.

use bytes::{BufMut, Bytes, BytesMut};
use millrace_core::{Refusal, Tensor};
use millrace_protocol::oip::{PlannedOutput, sizes_of};
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
    pub(super) outputs: &'a [Output],
    /// Further parameters.
    pub(super) told: &'a Told,
}

/// What a request is told about itself: names and texts of parameters.
pub(super) type Told = Vec<(&'static str, String)>;

/// One output of an answer.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) planned: PlannedOutput,
    pub(super) tensor: Tensor,
    /// Its elements in the layout of raw tensors.
    pub(super) raw: Bytes,
}

impl Answer<'_> {
    /// The answer as a message; as a part of `ModelStreamInferResponse` where it belongs to a stream.
    ///
    /// # Errors
    /// `TooLarge` when it does not fit the four bytes of its length.
    pub(super) fn write(&self) -> Result<Reply, Refusal> {
        let version = self.version.to_string();
        let mut length = text_len(self.model) + text_len(&version) + text_len(self.id);
        length += self.is_final.map_or(0, |_| FINAL.len());
        length += self.told.iter().map(|(name, text)| bytes_len(entry_len(name, text))).sum::<usize>();
        length +=
            self.outputs.iter().map(|output| bytes_len(output.len()) + bytes_len(output.raw.len())).sum::<usize>();
        let whole = self.is_final.map_or(length, |_| bytes_len(length));
        let copied: usize = self.outputs.iter().map(|output| output.raw.len()).filter(|len| *len < COPY_BELOW).sum();
        let kept: usize = self.outputs.iter().map(|output| output.raw.len()).filter(|len| *len >= COPY_BELOW).sum();
        debug_assert!(copied + kept <= whole, "the parts are in the whole");

        let mut buffer = begin(whole, whole - kept)?;
        if self.is_final.is_some() {
            key(&mut buffer, 2, length);
        }
        put_text(&mut buffer, 1, self.model);
        put_text(&mut buffer, 2, &version);
        put_text(&mut buffer, 3, self.id);
        match self.is_final {
            Some(true) => buffer.put_slice(&FINAL),
            Some(false) => buffer.put_slice(&NOT_FINAL),
            None => {}
        }
        for (name, text) in self.told {
            key(&mut buffer, 4, entry_len(name, text));
            put_text(&mut buffer, 1, name);
            key(&mut buffer, 2, text_len(text));
            put_text(&mut buffer, 3, text);
        }
        for output in self.outputs {
            key(&mut buffer, 5, output.len());
            output.put(&mut buffer);
        }
        let mut pieces = Pieces::new();
        for output in self.outputs {
            key(&mut buffer, 6, output.raw.len());
            if output.raw.len() < COPY_BELOW {
                buffer.put_slice(&output.raw);
            } else {
                pieces.push(buffer.split().freeze());
                pieces.push(output.raw.clone());
            }
        }
        if !buffer.is_empty() {
            pieces.push(buffer.freeze());
        }
        Ok(Reply::from_pieces(pieces))
    }
}

impl Output {
    /// Of its description, without key and length.
    fn len(&self) -> usize {
        let shape = self.shape_len();
        let shape = if shape == 0 { 0 } else { bytes_len(shape) };
        text_len(&self.planned.name) + text_len(self.tensor.dtype().name()) + shape
    }

    fn shape_len(&self) -> usize {
        sizes_of(self.tensor.shape()).map(|size| encoded_len_varint(size.cast_unsigned())).sum()
    }

    fn put(&self, buffer: &mut BytesMut) {
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
fn key(buffer: &mut BytesMut, number: u8, length: usize) {
    buffer.put_u8(number << 3 | 2);
    encode_varint(length as u64, buffer);
}

/// Texts that are empty are left out, as protobuf does.
fn put_text(buffer: &mut BytesMut, number: u8, text: &str) {
    if !text.is_empty() {
        key(buffer, number, text.len());
        buffer.put_slice(text.as_bytes());
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
    use millrace_protocol::oip::PlannedOutput;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::{Answer, COPY_BELOW, Output, Told};
    use crate::frame::PREFIX;

    fn output(name: &str, sizes: &[usize], raw: &Bytes) -> Output {
        let planned =
            PlannedOutput { name: Arc::from(name), index: 0, classification: None, binary: true, is_batched: false };
        let tensor = Tensor::new(DType::Uint8, Shape::new(sizes).unwrap(), raw.clone()).unwrap();
        Output { planned, tensor, raw: raw.clone() }
    }

    fn expected(answer: &Answer<'_>) -> ModelInferResponse {
        let one = |output: &Output| InferOutputTensor {
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
            let outputs: Vec<Output> = lengths
                .iter()
                .map(|&length| {
                    let sizes = if length == 1 { vec![] } else { vec![length, 1] };
                    output("y", &sizes, &Bytes::from(vec![7; length]))
                })
                .collect();
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
        let outputs = [output("a", &[large.len()], &large), output("b", &[4], &small)];
        let answer = Answer { model: "m", version: 1, id: "", is_final: None, outputs: &outputs, told: &Told::new() };
        let pieces = written(&answer);
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[1].as_ptr(), large.as_ptr());
        let small = [output("b", &[4], &small)];
        assert_eq!(written(&Answer { outputs: &small, ..answer }).len(), 1);
    }
}
