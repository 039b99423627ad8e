//! A network and what stands on top of it: labels, a pooler, or nothing.

use candle_core::{Result, Tensor};
use millrace_core::{DType, Dim, LoadError, LoadErrorKind, ModelSource, Signature, TensorSpec};
use millrace_huggingface::{Activation, ResnetConfig, VitConfig};

use super::resnet::ResNet;
use super::vit::{Vit, check_bias};
use crate::device::Staging;
use crate::nn::{Kernels, Linear};
use crate::weights::{Scope, Weights};

/// The sizes of a network.
#[derive(Debug)]
pub(super) enum NetworkConfig {
    Vit(VitConfig),
    ResNet(ResnetConfig),
}

/// A network with its head.
#[derive(Debug)]
pub(super) struct Network {
    body: Body,
    head: Head,
    signature: Signature,
    /// How many layers there are, and how many the file has beside.
    layers: [usize; 2],
}

#[derive(Debug)]
enum Body {
    Vit(Vit),
    ResNet(ResNet),
}

#[derive(Debug)]
enum Head {
    Labels(Linear),
    /// ViT's pooler, where the file has one.
    Pooler(Linear, Activation),
    /// What the body gives; of ResNet also the means of its channels.
    None,
}

impl Network {
    /// Reads all tensors; `labels` says how many there are where the network tells labels.
    ///
    /// # Errors
    /// [`LoadError`] naming the tensor that is absent or of the wrong shape.
    pub(super) fn load(
        (weights, source): (&Weights, &ModelSource),
        config: NetworkConfig,
        labels: Option<usize>,
        kernels: Kernels,
    ) -> std::result::Result<Self, LoadError> {
        let root = weights.root();
        let linear = |scope: &Scope<'_>, inputs, outputs| {
            check_bias(scope, outputs, true)?;
            Linear::load(scope, inputs, outputs, kernels)
        };
        match config {
            NetworkConfig::Vit(config) => {
                let scope = below(&root, "vit", "embeddings.cls_token");
                let pooler = scope.at("pooler.dense");
                let head = match labels {
                    Some(labels) => Head::Labels(linear(&root.at("classifier"), config.hidden_size, labels)?),
                    None if pooler.has("weight") => {
                        let pooler = linear(&pooler, config.hidden_size, config.pooler_size)?;
                        Head::Pooler(pooler, config.pooler_activation)
                    }
                    None => Head::None,
                };
                let vit = Vit::load(&scope, config, kernels)?;
                let sides = [Dim::Fixed(config.image_size.0), Dim::Fixed(config.image_size.1)];
                let hidden = vec![Dim::Fixed(vit.n_tokens()), Dim::Fixed(config.hidden_size)];
                let pooled = matches!(head, Head::Pooler(..)).then(|| vec![Dim::Fixed(config.pooler_size)]);
                let signature = signature(config.channels, sides, labels, hidden, pooled)?;
                Ok(Self { layers: vit.layers(&scope, source), body: Body::Vit(vit), head, signature })
            }
            NetworkConfig::ResNet(config) => {
                let scope = below(&root, "resnet", "embedder.embedder.convolution.weight");
                let resnet = ResNet::load(&scope, &config, kernels)?;
                let head = match labels {
                    // The first of the two parts of the head, which makes pictures flat, has no weights.
                    Some(labels) => Head::Labels(linear(&root.at("classifier.1"), resnet.channels(), labels)?),
                    None => Head::None,
                };
                let sides = ["height", "width"].map(Dim::symbol);
                let channels = Dim::Fixed(resnet.channels());
                let hidden = vec![channels.clone(), resnet.side("height"), resnet.side("width")];
                let pooled = Some(vec![channels, Dim::Fixed(1), Dim::Fixed(1)]);
                let signature = signature(config.channels, sides, labels, hidden, pooled)?;
                let layers = resnet.layers(&scope, &config, source);
                Ok(Self { body: Body::ResNet(resnet), head, signature, layers })
            }
        }
    }

    /// What goes in and out.
    pub(super) fn signature(&self) -> &Signature {
        &self.signature
    }

    /// How many layers there are, in words.
    pub(super) fn layers(&self) -> String {
        match self.layers {
            [used, 0] => used.to_string(),
            [used, more] => format!("{used} of {} in the weights", used.saturating_add(more)),
        }
    }

    /// The most numbers that a run has in hand for one picture, roughly.
    pub(super) fn most_numbers(&self, height: usize, width: usize) -> usize {
        match &self.body {
            Body::Vit(vit) => vit.most_numbers(),
            Body::ResNet(resnet) => resnet.most_numbers(height, width),
        }
    }

    /// The outputs for `[rows, channels, height, width]`, in the signature's order; those that are not `wanted` may stay
    /// `None`.
    ///
    /// # Errors
    /// candle's.
    pub(super) fn forward(
        &self,
        pixels: &Tensor,
        wanted: &dyn Fn(usize) -> bool,
        staging: &mut Staging,
    ) -> Result<Vec<Option<Tensor>>> {
        let rows = pixels.dim(0)?;
        match &self.body {
            Body::Vit(vit) => {
                let hidden = vit.forward(pixels, staging)?;
                let first = || vit.first_tokens(&hidden);
                let whole = || hidden.reshape((rows, vit.n_tokens(), ()));
                Ok(match &self.head {
                    Head::Labels(labels) => vec![Some(labels.forward(&first()?, Activation::Identity)?)],
                    Head::Pooler(pooler, activation) => {
                        vec![
                            if_wanted(wanted(0), whole)?,
                            if_wanted(wanted(1), || pooler.forward(&first()?, *activation))?,
                        ]
                    }
                    Head::None => vec![Some(whole()?)],
                })
            }
            Body::ResNet(resnet) => {
                let pictures = resnet.forward(pixels)?;
                let means = || pictures.mean((1, 2));
                Ok(match &self.head {
                    Head::Labels(labels) => vec![Some(labels.forward(&means()?, Activation::Identity)?)],
                    _ => vec![
                        if_wanted(wanted(0), || pictures.permute((0, 3, 1, 2))?.contiguous())?,
                        if_wanted(wanted(1), || means()?.reshape((rows, resnet.channels(), 1, 1)))?,
                    ],
                })
            }
        }
    }
}

/// The tensors below `prefix`, where networks with a head keep those of the body; those without have no prefix.
fn below<'a>(root: &Scope<'a>, prefix: &str, first: &str) -> Scope<'a> {
    if root.has(first) { root.clone() } else { root.at(prefix) }
}

fn if_wanted(is_wanted: bool, make: impl FnOnce() -> Result<Tensor>) -> Result<Option<Tensor>> {
    is_wanted.then(make).transpose()
}

/// `pixel_values` to `logits`, or to `last_hidden_state` and perhaps `pooler_output`; shapes without the rows.
fn signature(
    channels: usize,
    sides: [Dim; 2],
    labels: Option<usize>,
    hidden: Vec<Dim>,
    pooled: Option<Vec<Dim>>,
) -> std::result::Result<Signature, LoadError> {
    let spec = |name: &str, shape: Vec<Dim>| {
        let shape: Vec<Dim> = std::iter::once(Dim::symbol("batch")).chain(shape).collect();
        TensorSpec::new(name, DType::Fp32, shape)
    };
    let input = spec("pixel_values", std::iter::once(Dim::Fixed(channels)).chain(sides).collect());
    let outputs = match labels {
        Some(labels) => vec![spec("logits", vec![Dim::Fixed(labels)])],
        None => {
            let pooled = pooled.map(|shape| spec("pooler_output", shape));
            std::iter::once(spec("last_hidden_state", hidden)).chain(pooled).collect()
        }
    };
    Signature::new(vec![input], outputs)
        .map_err(|error| LoadError::new(LoadErrorKind::Invalid, error.to_string()).with_cause(error))
}
