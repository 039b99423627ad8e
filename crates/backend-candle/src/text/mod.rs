//! Networks over text: BERT, DistilBERT, RoBERTa and those that are built like them, for embeddings, classification and
//! re-ranking.
//!
//! They take token ids. Cutting text into tokens is another crate's business; padding is nobody's here: the tokens of all rows
//! of a batch are computed one after another, and only attention knows where a row ends.

mod encoder;
mod gguf;
mod head;
mod instance;
mod model;
mod names;
mod packed;
mod pooling;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use millrace_core::{LoadError, LoadErrorKind, Model, ModelSource};
use millrace_huggingface::{SentenceModules, TextConfig};

use crate::backend::{Loading, refused};
use crate::device::Place;
use crate::nn::Kernels;
use crate::options::Options;
use crate::weights::{Scope, Weights};
use encoder::Encoder;
use head::Head;
use model::{About, Network, TextModel};
use names::Names;

/// Loads a Hugging Face folder.
///
/// # Errors
/// [`LoadError`] naming the file and what is wrong in it.
pub(crate) fn load(loading: &Loading<'_>) -> Result<Arc<dyn Model>, LoadError> {
    let kernels = Kernels::of(&loading.weights);
    Ok(Arc::new(TextModel::new(folder(loading, kernels)?, &loading.weights, &loading.place)?))
}

/// Loads a GGUF file.
///
/// # Errors
/// As [`load`].
pub(crate) fn load_gguf(
    source: &ModelSource,
    file: &str,
    options: &Options,
    place: &Place,
) -> Result<Arc<dyn Model>, LoadError> {
    let (weights, metadata) = Weights::open_gguf(source, file, place, options.precision)?;
    let kernels = Kernels::of(&weights);
    let (config, pooling) = gguf::config(file, &weights, &metadata)?;
    let modules = modules(source)?;
    let pooling = modules.pooling.clone().unwrap_or_else(|| modules.pooling_or(options.pooling.or(pooling)));
    let encoder = Encoder::load(&weights.root(), &names::GGUF, &config, kernels)?;
    let precision = weights.precision();
    let open = |folder: &str| Weights::open(source, folder, place, Some(precision));
    let head = Head::embedding(&modules, pooling, config.hidden_size, (kernels, precision), open)?;
    let about = About { class: "GGUF bert".to_owned(), model_type: "bert".to_owned() };
    Ok(Arc::new(TextModel::new(Network { config, encoder, head, kernels, about }, &weights, place)?))
}

/// The network of a Hugging Face folder, with layers that compute by `kernels`.
fn folder(loading: &Loading<'_>, kernels: Kernels) -> Result<Network, LoadError> {
    let (config, weights) = (&loading.config, &loading.weights);
    let sizes = config.text().map_err(|error| refused(&error))?.ok_or_else(|| {
        LoadError::new(
            LoadErrorKind::Unsupported,
            format!("config.json: `{}` is no network over text", config.model_type()),
        )
    })?;
    let names = Names::of(sizes.family);
    let root = weights.root();
    let scope = below_prefix(&root, &names);
    let encoder = Encoder::load(&scope, &names, &sizes, kernels)?;
    let head = match config.head() {
        millrace_huggingface::Head::Sequence => {
            if loading.options.pooling.is_some() {
                let text = "option `pooling`: the model classifies, and pools nothing";
                return Err(LoadError::new(LoadErrorKind::Invalid, text));
            }
            Head::labels(&root, &scope, &sizes, config.labels().len(), kernels)?
        }
        _ => embedding(loading, &sizes, kernels)?,
    };
    let class = config.architectures().join(", ");
    let about = About { class, model_type: config.model_type().to_owned() };
    Ok(Network { config: sizes, encoder, head, kernels, about })
}

fn embedding(loading: &Loading<'_>, config: &TextConfig, kernels: Kernels) -> Result<Head, LoadError> {
    let modules = modules(loading.source)?;
    if !modules.transformer.is_empty() {
        let text = format!(
            "modules.json: the network lies in the folder `{}`; expected it beside modules.json",
            modules.transformer
        );
        return Err(LoadError::new(LoadErrorKind::Unsupported, text));
    }
    if let (Some(pooling), Some(_)) = (&modules.pooling, loading.options.pooling) {
        let text = format!("option `pooling`: the model's own files say `{pooling}`");
        return Err(LoadError::new(LoadErrorKind::Invalid, text));
    }
    let pooling = modules.pooling_or(loading.options.pooling);
    let precision = loading.weights.precision();
    let open = |folder: &str| Weights::open(loading.source, folder, &loading.place, Some(precision));
    Head::embedding(&modules, pooling, config.hidden_size, (kernels, precision), open)
}

/// What the files of `sentence-transformers` say, if there are any.
fn modules(source: &ModelSource) -> Result<SentenceModules, LoadError> {
    let file = |name: &str| match source.files.read(name) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None::<Bytes>),
        Err(error) => Err(error),
    };
    SentenceModules::read(file).map_err(|error| refused(&error))
}

/// The encoder's tensors: below the name that the whole network has in files with a head, or below none.
fn below_prefix<'a>(root: &Scope<'a>, names: &Names) -> Scope<'a> {
    let prefixed = root.at(names.prefix);
    if prefixed.has(names.words) { prefixed } else { root.clone() }
}
