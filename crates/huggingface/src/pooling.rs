//! How the vectors of a text's tokens become one.

use std::fmt;

use serde_json::Value;

use crate::error::HuggingFaceError;
use crate::fields::{Fields, list};

/// One way. Tokens are those whose mask is 1, special ones included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolingMode {
    /// The first token's vector.
    Cls,
    /// The largest of each number.
    Max,
    /// The mean.
    Mean,
    /// The sum over the root of the count.
    MeanSqrtLen,
    /// The mean weighted by the place of each token, counted from 1 at the first.
    WeightedMean,
    /// The last token's vector.
    LastToken,
}

/// The word for each, the keys of the older form, in the order in which several are joined.
const MODES: [(PoolingMode, &str, &str); 6] = [
    (PoolingMode::Cls, "cls", "pooling_mode_cls_token"),
    (PoolingMode::Max, "max", "pooling_mode_max_tokens"),
    (PoolingMode::Mean, "mean", "pooling_mode_mean_tokens"),
    (PoolingMode::MeanSqrtLen, "mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"),
    (PoolingMode::WeightedMean, "weightedmean", "pooling_mode_weightedmean_tokens"),
    (PoolingMode::LastToken, "lasttoken", "pooling_mode_lasttoken"),
];

impl PoolingMode {
    /// The words of all modes, as options and `sentence-transformers` write them.
    pub const WORDS: [(&'static str, Self); 6] = {
        let mut words = [("", Self::Mean); 6];
        let mut index = 0;
        while index < words.len() {
            words[index] = (MODES[index].1, MODES[index].0);
            index += 1;
        }
        words
    };

    /// Its word.
    pub fn name(self) -> &'static str {
        MODES.iter().find(|(mode, ..)| *mode == self).map_or("", |(_, word, _)| word)
    }
}

impl fmt::Display for PoolingMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One or more ways; the vectors of several are joined into one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pooling {
    /// Which, in the order in which their vectors are joined; never empty.
    pub modes: Vec<PoolingMode>,
    /// Numbers of one token's vector, where the file says it.
    pub dimension: Option<usize>,
    /// Whether the tokens of a prompt count.
    pub includes_prompt: bool,
}

impl Pooling {
    /// One way.
    pub fn of(mode: PoolingMode) -> Self {
        Self { modes: vec![mode], dimension: None, includes_prompt: true }
    }

    /// Reads the `config.json` of a pooling module, both the form with one key per mode and the newer one with
    /// `pooling_mode`, which wins where both stand.
    ///
    /// # Errors
    /// No JSON object; a mode that does not exist.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, HuggingFaceError> {
        let fields = Fields::parse(file, bytes)?;
        let modes = match fields.get("pooling_mode") {
            Some(value) => newer(&fields, value)?,
            None => older(&fields)?,
        };
        let key = if fields.get("embedding_dimension").is_some() {
            "embedding_dimension"
        } else {
            "word_embedding_dimension"
        };
        let dimension = fields.size(key, 1..=1 << 20)?;
        let includes_prompt = fields.flag("include_prompt")?.unwrap_or(true);
        Ok(Self { modes, dimension, includes_prompt })
    }
}

/// The words of the modes, joined by `+`.
impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mode) in self.modes.iter().enumerate() {
            let plus = if index > 0 { "+" } else { "" };
            write!(f, "{plus}{mode}")?;
        }
        Ok(())
    }
}

fn newer(fields: &Fields, value: &Value) -> Result<Vec<PoolingMode>, HuggingFaceError> {
    let key = "pooling_mode";
    let words = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
    if words.is_empty() || words.len() > MODES.len() {
        return Err(fields.wrong(key, format!("one word or a list of 1 to {}", MODES.len())));
    }
    let mode = |word: &Value| {
        let word = word.as_str().ok_or_else(|| fields.wrong(key, "a word or a list of words"))?;
        let found = MODES.iter().find(|(_, known, _)| *known == word).map(|(mode, ..)| *mode);
        found.ok_or_else(|| fields.unsupported(key, list(MODES.iter().map(|(_, word, _)| *word))))
    };
    words.iter().map(mode).collect()
}

fn older(fields: &Fields) -> Result<Vec<PoolingMode>, HuggingFaceError> {
    let mut modes = Vec::new();
    for (mode, _, key) in MODES {
        if fields.flag(key)? == Some(true) {
            modes.push(mode);
        }
    }
    // The library's own default.
    Ok(if modes.is_empty() { vec![PoolingMode::Mean] } else { modes })
}
