//! `/tokenize` and `/decode`: a tokenizer's work alone, with no network behind it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use millrace_core::{InputError, Refusal, Token, on_compute};
use millrace_json::encode_string;

use super::choice::Chosen;
use super::codec::too_large;
use super::prepare::{in_parts, prompt, shifted};
use super::request::{Decode, Tokenize};
use crate::service::Shared;

/// The tokens of each text.
///
/// # Errors
/// A [`Refusal`] for a text that is too long, an unknown prompt, too long an answer, or no room on the compute threads.
pub(super) async fn tokenize(shared: &Shared, chosen: &Chosen, asked: Tokenize) -> Result<Vec<u8>, Refusal> {
    let Tokenize { texts, special_tokens, prompt_name } = asked;
    let prompt = prompt(chosen, prompt_name.as_deref(), true)?;
    let texts: Arc<[String]> = texts.into();
    let (n_texts, weights, text) = (texts.len(), Arc::clone(&texts), Arc::clone(&chosen.text));
    let one = move |index: usize, out: &mut Vec<u8>, most: usize| {
        let prompted = prompt.as_ref().map(|prompt| format!("{prompt}{}", texts[index]));
        let given = prompted.as_deref().unwrap_or(&texts[index]);
        write(out, given, &text.tokens(given, special_tokens)?, most);
        Ok(())
    };
    list(shared, chosen, n_texts, |index| weights[index].len(), one).await
}

/// The text of each list of ids.
///
/// # Errors
/// A [`Refusal`] for ids that are not in the vocabulary or too many, too long an answer, or no room on the compute threads.
pub(super) async fn decode(shared: &Shared, chosen: &Chosen, asked: Decode) -> Result<Vec<u8>, Refusal> {
    let Decode { lists, skip_special_tokens } = asked;
    let lists: Arc<[Vec<u32>]> = lists.into();
    let (n_lists, weights, text) = (lists.len(), Arc::clone(&lists), Arc::clone(&chosen.text));
    let one = move |index: usize, out: &mut Vec<u8>, _most: usize| {
        encode_string(out, &text.decode(&lists[index], skip_special_tokens)?);
        Ok(())
    };
    list(shared, chosen, n_lists, |index| weights[index].len(), one).await
}

/// What `one` appends for each of `n_items`, as one JSON list, made part by part on compute threads. It is told how long the text
/// may become; once all of them together are longer than an answer may be, nothing more is made.
async fn list(
    shared: &Shared,
    chosen: &Chosen,
    n_items: usize,
    weigh: impl Fn(usize) -> usize,
    one: impl Fn(usize, &mut Vec<u8>, usize) -> Result<(), InputError> + Clone + Send + 'static,
) -> Result<Vec<u8>, Refusal> {
    let limit = shared.parts.config.max_answer_bytes;
    // The closing bracket; each item counts itself and what stands before it.
    let written = Arc::new(AtomicUsize::new(1));
    let servable = Arc::clone(&chosen.servable);
    let work = move |items: Range<usize>| {
        let mut text = if items.is_empty() { vec![b'['] } else { Vec::new() };
        for index in items {
            let start = text.len();
            text.push(if index == 0 { b'[' } else { b',' });
            one(index, &mut text, limit).map_err(|error| shifted(error, index).refusal(servable.model()))?;
            let own = text.len() - start;
            if written.fetch_add(own, Ordering::Relaxed).saturating_add(own) > limit {
                return Err(too_large(limit));
            }
        }
        Ok(vec![text])
    };
    let mut parts = in_parts(shared, n_items, weigh, work).await?;
    let mut text = if parts.len() == 1 {
        parts.remove(0)
    } else {
        // Megabytes, perhaps: none of an I/O thread's business.
        on_compute(&*shared.parts.compute, move || parts.concat()).await?
    };
    text.push(b']');
    Ok(text)
}

/// Appends the tokens of `given`, until `out` is longer than `most`. A token's text is what stands at its place; of a token that
/// is part of a character, what can be shown of it.
fn write(out: &mut Vec<u8>, given: &str, tokens: &[Token], most: usize) {
    out.push(b'[');
    for (index, token) in tokens.iter().enumerate() {
        if out.len() > most {
            break;
        }
        let span = token.span.filter(|_| !token.is_special);
        let there = span.and_then(|(start, end)| given.as_bytes().get(start..end)).map(String::from_utf8_lossy);
        out.extend_from_slice(if index > 0 { b"," } else { b"" });
        out.extend_from_slice(format!("{{\"id\":{},\"text\":", token.id).as_bytes());
        encode_string(out, there.as_deref().unwrap_or(&token.text));
        let (start, stop) = span.map_or_else(
            || ("null".to_owned(), "null".to_owned()),
            |(start, stop)| (start.to_string(), stop.to_string()),
        );
        let rest = format!(",\"special\":{},\"start\":{start},\"stop\":{stop}}}", token.is_special);
        out.extend_from_slice(rest.as_bytes());
    }
    out.push(b']');
}
