//! The seam to models that take text: what turns text into a network's token ids, and what front-ends may ask it.
//!
//! How text is cut into tokens, and from which files, is the implementation's business; that requests are turned on compute
//! threads is the registry's.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::{InputError, LoadError, Model, ModelSource, Tensor, TensorList, TensorSpec};

/// Recognises versions that take text.
pub trait TextFactory: fmt::Debug + Send + Sync + 'static {
    /// What turns text into the inputs of `network`, or `None` where the files or the network are not those of a text model.
    /// `options` are the keys of `[text]` in a `model.toml`, as [`ModelSource::options`] has its own.
    ///
    /// # Errors
    /// [`LoadError`] for a tokenizer that is damaged or does not fit the network, and for options that are wrong.
    fn open(
        &self,
        source: &ModelSource,
        network: &dyn Model,
        options: &BTreeMap<String, String>,
    ) -> Result<Option<Arc<dyn TextProcessor>>, LoadError>;
}

/// Turns text into what one network takes. Shared by all threads.
pub trait TextProcessor: fmt::Debug + Send + Sync {
    /// What is known about the model.
    fn facts(&self) -> &TextFacts;

    /// What callers give in place of the network's inputs: `text BYTES[batch]`, or `query` and `text` for pairs. The first
    /// axis is the network's batch symbol.
    fn inputs(&self) -> &[TensorSpec];

    /// Which of the network's outputs callers of the text form get, ascending.
    fn outputs(&self) -> &[usize];

    /// Whether `given` can be taken as far as that can be told without cutting it into tokens. Cheap.
    ///
    /// # Errors
    /// [`InputError`] for what [`TextProcessor::process`] would refuse anyhow.
    fn admit(&self, _given: &[Tensor]) -> Result<(), InputError> {
        Ok(())
    }

    /// The network's inputs for `given`, which fits [`TextProcessor::inputs`], with as many rows. CPU work.
    ///
    /// # Errors
    /// [`InputError::Instance`] for a text that is not UTF-8 or too long, counted from the first of `given`.
    fn process(&self, given: &[Tensor]) -> Result<TensorList, InputError>;

    /// The token ids of each text. CPU work.
    ///
    /// # Errors
    /// [`InputError::Instance`] with the position of a text that is too long, empty of tokens or refers to ids that are not in the
    /// vocabulary.
    fn encode(&self, texts: &[TextInput<'_>], options: &EncodeOptions<'_>) -> Result<Vec<Encoding>, InputError>;

    /// The tokens of a text with their places in it, never truncated. CPU work.
    ///
    /// # Errors
    /// As [`TextProcessor::encode`].
    fn tokens(&self, text: &str, special_tokens: bool) -> Result<Vec<Token>, InputError>;

    /// The text of token ids.
    ///
    /// # Errors
    /// [`InputError::Instance`] for an id that is not in the vocabulary.
    fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, InputError>;

    /// The network's inputs for `encodings`: one row each, padded to the longest.
    ///
    /// # Errors
    /// [`InputError`] when there are none, or more than fit in memory.
    fn tensors(&self, encodings: &[Encoding]) -> Result<TensorList, InputError>;
}

/// Whether so many texts of so many bytes together should become tokens where they arrive: that takes less time than a
/// compute thread may need until it comes to it, and what a queue will not take is refused at once, whatever runs.
pub const fn is_short_text(texts: usize, bytes: usize) -> bool {
    // What a text costs besides its bytes, in bytes, and the most of all.
    const EACH: usize = 8;
    const MOST: usize = 512;
    texts.saturating_mul(EACH).saturating_add(bytes) <= MOST
}

/// What a text model gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TextTask {
    /// A vector for each text: output `sentence_embedding`.
    Embedding,
    /// A score for each label: output `logits`.
    Classification,
    /// One score for each pair of a query and a text: output `logits` with one column.
    Ranking,
}

impl TextTask {
    /// A stable name for tables and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Classification => "classification",
            Self::Ranking => "ranking",
        }
    }
}

/// What is known about a text model.
#[derive(Debug, Clone, PartialEq)]
pub struct TextFacts {
    /// What it gives.
    pub task: TextTask,
    /// The architecture's name in its `config.json`: `bert`, `roberta` and so on.
    pub model_type: String,
    /// The most tokens of one row, special ones included.
    pub max_tokens: usize,
    /// How texts that are longer are treated where a request does not say it.
    pub truncation: Truncation,
    /// The labels of a classification, in the order of the columns of `logits`.
    pub labels: Vec<Arc<str>>,
    /// Whether each label is judged by itself (a sigmoid) or all compete (a softmax).
    pub is_multi_label: bool,
    /// How the vectors of tokens become one: `mean`, `cls`, `max` and so on; empty where they do not, and where the network does
    /// it and nothing says how.
    pub pooling: String,
    /// Numbers in one vector; 0 where there are none.
    pub dimension: usize,
    /// The precision that the files say the weights were saved in: `FP32`, `FP16` or `BF16`; empty where they do not.
    pub precision: String,
    /// Texts to put before others, by name.
    pub prompts: BTreeMap<String, String>,
    /// The one of them that is put before texts where a request does not say it.
    pub default_prompt: Option<String>,
}

/// One row in the form of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextInput<'a> {
    /// One text.
    Single(&'a str),
    /// Two texts that are judged together.
    Pair(&'a str, &'a str),
    /// Token ids that somebody else has cut; special tokens are put around them where wanted.
    Ids(&'a [u32]),
}

/// What becomes of a text with too many tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Truncation {
    /// It is refused.
    #[default]
    Refuse,
    /// Its end is cut off.
    Right,
    /// Its beginning is cut off.
    Left,
}

/// How text is turned into ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeOptions<'a> {
    /// What becomes of texts that are too long.
    pub truncation: Truncation,
    /// Whether the model's special tokens are put around.
    pub special_tokens: bool,
    /// A text that is put before each, as [`TextFacts::prompts`] has some.
    pub prompt: Option<&'a str>,
}

/// The token ids of one row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoding {
    /// The ids.
    pub ids: Vec<u32>,
    /// For each, whether it is of the first text (0) or the second (1).
    pub type_ids: Vec<u32>,
}

/// One token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its number in the vocabulary.
    pub id: u32,
    /// As the vocabulary writes it.
    pub text: String,
    /// Whether it was put around the text rather than found in it.
    pub is_special: bool,
    /// Where it stands, in bytes of UTF-8 from the start of the text and not beyond the second, as text-embeddings-inference
    /// counts; `None` for special ones.
    pub span: Option<(usize, usize)>,
}

#[cfg(test)]
mod tests {
    use super::is_short_text;

    #[test]
    fn a_text_is_short_by_its_bytes_and_many_are_not_however_short() {
        assert!(is_short_text(1, 504) && !is_short_text(1, 505));
        assert!(is_short_text(64, 0) && !is_short_text(65, 0));
        assert!(!is_short_text(usize::MAX, usize::MAX));
    }
}
