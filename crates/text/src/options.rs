//! The keys of `[text]` in a `model.toml`.
//!
//! | key | default | means |
//! |---|---|---|
//! | `max_tokens` | what the files say | the most tokens of a text, special ones included; at most what the network has positions for |
//! | `truncation` | `"refuse"` | what becomes of longer texts where a request does not say it: `"refuse"`, `"right"` (their end is cut off), `"left"` |
//! | `default_prompt` | what the files say | which of the model's prompts is put before texts where a request does not say it; `""` for none |

use std::collections::BTreeMap;

use millrace_core::{LoadError, OptionReader, Truncation};

/// What the operator said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options<'a> {
    pub(crate) max_tokens: Option<usize>,
    pub(crate) truncation: Truncation,
    pub(crate) default_prompt: Option<&'a str>,
}

impl<'a> Options<'a> {
    pub(crate) fn read(options: &'a BTreeMap<String, String>) -> Result<Self, LoadError> {
        let mut reader = OptionReader::new(options);
        let words = [("refuse", Truncation::Refuse), ("right", Truncation::Right), ("left", Truncation::Left)];
        let read = Self {
            max_tokens: Some(reader.number("max_tokens", 0, 1..=1 << 24)?).filter(|most| *most > 0),
            truncation: reader.word("truncation", Truncation::Refuse, &words)?,
            default_prompt: reader.text("default_prompt"),
        };
        reader.finish()?;
        Ok(read)
    }
}

/// The engines' option of that name.
pub(crate) const POOLING: &str = "pooling";
