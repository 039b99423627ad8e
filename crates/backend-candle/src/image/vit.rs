//! ViT: Dosovitskiy and others, An Image is Worth 16x16 Words, 2020.

use candle_core::{Result, Tensor};
use millrace_core::{LoadError, LoadErrorKind, ModelSource};
use millrace_huggingface::{Activation, VitConfig};

use super::product::Product;
use crate::device::{Place, Staging};
use crate::nn::{Kernels, LayerNorm, Linear, Ranges, attention, with_floats};
use crate::weights::Scope;

/// The most patches of a picture: attention takes the square of it in time.
const MOST_PATCHES: usize = 1 << 14;

/// The network without a head. Between its layers hidden states are `[rows · tokens, hidden_size]`.
#[derive(Debug)]
pub(super) struct Vit {
    config: VitConfig,
    kernels: Kernels,
    place: Place,
    patches: Product,
    /// The token before the patches with its position, and the positions of the patches: `[1, n, hidden_size]`.
    start: Tensor,
    positions: Tensor,
    layers: Vec<Layer>,
    norm: LayerNorm,
}

#[derive(Debug)]
struct Layer {
    before: LayerNorm,
    /// Queries, keys and values side by side.
    qkv: Linear,
    attended: Linear,
    after: LayerNorm,
    wide: Linear,
    narrow: Linear,
}

impl Vit {
    /// Reads the tensors below `scope`.
    ///
    /// # Errors
    /// [`LoadError`] naming the tensor that is absent or of the wrong shape.
    pub(super) fn load(scope: &Scope<'_>, config: VitConfig, kernels: Kernels) -> std::result::Result<Self, LoadError> {
        let VitConfig { hidden_size, channels, patch_size: (tall, wide), .. } = config;
        if config.n_patches() > MOST_PATCHES {
            let n_patches = config.n_patches();
            let text = format!(
                "config.json: `image_size` gives {n_patches} patches of `patch_size`, at most {MOST_PATCHES} can be"
            );
            return Err(LoadError::new(LoadErrorKind::Unsupported, text));
        }
        let weights = scope.weights();
        let embeddings = scope.at("embeddings");
        let projection = embeddings.at("patch_embeddings.projection");
        let rows = projection.floats("weight", &[hidden_size, channels, tall, wide])?;
        let bias = projection.floats("bias", &[hidden_size])?;
        let patches = Product::new(weights, (channels * tall * wide, hidden_size), rows, bias, kernels)?;
        let token = embeddings.tensor("cls_token", &[1, 1, hidden_size])?;
        let positions = embeddings.tensor("position_embeddings", &[1, 1 + config.n_patches(), hidden_size])?;
        let embedded = || {
            let dtype = if kernels == Kernels::Own { candle_core::DType::F32 } else { weights.precision().dtype() };
            let (token, positions) = (token.to_dtype(dtype)?, positions.to_dtype(dtype)?);
            let rest = positions.narrow(1, 1, config.n_patches())?.contiguous()?;
            Ok(((token + positions.narrow(1, 0, 1)?)?, rest))
        };
        let (start, positions) = embedded().map_err(|error| weights.place().load_failed("positions", error))?;
        let layer = |number| Layer::load(&scope.at(format_args!("encoder.layer.{number}")), &config, kernels);
        Ok(Self {
            kernels,
            place: weights.place().clone(),
            patches,
            start,
            positions,
            layers: (0..config.layers).map(layer).collect::<std::result::Result<_, _>>()?,
            norm: LayerNorm::load(&scope.at("layernorm"), hidden_size, config.layer_norm_eps, kernels)?,
            config,
        })
    }

    /// How many layers there are, and how many more stand below `scope`, of which the log warns.
    pub(super) fn layers(&self, scope: &Scope<'_>, source: &ModelSource) -> [usize; 2] {
        let used = self.layers.len();
        [used, scope.unused_layers("encoder.layer", used, source)]
    }

    /// Tokens of a picture: one before all, and its patches.
    pub(super) fn n_tokens(&self) -> usize {
        1 + self.config.n_patches()
    }

    /// The most numbers that a step has in hand for one picture, roughly.
    pub(super) fn most_numbers(&self) -> usize {
        let VitConfig { hidden_size, intermediate_size, heads, .. } = self.config;
        let widest = intermediate_size.max(3 * hidden_size) + 2 * hidden_size;
        self.n_tokens() * (widest + 2 * heads * self.n_tokens())
    }

    /// `[rows, channels, height, width]` to the last hidden states.
    ///
    /// # Errors
    /// candle's.
    pub(super) fn forward(&self, pixels: &Tensor, staging: &mut Staging) -> Result<Tensor> {
        let (rows, tokens) = (pixels.dim(0)?, self.n_tokens());
        let ranges = Ranges::new(&vec![tokens; rows], self.kernels, self.place.grouping(), staging)?;
        let mut x = self.embed(pixels)?;
        for layer in &self.layers {
            x = layer.forward(&x, &self.config, &ranges, self.kernels)?;
        }
        self.norm.forward(&x, None)
    }

    /// The first token of each row of hidden states.
    ///
    /// # Errors
    /// candle's.
    pub(super) fn first_tokens(&self, hidden: &Tensor) -> Result<Tensor> {
        let rows = hidden.reshape(((), self.n_tokens(), self.config.hidden_size))?;
        rows.narrow(1, 0, 1)?.squeeze(1)?.contiguous()
    }

    fn embed(&self, pixels: &Tensor) -> Result<Tensor> {
        let (rows, width, n_patches) = (pixels.dim(0)?, self.config.hidden_size, self.config.n_patches());
        let cut = match self.kernels {
            Kernels::Own => self.cut(pixels)?,
            Kernels::Candle => self.cut_by_candle(pixels)?,
        };
        let patches = self.patches.forward(&cut, Activation::Identity, None)?.reshape((rows, n_patches, width))?;
        let start = self.start.broadcast_as((rows, 1, width))?.contiguous()?;
        let x = Tensor::cat(&[start, patches.broadcast_add(&self.positions)?], 1)?;
        x.reshape((rows * self.n_tokens(), width))
    }

    /// The patches of each picture, line by line: `[rows · patches, channels · tall · wide]`.
    fn cut(&self, pixels: &Tensor) -> Result<Tensor> {
        let VitConfig { image_size: (height, width), patch_size: (tall, wide), channels, .. } = self.config;
        let shape = (pixels.dim(0)? * self.config.n_patches(), channels * tall * wide);
        let cut = |numbers: &[f32]| {
            let mut patches = Vec::with_capacity(shape.0 * shape.1);
            for picture in numbers.chunks_exact(channels * height * width) {
                let places = (0..height / tall).flat_map(|down| (0..width / wide).map(move |across| (down, across)));
                for (down, across) in places {
                    for channel in picture.chunks_exact(height * width) {
                        for line in channel[down * tall * width..].chunks_exact(width).take(tall) {
                            patches.extend_from_slice(&line[across * wide..(across + 1) * wide]);
                        }
                    }
                }
            }
            patches
        };
        Tensor::from_vec(with_floats(pixels, cut)?, shape, pixels.device())
    }

    fn cut_by_candle(&self, pixels: &Tensor) -> Result<Tensor> {
        let VitConfig { patch_size: (tall, wide), image_size: (height, width), .. } = self.config;
        let (rows, channels, _, _) = pixels.dims4()?;
        let (down, across) = (height / tall, width / wide);
        let seen = pixels.narrow(2, 0, down * tall)?.narrow(3, 0, across * wide)?.contiguous()?;
        let parts = seen.reshape(&[rows, channels, down, tall, across, wide])?.permute([0, 2, 4, 1, 3, 5])?;
        parts.contiguous()?.reshape((rows * down * across, channels * tall * wide))
    }
}

impl Layer {
    fn load(scope: &Scope<'_>, config: &VitConfig, kernels: Kernels) -> std::result::Result<Self, LoadError> {
        let (width, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let attention = scope.at("attention.attention");
        let parts = ["query", "key", "value"].map(|name| attention.at(name));
        for part in &parts {
            check_bias(part, width, config.qkv_bias)?;
        }
        let linear = |name: &str, inputs: usize, outputs: usize| {
            let scope = scope.at(name);
            check_bias(&scope, outputs, true)?;
            Linear::load(&scope, inputs, outputs, kernels)
        };
        Ok(Self {
            before: LayerNorm::load(&scope.at("layernorm_before"), width, eps, kernels)?,
            qkv: Linear::joined(&parts, width, width, kernels)?,
            attended: linear("attention.output.dense", width, width)?,
            after: LayerNorm::load(&scope.at("layernorm_after"), width, eps, kernels)?,
            wide: linear("intermediate.dense", width, inner)?,
            narrow: linear("output.dense", inner, width)?,
        })
    }

    fn forward(&self, x: &Tensor, config: &VitConfig, ranges: &Ranges, kernels: Kernels) -> Result<Tensor> {
        let qkv = self.qkv.forward(&self.before.forward(x, None)?, Activation::Identity)?;
        let mixed = attention(&qkv, config.heads, ranges, kernels)?;
        let x = (self.attended.forward(&mixed, Activation::Identity)? + x)?;
        let wide = self.wide.forward(&self.after.forward(&x, None)?, config.activation)?;
        self.narrow.forward(&wide, Activation::Identity)? + x
    }
}

/// A layer takes a bias where there is one; whether there must be one stands in the configuration.
///
/// # Errors
/// [`LoadError`] where it is absent, has another shape, or should not be there.
pub(super) fn check_bias(scope: &Scope<'_>, outputs: usize, has_bias: bool) -> std::result::Result<(), LoadError> {
    if has_bias {
        return scope.floats("bias", &[outputs]).map(drop);
    }
    if !scope.has("bias") {
        return Ok(());
    }
    let text = "config.json: `qkv_bias` is false, but the weights have biases of queries, keys or values";
    Err(LoadError::new(LoadErrorKind::Invalid, text))
}
