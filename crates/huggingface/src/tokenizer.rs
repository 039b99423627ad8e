//! What is said beside `tokenizer.json` about how text is prepared: lengths, sides, prompts.

use std::collections::BTreeMap;

use crate::error::HuggingFaceError;
use crate::fields::Fields;

/// Longer than any table of positions; files write 1e30 for "no limit".
const MAX_LENGTH: f64 = 16_777_216.0;

/// An end of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Its beginning.
    Left,
    /// Its end.
    Right,
}

const SIDES: [(&str, Side); 2] = [("left", Side::Left), ("right", Side::Right)];

/// `tokenizer_config.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizerConfig {
    /// The most tokens of one text, special ones included, where there is such a limit.
    pub max_length: Option<usize>,
    /// Where texts that are too long are cut.
    pub truncation_side: Side,
    /// Where rows are filled up.
    pub padding_side: Side,
}

impl TokenizerConfig {
    /// The file's name.
    pub const FILE: &'static str = "tokenizer_config.json";

    /// Reads its content.
    ///
    /// # Errors
    /// No JSON object; a key with an impossible value.
    pub fn parse(bytes: &[u8]) -> Result<Self, HuggingFaceError> {
        let fields = Fields::parse(Self::FILE, bytes)?;
        Ok(Self {
            max_length: length(&fields, "model_max_length")?,
            truncation_side: fields.word("truncation_side", &SIDES)?.unwrap_or(Side::Right),
            padding_side: fields.word("padding_side", &SIDES)?.unwrap_or(Side::Right),
        })
    }
}

/// `sentence_bert_config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentenceBert {
    /// The most tokens of one text, special ones included, where the file says it.
    pub max_length: Option<usize>,
    /// Whether text is put into lower case first.
    pub is_lower_cased: bool,
}

impl SentenceBert {
    /// The file's name.
    pub const FILE: &'static str = "sentence_bert_config.json";

    /// Reads its content.
    ///
    /// # Errors
    /// No JSON object; a key with an impossible value.
    pub fn parse(bytes: &[u8]) -> Result<Self, HuggingFaceError> {
        let fields = Fields::parse(Self::FILE, bytes)?;
        let max_length = length(&fields, "max_seq_length")?;
        Ok(Self { max_length, is_lower_cased: fields.flag("do_lower_case")?.unwrap_or(false) })
    }
}

/// The prompts of `config_sentence_transformers.json`: texts that are put before others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prompts {
    /// By name.
    pub texts: BTreeMap<String, String>,
    /// The one that is put before texts where nothing else is said.
    pub default: Option<String>,
}

impl Prompts {
    /// The file's name.
    pub const FILE: &'static str = "config_sentence_transformers.json";

    /// Reads its content.
    ///
    /// # Errors
    /// No JSON object; prompts that are no texts; a default that is none of them.
    pub fn parse(bytes: &[u8]) -> Result<Self, HuggingFaceError> {
        let fields = Fields::parse(Self::FILE, bytes)?;
        let mut texts = BTreeMap::new();
        if let Some(prompts) = fields.object("prompts")? {
            for (name, text) in prompts {
                let text = text.as_str().ok_or_else(|| fields.wrong("prompts", "an object of texts"))?;
                texts.insert(name.clone(), text.to_owned());
            }
        }
        let default = fields.text("default_prompt_name")?.map(str::to_owned);
        if let Some(name) = &default
            && !texts.contains_key(name)
        {
            return Err(fields.wrong("default_prompt_name", "one of the names in `prompts`"));
        }
        Ok(Self { texts, default })
    }
}

/// A number of tokens. Some libraries write 1e30 for "no limit", as a whole number or not; anything beyond all tables means that.
fn length(fields: &Fields, key: &str) -> Result<Option<usize>, HuggingFaceError> {
    let Some(value) = fields.get(key) else { return Ok(None) };
    if value.as_f64().is_some_and(|length| length > MAX_LENGTH) {
        return Ok(None);
    }
    fields.size(key, 1..=1 << 24)
}
