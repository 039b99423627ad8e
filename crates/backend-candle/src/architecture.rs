//! Which architectures load, and how a `config.json` says which one it is.

use millrace_core::{LoadError, LoadErrorKind, Quoted};

/// One line of the table of architectures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchitectureInfo {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// The classes that `architectures` in `config.json` may name.
    pub classes: &'static [&'static str],
    /// What goes in: `text` or `image`.
    pub input: &'static str,
}

/// Every architecture that loads.
pub const ARCHITECTURES: &[ArchitectureInfo] = &[
    ArchitectureInfo {
        model_type: "bert",
        classes: &["BertModel", "BertForMaskedLM", "BertForPreTraining", "BertForSequenceClassification"],
        input: "text",
    },
    ArchitectureInfo {
        model_type: "distilbert",
        classes: &["DistilBertModel", "DistilBertForMaskedLM", "DistilBertForSequenceClassification"],
        input: "text",
    },
    ArchitectureInfo {
        model_type: "roberta",
        classes: &["RobertaModel", "RobertaForMaskedLM", "RobertaForSequenceClassification"],
        input: "text",
    },
    ArchitectureInfo {
        model_type: "xlm-roberta",
        classes: &["XLMRobertaModel", "XLMRobertaForMaskedLM", "XLMRobertaForSequenceClassification"],
        input: "text",
    },
    ArchitectureInfo {
        model_type: "camembert",
        classes: &["CamembertModel", "CamembertForMaskedLM", "CamembertForSequenceClassification"],
        input: "text",
    },
    ArchitectureInfo { model_type: "vit", classes: &["ViTModel", "ViTForImageClassification"], input: "image" },
    ArchitectureInfo {
        model_type: "resnet",
        classes: &["ResNetModel", "ResNetForImageClassification"],
        input: "image",
    },
];

/// What loads a `model_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Architecture {
    Bert,
    DistilBert,
    /// XLM-RoBERTa and CamemBERT are the same network.
    Roberta,
    Vit,
    ResNet,
}

impl Architecture {
    /// # Errors
    /// [`LoadErrorKind::Unsupported`] with the list of those that load.
    pub(crate) fn of(model_type: &str) -> Result<Self, LoadError> {
        Ok(match model_type {
            "bert" => Self::Bert,
            "distilbert" => Self::DistilBert,
            "roberta" | "xlm-roberta" | "camembert" => Self::Roberta,
            "vit" => Self::Vit,
            "resnet" => Self::ResNet,
            other => {
                let known: Vec<&str> = ARCHITECTURES.iter().map(|info| info.model_type).collect();
                let text = format!(
                    "config.json: model_type {} does not load here; expected one of {}",
                    Quoted(other),
                    known.join(", ")
                );
                return Err(LoadError::new(LoadErrorKind::Unsupported, text));
            }
        })
    }
}
