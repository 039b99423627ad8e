//! `/tokenize` and `/decode`: a tokenizer's work alone, with no network behind it.

use std::sync::Arc;

use millrace_core::{InputError, Refusal, Token};
use millrace_json::encode_string;

use super::choice::Chosen;
use super::codec::too_large;
use super::prepare::{in_parts, prompt, shifted};
use super::request::{Decode, Tokenize};
use crate::service::Shared;

/// The tokens of each text.
///
/// # Errors
/// A [`Refusal`] for a text that is too long, an unknown prompt, or no room on the compute threads.
pub(super) async fn tokenize(shared: &Shared, chosen: &Chosen, asked: Tokenize) -> Result<Vec<u8>, Refusal> {
    let Tokenize { texts, special_tokens, prompt_name } = asked;
    let prompt = prompt(chosen, prompt_name.as_deref(), true)?;
    let texts: Arc<[String]> = texts.into();
    let (n_texts, weights) = (texts.len(), Arc::clone(&texts));
    let chosen = chosen.clone();
    let limit = shared.parts.config.max_answer_bytes;
    let work = move |range: std::ops::Range<usize>| {
        let (start, text) = (range.start, &*chosen.text);
        let one = |(index, given): (usize, &String)| {
            let given = prompt.as_ref().map_or_else(|| given.clone(), |prompt| format!("{prompt}{given}"));
            let tokens = text.tokens(&given, special_tokens).map_err(|error| shifted(error, index))?;
            let mut written = Vec::new();
            write(&mut written, &given, &tokens);
            Ok(written)
        };
        let done: Result<Vec<_>, _> = texts[range].iter().enumerate().map(one).collect();
        done.map_err(|error: InputError| shifted(error, start).refusal(chosen.servable.model()))
    };
    let written = in_parts(shared, n_texts, |index| weights[index].len(), work).await?;
    joined(&written, limit)
}

/// The text of each list of ids.
///
/// # Errors
/// A [`Refusal`] for ids that are not in the vocabulary, or no room on the compute threads.
pub(super) async fn decode(shared: &Shared, chosen: &Chosen, asked: Decode) -> Result<Vec<u8>, Refusal> {
    let Decode { lists, skip_special_tokens } = asked;
    let lists: Arc<[Vec<u32>]> = lists.into();
    let (n_lists, weights) = (lists.len(), Arc::clone(&lists));
    let chosen = chosen.clone();
    let limit = shared.parts.config.max_answer_bytes;
    let work = move |range: std::ops::Range<usize>| {
        let start = range.start;
        let one = |(index, ids): (usize, &Vec<u32>)| {
            let text = chosen.text.decode(ids, skip_special_tokens).map_err(|error| shifted(error, index))?;
            let mut written = Vec::new();
            encode_string(&mut written, &text);
            Ok(written)
        };
        let done: Result<Vec<_>, _> = lists[range].iter().enumerate().map(one).collect();
        done.map_err(|error: InputError| shifted(error, start).refusal(chosen.servable.model()))
    };
    let written = in_parts(shared, n_lists, |index| weights[index].len(), work).await?;
    joined(&written, limit)
}

/// Pieces as one list.
fn joined(pieces: &[Vec<u8>], limit: usize) -> Result<Vec<u8>, Refusal> {
    let length = pieces.iter().map(|piece| piece.len() + 1).sum::<usize>() + 1;
    if length > limit {
        return Err(too_large(limit));
    }
    let mut text = Vec::with_capacity(length);
    text.push(b'[');
    text.extend_from_slice(&pieces.join(&b','));
    text.push(b']');
    Ok(text)
}

/// Writes the tokens of `given`. A token's text is what stands at its place; of a token that is part of a character, what can
/// be shown of it.
fn write(text: &mut Vec<u8>, given: &str, tokens: &[Token]) {
    text.push(b'[');
    for (index, token) in tokens.iter().enumerate() {
        let span = token.span.filter(|_| !token.is_special);
        let there = span.and_then(|(start, end)| given.as_bytes().get(start..end)).map(String::from_utf8_lossy);
        text.extend_from_slice(if index > 0 { b"," } else { b"" });
        text.extend_from_slice(format!("{{\"id\":{},\"text\":", token.id).as_bytes());
        encode_string(text, there.as_deref().unwrap_or(&token.text));
        let (start, stop) = span.map_or_else(
            || ("null".to_owned(), "null".to_owned()),
            |(start, stop)| (start.to_string(), stop.to_string()),
        );
        let rest = format!(",\"special\":{},\"start\":{start},\"stop\":{stop}}}", token.is_special);
        text.extend_from_slice(rest.as_bytes());
    }
    text.push(b']');
}
