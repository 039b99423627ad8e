//! Writes the answers of the text routes from a network's numbers.

use std::cmp::Ordering;

use millrace_core::{Reason, Refusal, Shape, TextFacts, TextInput, TextTask};
use millrace_json::{encode_float, encode_floats, encode_string};

use super::codec::too_large;
use super::request::{Ask, VectorForm, Wish};
use super::score::{cosine, sigmoid, softmax, vector};

/// The one output of a run: finite numbers, a row for each row of the request.
pub(super) struct Outputs<'a> {
    pub(super) numbers: &'a [f32],
    pub(super) sizes: &'a Shape,
    /// Tokens of each row.
    pub(super) lengths: &'a [usize],
    /// Whether vectors are one long.
    pub(super) is_unit: bool,
    pub(super) facts: &'a TextFacts,
    pub(super) model: &'a str,
    /// The most bytes of an answer.
    pub(super) limit: usize,
}

impl<'a> Outputs<'a> {
    fn row(&self, index: usize) -> &'a [f32] {
        let width = self.sizes.row_elements();
        &self.numbers[index * width..(index + 1) * width]
    }

    fn n_rows(&self) -> usize {
        self.lengths.len()
    }
}

/// The body of the answer.
///
/// # Errors
/// A [`Refusal`] where the answer is larger than allowed, or the network's numbers are none of this kind.
pub(super) fn write(ask: &Ask, outputs: &Outputs<'_>) -> Result<Vec<u8>, Refusal> {
    let mut text = Vec::new();
    match ask.wish {
        Wish::Vectors { normalize, dimensions, form } => {
            if let Some(dimensions) = dimensions.filter(|dimensions| *dimensions > outputs.sizes.row_elements()) {
                let width = outputs.sizes.row_elements();
                let text =
                    format!("dimensions: the model gives {width} numbers; expected 1 to {width}, got {dimensions}");
                return Err(Refusal::new(Reason::InvalidInput, text));
            }
            let normalize = normalize && !(outputs.is_unit && dimensions.is_none());
            let of_row = |index| vector(outputs.row(index), dimensions, normalize);
            match form {
                VectorForm::Lists => {
                    list(&mut text, outputs, |text, index| encode_floats(text, &of_row(index)))?;
                }
                VectorForm::OpenAi { base64 } => {
                    text.extend_from_slice(b"{\"object\":\"list\",\"data\":");
                    list(&mut text, outputs, |text, index| {
                        text.extend_from_slice(b"{\"object\":\"embedding\",\"embedding\":");
                        let vector = of_row(index);
                        if base64 {
                            in_base64(text, &vector)
                        } else {
                            encode_floats(text, &vector)
                        }
                        text.extend_from_slice(format!(",\"index\":{index}}}").as_bytes());
                    })?;
                    text.extend_from_slice(b",\"model\":");
                    encode_string(&mut text, outputs.model);
                    let tokens: usize = outputs.lengths.iter().sum();
                    let usage = format!(",\"usage\":{{\"prompt_tokens\":{tokens},\"total_tokens\":{tokens}}}}}");
                    text.extend_from_slice(usage.as_bytes());
                }
            }
        }
        Wish::TokenVectors => {
            let &[_, sequence, width] = &**outputs.sizes else { return Err(misshapen(outputs)) };
            if outputs.lengths.iter().any(|length| *length > sequence) {
                return Err(misshapen(outputs));
            }
            list(&mut text, outputs, |text, index| {
                let tokens = &outputs.row(index)[..outputs.lengths[index] * width];
                text.push(b'[');
                for (token, vector) in tokens.chunks_exact(width.max(1)).enumerate() {
                    text.extend_from_slice(if token > 0 { b"," } else { b"" });
                    encode_floats(text, vector);
                }
                text.push(b']');
            })?;
        }
        Wish::Similarity => {
            let source = outputs.row(0);
            let similarities: Vec<f32> =
                (1..outputs.n_rows()).map(|index| cosine(source, outputs.row(index))).collect();
            encode_floats(&mut text, &similarities);
        }
        Wish::Labels { raw_scores, is_single } => labels(&mut text, outputs, raw_scores, is_single)?,
        Wish::Ranks { raw_scores, return_text } => ranks(&mut text, ask, outputs, raw_scores, return_text)?,
    }
    if text.len() > outputs.limit { Err(too_large(outputs.limit)) } else { Ok(text) }
}

/// Writes an element for each row, in brackets, and stops where the answer is too large.
fn list(text: &mut Vec<u8>, outputs: &Outputs<'_>, mut write: impl FnMut(&mut Vec<u8>, usize)) -> Result<(), Refusal> {
    text.push(b'[');
    for index in 0..outputs.n_rows() {
        if index > 0 {
            text.push(b',');
        }
        write(text, index);
        if text.len() > outputs.limit {
            return Err(too_large(outputs.limit));
        }
    }
    text.push(b']');
    Ok(())
}

/// The bytes of little-endian numbers.
fn in_base64(text: &mut Vec<u8>, vector: &[f32]) {
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    text.push(b'"');
    text.reserve(bytes.len() / 3 * 4 + 8);
    base64_simd::STANDARD.encode_append(&bytes, text);
    text.push(b'"');
}

/// The scores of a row's labels.
fn scores(row: &[f32], facts: &TextFacts, raw_scores: bool) -> Vec<f32> {
    if raw_scores {
        row.to_vec()
    } else if facts.is_multi_label || facts.task == TextTask::Ranking || row.len() == 1 {
        row.iter().copied().map(sigmoid).collect()
    } else {
        softmax(row)
    }
}

/// The name of the label at `index`.
pub(super) fn label(facts: &TextFacts, index: usize) -> String {
    // What transformers calls labels that have no name.
    facts.labels.get(index).map_or_else(|| format!("LABEL_{index}"), |label| label.as_ref().to_owned())
}

fn labels(text: &mut Vec<u8>, outputs: &Outputs<'_>, raw_scores: bool, is_single: bool) -> Result<(), Refusal> {
    let facts = outputs.facts;
    let n_labels = outputs.sizes.row_elements();
    if outputs.sizes.len() != 2 || !facts.labels.is_empty() && facts.labels.len() != n_labels {
        return Err(misshapen(outputs));
    }
    let names: Vec<String> = (0..n_labels).map(|index| label(facts, index)).collect();
    let one = |text: &mut Vec<u8>, index: usize| {
        let scores = scores(outputs.row(index), facts, raw_scores);
        text.push(b'[');
        for (position, index) in best_first(&scores).into_iter().enumerate() {
            text.extend_from_slice(if position > 0 { b",{\"score\":" } else { b"{\"score\":" });
            encode_float(text, scores[index]);
            text.extend_from_slice(b",\"label\":");
            encode_string(text, &names[index]);
            text.push(b'}');
        }
        text.push(b']');
    };
    if is_single {
        one(text, 0);
        Ok(())
    } else {
        list(text, outputs, one)
    }
}

fn ranks(
    text: &mut Vec<u8>,
    ask: &Ask,
    outputs: &Outputs<'_>,
    raw_scores: bool,
    return_text: bool,
) -> Result<(), Refusal> {
    if outputs.sizes.len() != 2 || outputs.sizes.row_elements() != 1 {
        return Err(misshapen(outputs));
    }
    let score = |logit: &f32| if raw_scores { *logit } else { sigmoid(*logit) };
    let scores: Vec<f32> = outputs.numbers.iter().map(score).collect();
    // By the logits: where scores are near 1, many texts have the same.
    let order = best_first(outputs.numbers);
    list(text, outputs, |text, position| {
        let index = order[position];
        text.extend_from_slice(format!("{{\"index\":{index}").as_bytes());
        if let Some(TextInput::Pair(_, given)) = ask.rows.get(index).filter(|_| return_text) {
            text.extend_from_slice(b",\"text\":");
            encode_string(text, given);
        }
        text.extend_from_slice(b",\"score\":");
        encode_float(text, scores[index]);
        text.push(b'}');
    })
}

/// The positions of `scores`, finite numbers, the highest first; of equal ones the first.
fn best_first(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].partial_cmp(&scores[*a]).unwrap_or(Ordering::Equal));
    order
}

fn misshapen(outputs: &Outputs<'_>) -> Refusal {
    let text =
        format!("model `{}` gave numbers of shape {}, which are none of this kind", outputs.model, outputs.sizes);
    Refusal::new(Reason::BackendBroken, text)
}
