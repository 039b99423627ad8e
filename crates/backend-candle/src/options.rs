//! The engine's own options from `model.toml`.

use std::collections::BTreeMap;

use millrace_core::{LoadError, OptionReader};
use millrace_huggingface::PoolingMode;

use crate::device::DeviceOptions;

/// The options of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// The precision that the model computes in; `None` leaves it to the place: FP32 on the CPU, the file's own elsewhere.
    pub(crate) precision: Option<Precision>,
    /// How the vectors of tokens become one where the model's own files do not say it.
    pub(crate) pooling: Option<PoolingMode>,
    /// Where it computes.
    pub(crate) device: DeviceOptions,
}

/// A precision to compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precision {
    Fp32,
    Fp16,
    Bf16,
}

impl Precision {
    /// As options and facts write it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "FP32",
            Self::Fp16 => "FP16",
            Self::Bf16 => "BF16",
        }
    }

    /// candle's name for it.
    pub(crate) const fn dtype(self) -> candle_core::DType {
        match self {
            Self::Fp32 => candle_core::DType::F32,
            Self::Fp16 => candle_core::DType::F16,
            Self::Bf16 => candle_core::DType::BF16,
        }
    }
}

impl Options {
    /// # Errors
    /// [`LoadError`] naming the option that is unknown or wrong.
    pub(crate) fn read(options: &BTreeMap<String, String>) -> Result<Self, LoadError> {
        let mut reader = OptionReader::new(options);
        let precisions = [Precision::Fp32, Precision::Fp16, Precision::Bf16];
        let words = precisions.map(|precision| (precision.name(), Some(precision)));
        let precision = reader.word("precision", None, &words)?;
        let poolings = PoolingMode::WORDS.map(|(word, mode)| (word, Some(mode)));
        let pooling = reader.word("pooling", None, &poolings)?;
        let device = DeviceOptions::read(&mut reader)?;
        reader.finish()?;
        Ok(Self { precision, pooling, device })
    }
}
