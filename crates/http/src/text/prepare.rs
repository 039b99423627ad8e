//! From texts to token ids, on compute threads but for a few words.
//!
//! A long request is cut into parts, each a job of its own: they spread over the cores, leave room for others in between,
//! and whatever has not begun when the client leaves never will.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use millrace_core::{
    EncodeOptions, Encoding, InputError, Quoted, Reason, Refusal, Servable, TensorList, TextInput, TextProcessor,
    Truncation, contained, is_short_text, on_compute,
};
use millrace_protocol::front::now;

use super::choice::Chosen;
use super::request::Ask;
use crate::general::join_all;
use crate::service::Shared;

/// Rows of one job.
const PART_ROWS: usize = 64;
/// Bytes of text of one job, about a millisecond of work; a longer row is one alone.
const PART_BYTES: usize = 32 << 10;
/// Token ids of one request, each row as long as the longest: 32 MiB of each input.
pub(super) const MOST_POSITIONS: usize = 4 << 20;

/// The inputs of a network, and what is told about them.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) inputs: TensorList,
    /// Tokens of each row.
    pub(super) lengths: Vec<usize>,
    /// Characters of all texts.
    pub(super) n_chars: usize,
    /// From the first of the work to its end.
    pub(super) time: Duration,
}

/// Encoded rows and the characters in them.
struct Part {
    encodings: Vec<Encoding>,
    n_chars: usize,
}

/// The ids of all rows of `ask`.
///
/// # Errors
/// A [`Refusal`]: what the tokenizer refuses, more than fits, or no room on the compute threads.
pub(super) async fn prepare(shared: &Shared, chosen: &Chosen, ask: &Arc<Ask>) -> Result<Prepared, Refusal> {
    let begun = now();
    let facts = chosen.text.facts();
    let prompt = prompt(chosen, ask.prompt_name.as_deref(), ask.takes_prompt())?;
    let work = {
        let (chosen, ask, truncation) = (chosen.clone(), Arc::clone(ask), ask.truncation(facts));
        move |rows: Range<usize>| {
            let encoding = Encoder { text: &*chosen.text, truncation, prompt: prompt.as_deref() };
            encoding.part(&*chosen.servable, &ask, rows)
        }
    };
    let (n_rows, compute) = (ask.rows.len(), &*shared.parts.compute);
    let weigh = |index| ask.rows.get(index).map_or(0, |row| bytes(&row));
    let lease = chosen.clone();
    let joined = if parts(n_rows, weigh).len() == 1 {
        let all = move || work(0..n_rows).and_then(|part| join(&lease, vec![part]));
        // One hop for all there is to do, or none.
        let is_short = is_short_text(n_rows, (0..n_rows).map(&weigh).sum());
        if is_short { contained(all) } else { on_compute(compute, all).await }
    } else {
        let parts = in_parts(shared, n_rows, weigh, move |rows| work(rows).map(|part| vec![part])).await?;
        on_compute(compute, move || join(&lease, parts)).await
    };
    let (inputs, lengths, n_chars) = joined??;
    Ok(Prepared { inputs, lengths, n_chars, time: now().saturating_duration_since(begun) })
}

/// Does `work` for the items of a request, part by part.
///
/// # Errors
/// The first refusal of `work`, or that of the compute threads.
pub(super) async fn in_parts<T: Send + 'static>(
    shared: &Shared,
    n_items: usize,
    weigh: impl Fn(usize) -> usize,
    work: impl Fn(Range<usize>) -> Result<Vec<T>, Refusal> + Clone + Send + 'static,
) -> Result<Vec<T>, Refusal> {
    let mut jobs = parts(n_items, weigh).into_iter().map(|items| {
        let work = work.clone();
        on_compute(&*shared.parts.compute, move || work(items))
    });
    let mut all = Vec::with_capacity(n_items);
    // What is wrong with one is often wrong with all: the first part alone, before the others cost anything.
    if let Some(first) = jobs.next() {
        all.append(&mut first.await??);
    }
    for part in join_all(jobs).await {
        all.append(&mut part??);
    }
    Ok(all)
}

/// The prompt that is put before each text of a request, where the model has some.
///
/// # Errors
/// `InvalidInput` for a name that is none of the model's.
pub(super) fn prompt(chosen: &Chosen, name: Option<&str>, takes_any: bool) -> Result<Option<String>, Refusal> {
    let facts = chosen.text.facts();
    let Some(name) = name.or(facts.default_prompt.as_deref()).filter(|_| takes_any) else { return Ok(None) };
    facts.prompts.get(name).cloned().map(Some).ok_or_else(|| {
        let known: Vec<_> = facts.prompts.keys().map(|name| Quoted(name).to_string()).collect();
        let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
        let model = chosen.servable.model();
        Refusal::new(
            Reason::InvalidInput,
            format!("prompt_name: model `{model}` has no prompt {}; {known}", Quoted(name)),
        )
    })
}

/// Cuts items into ranges of bounded number and weight.
fn parts(n_items: usize, weigh: impl Fn(usize) -> usize) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut start, mut weight) = (0, 0);
    for index in 0..n_items {
        let more = weigh(index);
        if index > start && (index - start == PART_ROWS || weight + more > PART_BYTES) {
            parts.push(start..index);
            (start, weight) = (index, 0);
        }
        weight += more;
    }
    parts.push(start..n_items);
    parts
}

fn bytes(row: &TextInput<'_>) -> usize {
    match row {
        TextInput::Single(text) => text.len(),
        // The first is the same again and again, and cut once for each part.
        TextInput::Pair(_, second) => second.len(),
        TextInput::Ids(ids) => ids.len(),
    }
}

/// As text-embeddings-inference counts them: of ids, each is one.
fn characters(row: &TextInput<'_>) -> usize {
    match row {
        TextInput::Single(text) => text.chars().count(),
        TextInput::Pair(first, second) => first.chars().count() + second.chars().count(),
        TextInput::Ids(ids) => ids.len(),
    }
}

/// The parts of one request as tensors.
fn join(chosen: &Chosen, parts: Vec<Part>) -> Result<(TensorList, Vec<usize>, usize), Refusal> {
    let n_chars = parts.iter().map(|part| part.n_chars).sum();
    let encodings: Vec<Encoding> = parts.into_iter().flat_map(|part| part.encodings).collect();
    let lengths: Vec<usize> = encodings.iter().map(|encoding| encoding.ids.len()).collect();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    if longest.saturating_mul(lengths.len()) > MOST_POSITIONS {
        let text = format!(
            "{} texts, the longest of {longest} tokens, are together longer than the limit of {MOST_POSITIONS} tokens; split \
             the request",
            lengths.len()
        );
        return Err(Refusal::new(Reason::TooLarge, text));
    }
    let inputs = chosen.text.tensors(&encodings).map_err(|error| error.refusal(chosen.servable.model()))?;
    Ok((inputs, lengths, n_chars))
}

struct Encoder<'a> {
    text: &'a dyn TextProcessor,
    truncation: Truncation,
    prompt: Option<&'a str>,
}

impl Encoder<'_> {
    /// The rows `range` of a request.
    fn part(&self, servable: &dyn Servable, ask: &Ask, range: Range<usize>) -> Result<Part, Refusal> {
        let start = range.start;
        let rows: Vec<TextInput<'_>> = range.filter_map(|index| ask.rows.get(index)).collect();
        let encodings = self.rows(&rows).map_err(|error| shifted(error, start).refusal(servable.model()))?;
        let (got, wanted) = (encodings.len(), rows.len());
        if got != wanted {
            let text = format!("model `{}` cut {got} texts into tokens, not {wanted}", servable.model());
            return Err(Refusal::new(Reason::BackendBroken, text));
        }
        let n_chars = rows.iter().map(characters).sum();
        Ok(Part { encodings, n_chars })
    }

    fn rows(&self, rows: &[TextInput<'_>]) -> Result<Vec<Encoding>, InputError> {
        // Whoever cut a text put the special tokens around it as well; only before a prompt, ids become text again.
        let is_cut = |row: &TextInput<'_>| matches!(row, TextInput::Ids(_)) && self.prompt.is_none();
        if !rows.iter().any(is_cut) {
            return self.encode(rows, true);
        }
        let (cut, whole): (Vec<_>, Vec<_>) = rows.iter().copied().enumerate().partition(|(_, row)| is_cut(row));
        let mut both = Vec::with_capacity(rows.len());
        for (kind, special_tokens) in [(cut, false), (whole, true)] {
            let (positions, inputs): (Vec<usize>, Vec<_>) = kind.into_iter().unzip();
            if inputs.is_empty() {
                continue;
            }
            let encodings = self.encode(&inputs, special_tokens).map_err(|error| match error {
                InputError::Instance { input, index, detail } => {
                    let index = positions.get(index).copied().unwrap_or(index);
                    InputError::Instance { input, index, detail }
                }
                other => other,
            })?;
            both.extend(positions.into_iter().zip(encodings));
        }
        both.sort_by_key(|(position, _)| *position);
        Ok(both.into_iter().map(|(_, encoding)| encoding).collect())
    }

    fn encode(&self, rows: &[TextInput<'_>], special_tokens: bool) -> Result<Vec<Encoding>, InputError> {
        self.text.encode(rows, &EncodeOptions { truncation: self.truncation, special_tokens, prompt: self.prompt })
    }
}

/// The same error, counted from the start of the request.
pub(super) fn shifted(error: InputError, by: usize) -> InputError {
    match error {
        InputError::Instance { input, index, detail } => InputError::Instance { input, index: index + by, detail },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::{PART_BYTES, PART_ROWS, parts};

    #[test]
    fn parts_are_bounded_and_hold_every_item_once() {
        let covers = |weights: &[usize]| {
            let parts = parts(weights.len(), |index| weights[index]);
            let joined: Vec<usize> = parts.iter().cloned().flatten().collect();
            assert_eq!(joined, (0..weights.len()).collect::<Vec<_>>());
            for part in &parts {
                let weight: usize = weights[part.clone()].iter().sum();
                assert!(part.len() <= PART_ROWS && (weight <= PART_BYTES || part.len() == 1), "{part:?}");
            }
            parts.len()
        };
        assert_eq!(covers(&[5; PART_ROWS]), 1);
        assert_eq!(covers(&[5; PART_ROWS + 1]), 2);
        assert_eq!(covers(&[PART_BYTES * 2, 1, PART_BYTES, 1]), 4);
        assert_eq!(covers(&[]), 1);
    }
}
