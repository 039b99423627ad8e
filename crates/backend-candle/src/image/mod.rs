//! Networks over pictures: ViT and ResNet, with a head for labels or without one.
//!
//! They take numbers, `pixel_values` FP32 `[batch, channels, height, width]`, as the weights were trained on. Decoding, resizing and
//! scaling are declared in `model.toml` and done elsewhere; `preprocessor_config.json` is not read.

mod convolution;
mod head;
mod model;
mod product;
mod resnet;
#[cfg(test)]
mod tests;
mod vit;
mod window;

use std::sync::Arc;

use millrace_core::{LoadError, Model};

use crate::architecture::Architecture;
use crate::backend::{Loading, refused};
use crate::nn::Kernels;

use head::{Network, NetworkConfig};
use model::ImageModel;

/// Loads a network over pictures.
///
/// # Errors
/// [`LoadError`] naming the file and what is wrong in it.
pub(crate) fn load(architecture: Architecture, loading: &Loading<'_>) -> Result<Arc<dyn Model>, LoadError> {
    let network = network(architecture, loading, Kernels::of(&loading.weights))?;
    Ok(Arc::new(ImageModel::new(loading, network)))
}

/// The network, with layers that compute by `kernels`.
fn network(architecture: Architecture, loading: &Loading<'_>, kernels: Kernels) -> Result<Network, LoadError> {
    let config = &loading.config;
    let sizes = match architecture {
        Architecture::ResNet => config.resnet().map_err(|error| refused(&error))?.map(NetworkConfig::ResNet),
        _ => config.vit().map_err(|error| refused(&error))?.map(NetworkConfig::Vit),
    };
    let sizes = sizes.expect("the configuration has the sizes of its own `model_type`");
    let labels = (config.head() == millrace_huggingface::Head::Image).then(|| config.labels().len());
    Network::load((&loading.weights, loading.source), sizes, labels, kernels)
}
