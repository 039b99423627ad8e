//! ResNet: He and others, Deep Residual Learning for Image Recognition, 2015; as `transformers` names and strides it.

use std::collections::BTreeSet;

use candle_core::{Result, Tensor};
use millrace_core::{Dim, DimExpr, LoadError, ModelSource};
use millrace_huggingface::{Activation, ResnetConfig, ResnetLayer};

use super::convolution::{Convolution, Shape};
use super::window::{Picture, Window};
use crate::nn::{Kernels, with_floats};
use crate::weights::{Scope, warn_of_unused};

/// What a bottleneck divides its channels by.
const REDUCTION: usize = 4;

/// The network without a head. Between its layers pictures are `[rows, height, width, channels]`.
#[derive(Debug)]
pub(super) struct ResNet {
    stem: Convolution,
    pool: Window,
    blocks: Vec<Block>,
    activation: Activation,
    kernels: Kernels,
    /// Channels that come out.
    channels: usize,
    /// How often height and width are halved.
    halvings: u32,
}

/// What is added to what went in.
#[derive(Debug)]
struct Block {
    convolutions: Vec<Convolution>,
    /// What went in, in the size that comes out; `None` where that is the same.
    shortcut: Option<Convolution>,
}

impl ResNet {
    /// Reads the tensors below `scope`.
    ///
    /// # Errors
    /// [`LoadError`] naming the tensor that is absent or of the wrong shape.
    pub(super) fn load(
        scope: &Scope<'_>,
        config: &ResnetConfig,
        kernels: Kernels,
    ) -> std::result::Result<Self, LoadError> {
        let stem = Shape { window: Window::new(7, 2), inputs: config.channels, outputs: config.embedding_size };
        let stem = Convolution::load(&scope.at("embedder.embedder"), stem, kernels)?;
        let mut blocks = Vec::new();
        let (mut channels, mut halvings) = (config.embedding_size, 2);
        for (stage, (&outputs, &depth)) in config.hidden_sizes.iter().zip(&config.depths).enumerate() {
            let is_halved = stage > 0 || config.downsample_in_first_stage;
            halvings += u32::from(is_halved);
            for layer in 0..depth {
                let stride = if layer == 0 && is_halved { 2 } else { 1 };
                let scope = scope.at(format_args!("encoder.stages.{stage}.layers.{layer}"));
                blocks.push(Block::load(&scope, config, (channels, outputs), stride, kernels)?);
                channels = outputs;
            }
        }
        Ok(Self { stem, pool: Window::new(3, 2), blocks, activation: config.activation, kernels, channels, halvings })
    }

    /// How many layers there are, and how many more stand below `scope`, of which the log warns.
    pub(super) fn layers(&self, scope: &Scope<'_>, config: &ResnetConfig, source: &ModelSource) -> [usize; 2] {
        let place = |name: &str| {
            let (stage, rest) = name.strip_prefix("encoder.stages.")?.split_once(".layers.")?;
            Some([stage.parse().ok()?, rest.split('.').next()?.parse().ok()?])
        };
        let is_beyond = |[stage, layer]: &[usize; 2]| config.depths.get(*stage).is_none_or(|depth| layer >= depth);
        let beyond: BTreeSet<[usize; 2]> = scope.names().filter_map(place).filter(is_beyond).collect();
        let (used, unused) = (self.blocks.len(), beyond.len());
        if unused > 0 {
            warn_of_unused(source, used, unused);
        }
        [used, unused]
    }

    /// Channels that come out.
    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    /// The size that comes out of a side called `symbol`: halved again and again, rounded up.
    pub(super) fn side(&self, symbol: &str) -> Dim {
        let divisor = 1_u64.checked_shl(self.halvings).unwrap_or(1 << 63);
        let all_but_one = DimExpr::Number(i64::try_from(divisor - 1).unwrap_or(i64::MAX));
        let sum = DimExpr::Sum(vec![DimExpr::Symbol(symbol.into()), all_but_one]);
        Dim::Expr(DimExpr::FloorDiv(Box::new(sum), divisor))
    }

    /// The most numbers that a step has in hand for one picture of these sizes, roughly.
    pub(super) fn most_numbers(&self, height: usize, width: usize) -> usize {
        let halved = |(height, width), window: Window| (window.places(height), window.places(width));
        let numbers = |(height, width): (usize, usize), channels| height.saturating_mul(width).saturating_mul(channels);
        let mut sides = halved((height, width), self.stem.window());
        let mut most = numbers(sides, self.stem.outputs());
        sides = halved(sides, self.pool);
        for convolution in self.blocks.iter().flat_map(|block| &block.convolutions) {
            sides = halved(sides, convolution.window());
            most = most.max(numbers(sides, convolution.outputs()));
        }
        // What goes in, what comes out and what is added.
        most.saturating_mul(3)
    }

    /// `[rows, channels, height, width]` to the last pictures.
    ///
    /// # Errors
    /// candle's.
    pub(super) fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let pictures = pixels.permute((0, 2, 3, 1))?.contiguous()?;
        let pictures = self.largest(&self.stem.forward(&pictures, self.activation, None)?)?;
        self.blocks.iter().try_fold(pictures, |pictures, block| block.forward(&pictures, self.activation))
    }

    fn largest(&self, pictures: &Tensor) -> Result<Tensor> {
        if self.kernels == Kernels::Candle {
            return self.pool.largest_by_candle(pictures);
        }
        let (rows, height, width, channels) = pictures.dims4()?;
        let largest = |numbers: &[f32]| -> Vec<f32> {
            let each = numbers.chunks_exact(height * width * channels);
            each.flat_map(|numbers| self.pool.largest(Picture { numbers, height, width, channels })).collect()
        };
        let shape = (rows, self.pool.places(height), self.pool.places(width), channels);
        Tensor::from_vec(with_floats(pictures, largest)?, shape, pictures.device())
    }
}

impl Block {
    fn load(
        scope: &Scope<'_>,
        config: &ResnetConfig,
        (inputs, outputs): (usize, usize),
        stride: usize,
        kernels: Kernels,
    ) -> std::result::Result<Self, LoadError> {
        let sizes = match config.layer {
            ResnetLayer::Basic => vec![(3, stride, outputs), (3, 1, outputs)],
            ResnetLayer::Bottleneck => {
                let (first, second) = if config.downsample_in_bottleneck { (stride, 1) } else { (1, stride) };
                let narrow = outputs / REDUCTION;
                vec![(1, first, narrow), (3, second, narrow), (1, 1, outputs)]
            }
        };
        let mut convolutions = Vec::with_capacity(sizes.len());
        let mut channels = inputs;
        for (index, (size, stride, outputs)) in sizes.into_iter().enumerate() {
            let shape = Shape { window: Window::new(size, stride), inputs: channels, outputs };
            convolutions.push(Convolution::load(&scope.at(format_args!("layer.{index}")), shape, kernels)?);
            channels = outputs;
        }
        let shape = Shape { window: Window::new(1, stride), inputs, outputs };
        let is_needed = inputs != outputs || stride != 1;
        let shortcut = is_needed.then(|| Convolution::load(&scope.at("shortcut"), shape, kernels)).transpose()?;
        Ok(Self { convolutions, shortcut })
    }

    fn forward(&self, given: &Tensor, activation: Activation) -> Result<Tensor> {
        let added = match &self.shortcut {
            Some(shortcut) => shortcut.forward(given, Activation::Identity, None)?,
            None => given.clone(),
        };
        let (last, others) = self.convolutions.split_last().expect("a block has two or three");
        let inner = |x: Tensor, convolution: &Convolution| convolution.forward(&x, activation, None);
        let inner = others.iter().try_fold(given.clone(), inner)?;
        last.forward(&inner, activation, Some(&added))
    }
}
