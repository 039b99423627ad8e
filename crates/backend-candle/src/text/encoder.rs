//! The network between tokens and their vectors, the same for all families: tables of tokens, positions and types, then layers
//! of attention and of two linear layers, each with its input added and normalised (Devlin and others: BERT, 2018).

use candle_core::{Result, Tensor};
use millrace_core::LoadError;
use millrace_huggingface::{Activation, TextConfig};

use super::names::Names;
use crate::nn::{Kernels, LayerNorm, Linear, Numbers, Ranges, Table, attention};
use crate::weights::Scope;

/// An encoder.
#[derive(Debug)]
pub(super) struct Encoder {
    words: Table,
    positions: Table,
    /// Absent where the family has no types.
    types: Option<Table>,
    norm: LayerNorm,
    layers: Vec<Layer>,
    heads: usize,
    activation: Activation,
    kernels: Kernels,
}

#[derive(Debug)]
struct Layer {
    /// Queries, keys and values of all heads.
    qkv: Linear,
    mixed: Linear,
    mixed_norm: LayerNorm,
    up: Linear,
    down: Linear,
    down_norm: LayerNorm,
}

/// The tokens of a batch as the tables take them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tokens<'a> {
    pub(super) ids: Numbers<'a>,
    pub(super) positions: Numbers<'a>,
    pub(super) types: Numbers<'a>,
}

/// The run has no more use.
#[derive(Debug)]
pub(super) enum Stopped {
    /// Everybody has gone.
    Cancelled,
    /// candle's error.
    Failed(candle_core::Error),
}

impl From<candle_core::Error> for Stopped {
    fn from(error: candle_core::Error) -> Self {
        Self::Failed(error)
    }
}

impl Encoder {
    /// # Errors
    /// [`LoadError`] naming the tensor that is missing or has another shape.
    pub(super) fn load(
        scope: &Scope<'_>,
        names: &Names,
        config: &TextConfig,
        kernels: Kernels,
    ) -> std::result::Result<Self, LoadError> {
        let (width, eps) = (config.hidden_size, config.layer_norm_eps);
        let types = match config.type_vocab_size {
            0 => None,
            rows => Some(Table::load(scope, names.types, (rows, width), kernels)?),
        };
        let mut encoder = Self {
            words: Table::load(scope, names.words, (config.vocab_size, width), kernels)?,
            positions: Table::load(scope, names.positions, (config.max_positions, width), kernels)?,
            types,
            norm: LayerNorm::load(&scope.at(names.norm), width, eps, kernels)?,
            // Grows as layers are found: a number in a file is no reason to reserve memory.
            layers: Vec::new(),
            heads: config.heads,
            activation: config.activation,
            kernels,
        };
        for index in 0..config.layers {
            let scope = scope.at(names.layer).at(index);
            encoder.layers.push(Layer::load(&scope, names, config, kernels)?);
        }
        Ok(encoder)
    }

    /// The vectors of all tokens, [tokens, width]; where `kept` says so only those of the tokens it names, in its order.
    ///
    /// # Errors
    /// Where `cancelled` says so between two layers, and candle's.
    pub(super) fn forward(
        &self,
        tokens: Tokens<'_>,
        ranges: &Ranges,
        kept: Option<&Tensor>,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> std::result::Result<Tensor, Stopped> {
        let mut tables = vec![(&self.words, tokens.ids), (&self.positions, tokens.positions)];
        tables.extend(self.types.as_ref().map(|types| (types, tokens.types)));
        let mut x = self.norm.forward(&Table::sum(&tables)?, None)?;
        for (index, layer) in self.layers.iter().enumerate() {
            if cancelled() {
                return Err(Stopped::Cancelled);
            }
            let is_last = index + 1 == self.layers.len();
            x = layer.forward(&x, self, ranges, kept.filter(|_| is_last))?;
        }
        Ok(x)
    }

    /// Bytes that it takes.
    pub(super) fn n_bytes(&self) -> usize {
        let tables = [Some(&self.words), Some(&self.positions), self.types.as_ref()];
        let linear = |layer: &Layer| [&layer.qkv, &layer.mixed, &layer.up, &layer.down].map(Linear::n_bytes);
        tables.into_iter().flatten().map(Table::n_bytes).sum::<usize>()
            + self.layers.iter().flat_map(linear).sum::<usize>()
    }
}

impl Layer {
    fn load(
        scope: &Scope<'_>,
        names: &Names,
        config: &TextConfig,
        kernels: Kernels,
    ) -> std::result::Result<Self, LoadError> {
        let (width, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let parts = [names.query, names.key, names.value].map(|name| scope.at(name));
        Linear::need_bias(&parts, width)?;
        Linear::need_bias(&[scope.at(names.mixed), scope.at(names.down)], width)?;
        Linear::need_bias(&[scope.at(names.up)], inner)?;
        Ok(Self {
            qkv: Linear::joined(&parts, width, width, kernels)?,
            mixed: Linear::load(&scope.at(names.mixed), width, width, kernels)?,
            mixed_norm: LayerNorm::load(&scope.at(names.mixed_norm), width, eps, kernels)?,
            up: Linear::load(&scope.at(names.up), width, inner, kernels)?,
            down: Linear::load(&scope.at(names.down), inner, width, kernels)?,
            down_norm: LayerNorm::load(&scope.at(names.down_norm), width, eps, kernels)?,
        })
    }

    fn forward(&self, x: &Tensor, encoder: &Encoder, ranges: &Ranges, kept: Option<&Tensor>) -> Result<Tensor> {
        let qkv = self.qkv.forward(x, Activation::Identity)?;
        let mut mixed = attention(&qkv, encoder.heads, ranges, encoder.kernels)?;
        let mut x = x.clone();
        if let Some(kept) = kept {
            (mixed, x) = (mixed.index_select(kept, 0)?, x.index_select(kept, 0)?);
        }
        let x = self.mixed_norm.forward(&self.mixed.forward(&mixed, Activation::Identity)?, Some(&x))?;
        let inner = self.up.forward(&x, encoder.activation)?;
        self.down_norm.forward(&self.down.forward(&inner, Activation::Identity)?, Some(&x))
    }
}
