//! The sizes of networks for pictures: vision transformers and residual networks.

use crate::activation::Activation;
use crate::error::HuggingFaceError;
use crate::fields::Fields;

const MAX_WIDTH: usize = 1 << 16;
const MAX_INNER_WIDTH: usize = 1 << 18;
const MAX_LAYERS: usize = 1 << 10;
const MAX_SIDE: usize = 1 << 14;
const MAX_CHANNELS: usize = 1 << 10;
const MAX_STAGES: usize = 64;

/// The sizes of a vision transformer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VitConfig {
    /// Numbers of one patch's vector.
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
    /// Height and width of pictures, in pixels; multiples of `patch_size`.
    pub image_size: (usize, usize),
    /// Height and width of patches, in pixels.
    pub patch_size: (usize, usize),
    /// Channels of pictures.
    pub channels: usize,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Numbers that the pooler gives, where weights have one.
    pub pooler_size: usize,
    /// The pooler's function.
    pub pooler_activation: Activation,
}

impl VitConfig {
    pub(crate) fn read(fields: &Fields) -> Result<Self, HuggingFaceError> {
        let hidden_size = fields.needed_size("hidden_size", 1..=MAX_WIDTH)?;
        let config = Self {
            hidden_size,
            layers: fields.needed_size("num_hidden_layers", 1..=MAX_LAYERS)?,
            heads: fields.needed_size("num_attention_heads", 1..=MAX_LAYERS)?,
            intermediate_size: fields.needed_size("intermediate_size", 1..=MAX_INNER_WIDTH)?,
            activation: Activation::read(fields, "hidden_act", Activation::Gelu)?,
            layer_norm_eps: fields.number("layer_norm_eps", 0.0..=1.0)?.unwrap_or(1e-12),
            image_size: sides(fields, "image_size")?,
            patch_size: sides(fields, "patch_size")?,
            channels: fields.size("num_channels", 1..=MAX_CHANNELS)?.unwrap_or(3),
            qkv_bias: fields.flag("qkv_bias")?.unwrap_or(true),
            pooler_size: fields.size("pooler_output_size", 1..=MAX_WIDTH)?.unwrap_or(hidden_size),
            pooler_activation: Activation::read(fields, "pooler_act", Activation::Tanh)?,
        };
        if !hidden_size.is_multiple_of(config.heads) {
            let key = "num_attention_heads";
            return Err(fields.wrong(key, format!("a divisor of `hidden_size`, which is {hidden_size}")));
        }
        let ((height, width), (tall, wide)) = (config.image_size, config.patch_size);
        if height < tall || width < wide {
            let expected = format!("at least one patch, which is {tall} by {wide}");
            return Err(fields.wrong("image_size", expected));
        }
        Ok(config)
    }

    /// Numbers of one head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.heads
    }

    /// Patches of a picture. Pixels at the right and at the bottom that fill no patch are not seen.
    pub fn n_patches(&self) -> usize {
        (self.image_size.0 / self.patch_size.0) * (self.image_size.1 / self.patch_size.1)
    }
}

/// Which kind of block a residual network is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResnetLayer {
    /// Two convolutions of 3 by 3.
    Basic,
    /// 1 by 1 to a quarter of the channels, 3 by 3, and 1 by 1 back.
    Bottleneck,
}

/// The sizes of a residual network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResnetConfig {
    /// Channels of pictures.
    pub channels: usize,
    /// Channels behind the first convolution.
    pub embedding_size: usize,
    /// Channels of each stage.
    pub hidden_sizes: Vec<usize>,
    /// Blocks of each stage.
    pub depths: Vec<usize>,
    /// The kind of blocks.
    pub layer: ResnetLayer,
    /// The function between convolutions.
    pub activation: Activation,
    /// Whether the first stage halves height and width, as the others do.
    pub downsample_in_first_stage: bool,
    /// Whether it is the first convolution of a bottleneck that halves them, not the second.
    pub downsample_in_bottleneck: bool,
}

impl ResnetConfig {
    pub(crate) fn read(fields: &Fields) -> Result<Self, HuggingFaceError> {
        let list = |key: &str, most: usize| {
            let sizes = fields.sizes(key, 1..=most, MAX_STAGES)?;
            sizes.ok_or_else(|| fields.missing(key, "a list with a number for each stage"))
        };
        let kinds = [("basic", ResnetLayer::Basic), ("bottleneck", ResnetLayer::Bottleneck)];
        let config = Self {
            channels: fields.size("num_channels", 1..=MAX_CHANNELS)?.unwrap_or(3),
            embedding_size: fields.needed_size("embedding_size", 1..=MAX_WIDTH)?,
            hidden_sizes: list("hidden_sizes", MAX_WIDTH)?,
            depths: list("depths", MAX_LAYERS)?,
            layer: fields.word("layer_type", &kinds)?.unwrap_or(ResnetLayer::Bottleneck),
            activation: Activation::read(fields, "hidden_act", Activation::Relu)?,
            downsample_in_first_stage: fields.flag("downsample_in_first_stage")?.unwrap_or(false),
            downsample_in_bottleneck: fields.flag("downsample_in_bottleneck")?.unwrap_or(false),
        };
        if config.hidden_sizes.len() != config.depths.len() {
            let expected = format!("as many numbers as `hidden_sizes` has, {}", config.hidden_sizes.len());
            return Err(fields.wrong("depths", expected));
        }
        if config.layer == ResnetLayer::Bottleneck && config.hidden_sizes.iter().any(|size| size % 4 != 0) {
            let expected = "multiples of 4, for bottlenecks narrow to a quarter";
            return Err(fields.wrong("hidden_sizes", expected));
        }
        Ok(config)
    }
}

/// One number for height and width, or a list of both.
fn sides(fields: &Fields, key: &str) -> Result<(usize, usize), HuggingFaceError> {
    if fields.get(key).is_some_and(serde_json::Value::is_array) {
        return match fields.sizes(key, 1..=MAX_SIDE, 2)?.as_deref() {
            Some([height, width]) => Ok((*height, *width)),
            _ => Err(fields.wrong(key, "one number, or height and width")),
        };
    }
    let side = fields.needed_size(key, 1..=MAX_SIDE)?;
    Ok((side, side))
}
