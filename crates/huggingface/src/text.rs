//! The sizes of text encoders of the BERT kind, under the different names that their families give them.

use crate::activation::Activation;
use crate::error::HuggingFaceError;
use crate::fields::Fields;

/// Bounds that no model comes near, so that products of sizes fit and a damaged file is refused before anything is allocated.
pub(crate) const MAX_VOCABULARY: usize = 1 << 24;
pub(crate) const MAX_POSITIONS: usize = 1 << 24;
const MAX_WIDTH: usize = 1 << 16;
const MAX_INNER_WIDTH: usize = 1 << 18;
const MAX_LAYERS: usize = 1 << 10;
const MAX_HEADS: usize = 1 << 10;
const MAX_TYPES: usize = 1 << 10;

/// A family of text encoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TextFamily {
    /// `bert`
    Bert,
    /// `distilbert`
    DistilBert,
    /// `roberta`
    Roberta,
    /// `xlm-roberta`
    XlmRoberta,
    /// `camembert`
    Camembert,
}

impl TextFamily {
    /// The family that `model_type` names.
    pub fn of(model_type: &str) -> Option<Self> {
        match model_type {
            "bert" => Some(Self::Bert),
            "distilbert" => Some(Self::DistilBert),
            "roberta" => Some(Self::Roberta),
            "xlm-roberta" => Some(Self::XlmRoberta),
            "camembert" => Some(Self::Camembert),
            _ => None,
        }
    }

    /// Whether it is built as RoBERTa is: positions are counted from behind the padding token's number, and a classification
    /// has a layer of its own on the first token in place of BERT's pooler.
    pub fn is_roberta(self) -> bool {
        matches!(self, Self::Roberta | Self::XlmRoberta | Self::Camembert)
    }

    fn default_pad_token(self) -> usize {
        usize::from(self.is_roberta())
    }
}

/// The sizes of a text encoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TextConfig {
    /// The family.
    pub family: TextFamily,
    /// Rows of the table of tokens.
    pub vocab_size: usize,
    /// Numbers of one token's vector.
    pub hidden_size: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of each attention; they divide `hidden_size`.
    pub heads: usize,
    /// Numbers between the two halves of a layer's second part.
    pub intermediate_size: usize,
    /// The function between them.
    pub activation: Activation,
    /// What is added to variances before their root is taken.
    pub layer_norm_eps: f64,
    /// Rows of the table of positions.
    pub max_positions: usize,
    /// Rows of the table of token types; 0 where the family has none.
    pub type_vocab_size: usize,
    /// The token that rows are filled up with.
    pub pad_token_id: usize,
}

impl TextConfig {
    pub(crate) fn read(fields: &Fields, family: TextFamily) -> Result<Self, HuggingFaceError> {
        let is_distil = family == TextFamily::DistilBert;
        let name = |usual: &'static str, distil: &'static str| if is_distil { distil } else { usual };
        let hidden = name("hidden_size", "dim");
        let heads = name("num_attention_heads", "n_heads");
        let config = Self {
            family,
            vocab_size: fields.needed_size("vocab_size", 1..=MAX_VOCABULARY)?,
            hidden_size: fields.needed_size(hidden, 1..=MAX_WIDTH)?,
            layers: fields.needed_size(name("num_hidden_layers", "n_layers"), 1..=MAX_LAYERS)?,
            heads: fields.needed_size(heads, 1..=MAX_HEADS)?,
            intermediate_size: fields.needed_size(name("intermediate_size", "hidden_dim"), 1..=MAX_INNER_WIDTH)?,
            activation: Activation::read(fields, name("hidden_act", "activation"), Activation::Gelu)?,
            layer_norm_eps: match fields.number("layer_norm_eps", 0.0..=1.0)? {
                Some(eps) if !is_distil => eps,
                // DistilBERT's is not in its configuration; BERT's default is the same.
                _ => 1e-12,
            },
            max_positions: fields.needed_size("max_position_embeddings", 1..=MAX_POSITIONS)?,
            type_vocab_size: if is_distil { 0 } else { fields.size("type_vocab_size", 1..=MAX_TYPES)?.unwrap_or(2) },
            pad_token_id: fields
                .size("pad_token_id", 0..=MAX_VOCABULARY)?
                .unwrap_or_else(|| family.default_pad_token()),
        };
        config.check(fields, hidden, heads)?;
        Ok(config)
    }

    /// Numbers of one head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.heads
    }

    /// The row of the table of positions that a text's first token takes.
    pub fn first_position(&self) -> usize {
        if self.family.is_roberta() { self.pad_token_id + 1 } else { 0 }
    }

    /// The most tokens of a text, special ones included.
    pub fn max_tokens(&self) -> usize {
        self.max_positions - self.first_position()
    }

    /// Whether callers say for each token which of two texts it is of. The families built as RoBERTa know one type in all
    /// their published forms, and their tokenizers give none.
    pub fn has_token_types(&self) -> bool {
        self.family == TextFamily::Bert && self.type_vocab_size > 1
    }

    fn check(&self, fields: &Fields, hidden: &str, heads: &str) -> Result<(), HuggingFaceError> {
        if !self.hidden_size.is_multiple_of(self.heads) {
            let expected = format!("a divisor of `{hidden}`, which is {}", self.hidden_size);
            return Err(fields.wrong(heads, expected));
        }
        if self.first_position() >= self.max_positions {
            let key = "max_position_embeddings";
            let expected = format!("more than {}, for the first token has that position", self.first_position());
            return Err(fields.wrong(key, expected));
        }
        if self.pad_token_id >= self.vocab_size {
            let key = "pad_token_id";
            return Err(fields.wrong(key, format!("less than `vocab_size`, {}", self.vocab_size)));
        }
        // Attention that knows distances, or only what came before, computes something else from the same weights.
        fields.word("position_embedding_type", &[("absolute", ())])?;
        for key in ["is_decoder", "add_cross_attention"] {
            if fields.flag(key)? == Some(true) {
                return Err(fields.unsupported(key, "false"));
            }
        }
        Ok(())
    }
}
