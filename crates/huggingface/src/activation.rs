//! The functions between layers, by the names that configurations give them.

use crate::error::HuggingFaceError;
use crate::fields::{Fields, list};

/// A function of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x
    Identity,
    /// x·Φ(x), with the exact normal distribution Φ.
    Gelu,
    /// The same with Φ approximated by a tanh: `gelu_new`, `gelu_fast`, `gelu_pytorch_tanh`.
    GeluTanh,
    /// x·sigmoid(1.702·x)
    QuickGelu,
    /// max(x, 0)
    Relu,
    /// x·sigmoid(x)
    Silu,
    /// tanh(x)
    Tanh,
    /// 1 / (1 + exp(−x))
    Sigmoid,
}

/// The names of `transformers`.
const NAMES: [(&str, Activation); 13] = [
    ("gelu", Activation::Gelu),
    ("gelu_python", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_accurate", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("quick_gelu", Activation::QuickGelu),
    ("relu", Activation::Relu),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("tanh", Activation::Tanh),
    ("sigmoid", Activation::Sigmoid),
    ("linear", Activation::Identity),
];

/// The names of PyTorch's classes, which `sentence-transformers` writes with their modules in front.
const CLASSES: [(&str, Activation); 6] = [
    ("Identity", Activation::Identity),
    ("Tanh", Activation::Tanh),
    ("GELU", Activation::Gelu),
    ("ReLU", Activation::Relu),
    ("SiLU", Activation::Silu),
    ("Sigmoid", Activation::Sigmoid),
];

impl Activation {
    /// The function called `name` in a `config.json`.
    pub fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, activation)| *activation)
    }

    /// The value of `key`, or `default`.
    pub(crate) fn read(fields: &Fields, key: &str, default: Self) -> Result<Self, HuggingFaceError> {
        Ok(fields.word(key, &NAMES)?.unwrap_or(default))
    }

    /// The value of `key` as a class of PyTorch: `torch.nn.modules.activation.Tanh`.
    pub(crate) fn read_class(fields: &Fields, key: &str, default: Self) -> Result<Self, HuggingFaceError> {
        let Some(path) = fields.text(key)? else { return Ok(default) };
        let class = path.strip_prefix("torch.nn.").and_then(|rest| rest.rsplit('.').next());
        let found = CLASSES.iter().find(|(known, _)| Some(*known) == class).map(|(_, activation)| *activation);
        found.ok_or_else(|| {
            let known = list(CLASSES.iter().map(|(known, _)| *known));
            fields.unsupported(key, format!("torch.nn's {known}"))
        })
    }
}
