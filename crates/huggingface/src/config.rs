//! `config.json`: what every model has in it, and the door to what each family adds.

use crate::error::HuggingFaceError;
use crate::fields::Fields;
use crate::image::{ResnetConfig, VitConfig};
use crate::label::labels;
use crate::text::{TextConfig, TextFamily};

const FILE: &str = "config.json";

/// The content of a `config.json`. The keys that all families share are read and checked at once, a family's own when it is
/// asked for, so that a folder of an unknown family can still be asked for its labels.
#[derive(Debug, Clone)]
pub struct Config {
    fields: Fields,
    model_type: String,
    architectures: Vec<String>,
    labels: Vec<String>,
    problem: Option<ProblemType>,
    precision: Option<Precision>,
}

/// What stands on top of a network, by the name of its architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Head {
    /// Nothing that serving needs: its hidden states are what it gives.
    None,
    /// One number for each label of a text or a pair of texts: `…ForSequenceClassification`.
    Sequence,
    /// One number for each label of a picture: `…ForImageClassification`.
    Image,
}

/// How the numbers of a classification are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemType {
    /// They are values themselves.
    Regression,
    /// The labels compete.
    SingleLabel,
    /// Each label is judged by itself.
    MultiLabel,
}

/// A precision that weights are saved in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 16 bits with 10 of mantissa.
    Fp16,
    /// 16 bits with 7 of mantissa.
    Bf16,
    /// 32 bits.
    Fp32,
    /// 64 bits.
    Fp64,
}

impl Precision {
    /// Its name among the types of tensors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fp16 => "FP16",
            Self::Bf16 => "BF16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
        }
    }
}

impl Config {
    /// Reads the content of a `config.json`.
    ///
    /// # Errors
    /// No JSON object; no `model_type`; a key that all families share with an impossible value.
    pub fn parse(bytes: &[u8]) -> Result<Self, HuggingFaceError> {
        let fields = Fields::parse(FILE, bytes)?;
        let model_type = fields
            .text("model_type")?
            .ok_or_else(|| fields.missing("model_type", "the name of the architecture, such as \"bert\""))?;
        let model_type = model_type.to_owned();
        let architectures = architectures(&fields)?;
        let labels = labels(&fields)?;
        let problem = fields.word(
            "problem_type",
            &[
                ("regression", ProblemType::Regression),
                ("single_label_classification", ProblemType::SingleLabel),
                ("multi_label_classification", ProblemType::MultiLabel),
            ],
        )?;
        let precision = precision(&fields)?;
        Ok(Self { fields, model_type, architectures, labels, problem, precision })
    }

    /// The architecture's name: `bert`, `vit` and so on.
    pub fn model_type(&self) -> &str {
        &self.model_type
    }

    /// The classes that the weights were saved from, such as `BertForSequenceClassification`; often one, perhaps none.
    pub fn architectures(&self) -> &[String] {
        &self.architectures
    }

    /// What stands on top of the network.
    pub fn head(&self) -> Head {
        let ends = |end: &str| self.architectures.iter().any(|name| name.ends_with(end));
        if ends("ForSequenceClassification") {
            Head::Sequence
        } else if ends("ForImageClassification") {
            Head::Image
        } else {
            Head::None
        }
    }

    /// The labels of a classification in the order of its outputs. Where the file names none they are `LABEL_0`, `LABEL_1`
    /// and so on, two of them unless it says how many, as `transformers` has it. Meaningless without a [`Head`].
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// How the numbers of a classification are meant, where the file says it.
    pub fn problem_type(&self) -> Option<ProblemType> {
        self.problem
    }

    /// The precision that the weights were saved in, where the file says it.
    pub fn precision(&self) -> Option<Precision> {
        self.precision
    }

    /// The sizes of a text encoder of the BERT kind, or `None` where `model_type` is none of its [families](TextFamily).
    ///
    /// # Errors
    /// A size that is missing, impossible, or contradicts another.
    pub fn text(&self) -> Result<Option<TextConfig>, HuggingFaceError> {
        let Some(family) = TextFamily::of(&self.model_type) else { return Ok(None) };
        TextConfig::read(&self.fields, family).map(Some)
    }

    /// The sizes of a vision transformer, or `None` where `model_type` is not `vit`.
    ///
    /// # Errors
    /// A size that is missing, impossible, or contradicts another.
    pub fn vit(&self) -> Result<Option<VitConfig>, HuggingFaceError> {
        if self.model_type == "vit" { VitConfig::read(&self.fields).map(Some) } else { Ok(None) }
    }

    /// The sizes of a residual network, or `None` where `model_type` is not `resnet`.
    ///
    /// # Errors
    /// A size that is missing, impossible, or contradicts another.
    pub fn resnet(&self) -> Result<Option<ResnetConfig>, HuggingFaceError> {
        if self.model_type == "resnet" { ResnetConfig::read(&self.fields).map(Some) } else { Ok(None) }
    }

    /// The most tokens of a text of any family as far as the table of positions goes, where the file says it.
    ///
    /// # Errors
    /// A number that is impossible.
    pub fn max_tokens(&self) -> Result<Option<usize>, HuggingFaceError> {
        if let Some(text) = self.text()? {
            return Ok(Some(text.max_tokens()));
        }
        // −1 is what some families write that have no such table.
        match self.fields.get("max_position_embeddings").and_then(serde_json::Value::as_i64) {
            Some(-1) => Ok(None),
            _ => self.fields.size("max_position_embeddings", 1..=crate::text::MAX_POSITIONS),
        }
    }

    /// The size of the vocabulary that the network knows, of any family, where the file says it.
    ///
    /// # Errors
    /// A number that is impossible.
    pub fn vocab_size(&self) -> Result<Option<usize>, HuggingFaceError> {
        self.fields.size("vocab_size", 1..=crate::text::MAX_VOCABULARY)
    }

    /// The token that rows are filled up with, of any family, where the file says it.
    ///
    /// # Errors
    /// A number that is impossible.
    pub fn pad_token_id(&self) -> Result<Option<usize>, HuggingFaceError> {
        self.fields.size("pad_token_id", 0..=crate::text::MAX_VOCABULARY)
    }
}

fn architectures(fields: &Fields) -> Result<Vec<String>, HuggingFaceError> {
    let key = "architectures";
    let Some(value) = fields.get(key) else { return Ok(Vec::new()) };
    let names = value
        .as_array()
        .and_then(|items| items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>());
    names.ok_or_else(|| fields.wrong(key, "a list of names"))
}

/// `dtype` is the newer name of `torch_dtype`, and wins. A type that is not among those that weights are served in says
/// nothing here: what the weights are stands in their own file.
fn precision(fields: &Fields) -> Result<Option<Precision>, HuggingFaceError> {
    let key = if fields.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
    let name = fields.text(key)?.map(|name| name.strip_prefix("torch.").unwrap_or(name));
    Ok(match name {
        Some("float16" | "half") => Some(Precision::Fp16),
        Some("bfloat16") => Some(Precision::Bf16),
        Some("float32" | "float") => Some(Precision::Fp32),
        Some("float64" | "double") => Some(Precision::Fp64),
        _ => None,
    })
}
