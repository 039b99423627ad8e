//! What the metadata of a GGUF file says about an encoder, in llama.cpp's terms for its architecture `bert`.

use millrace_core::{LoadError, LoadErrorKind, Quoted};
use millrace_huggingface::{Activation, PoolingMode, TextConfig, TextFamily};

use super::names::GGUF;
use crate::weights::{Metadata, Weights};

/// The sizes of the encoder, and the pooling where the file says one.
///
/// RoBERTa's encoders are `bert` here too: their table of positions begins with the first token's.
///
/// # Errors
/// [`LoadError`] for another architecture, and where a size is missing or impossible.
pub(super) fn config(
    file: &str,
    weights: &Weights,
    metadata: &Metadata,
) -> Result<(TextConfig, Option<PoolingMode>), LoadError> {
    let invalid = |text: String| LoadError::new(LoadErrorKind::Invalid, format!("{file}: {text}"));
    let unsupported = |text: String| LoadError::new(LoadErrorKind::Unsupported, format!("{file}: {text}"));
    let architecture = metadata.text("general.architecture").unwrap_or_default();
    if architecture != "bert" {
        return Err(unsupported(format!(
            "the architecture {} does not load here; expected bert",
            Quoted(architecture)
        )));
    }
    // The bounds of a config.json.
    let size = |key: &str, most: usize| {
        let size = metadata.size(key).filter(|size| (1..=most).contains(size));
        size.ok_or_else(|| invalid(format!("`{key}` is missing or not a whole number from 1 to {most}")))
    };
    let hidden_size = size("bert.embedding_length", 1 << 16)?;
    let rows = |name: &str| {
        let shape = weights.root().shape_of(name);
        let rows = shape.and_then(|shape| if let [rows, _] = shape { Some(*rows) } else { None });
        rows.filter(|rows| (1..=1 << 24).contains(rows)).ok_or_else(|| {
            invalid(format!("the weights have no tensor `{name}`; expected one of shape [rows, {hidden_size}]"))
        })
    };
    let eps = metadata.number("bert.attention.layer_norm_epsilon").unwrap_or(1e-12);
    if !(0.0..=1.0).contains(&eps) {
        return Err(invalid(format!("`bert.attention.layer_norm_epsilon` is {eps}; expected a number from 0 to 1")));
    }
    let heads = size("bert.attention.head_count", 1 << 10)?;
    if !hidden_size.is_multiple_of(heads) {
        let text = format!("`bert.attention.head_count` is {heads}; expected a divisor of {hidden_size}");
        return Err(invalid(text));
    }
    let vocab_size = rows(GGUF.words)?;
    let config = TextConfig {
        family: TextFamily::Bert,
        vocab_size,
        hidden_size,
        layers: size("bert.block_count", 1 << 10)?,
        heads,
        intermediate_size: size("bert.feed_forward_length", 1 << 18)?,
        activation: Activation::Gelu,
        layer_norm_eps: eps,
        max_positions: rows(GGUF.positions)?,
        type_vocab_size: if weights.root().has(GGUF.types) { rows(GGUF.types)? } else { 0 },
        pad_token_id: metadata.size("tokenizer.ggml.padding_token_id").unwrap_or(0),
    };
    // llama.cpp's `enum llama_pooling_type`.
    let pooling = match metadata.size("bert.pooling_type") {
        None | Some(0) => None,
        Some(1) => Some(PoolingMode::Mean),
        Some(2) => Some(PoolingMode::Cls),
        Some(3) => Some(PoolingMode::LastToken),
        Some(4) => return Err(unsupported("re-rankers do not load from GGUF; expected an encoder".to_owned())),
        Some(other) => return Err(invalid(format!("`bert.pooling_type` is {other}; expected 0 to 3"))),
    };
    Ok((config, pooling))
}
