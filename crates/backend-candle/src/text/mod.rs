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
use millrace_huggingface::{Pooling, SentenceModules};

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
    const TABLES: &[&str] = &[names::GGUF.words, names::GGUF.positions, names::GGUF.types];
    let (weights, metadata) = Weights::open_gguf(source, file, place, options.precision, TABLES)?;
    let kernels = Kernels::of(&weights);
    let (config, said) = gguf::config(file, &weights, &metadata)?;
    let mut modules = modules(source)?;
    modules.pooling = modules.pooling.or_else(|| said.map(Pooling::of));
    let root = weights.root();
    let encoder = Encoder::load(&root, &names::GGUF, &config, kernels)?;
    let head = embedding((source, options), &modules, &weights, config.hidden_size, kernels)?;
    let unused = root.unused_layers(names::GGUF.layer, config.layers, source);
    let about = About { class: "GGUF bert".to_owned(), model_type: "bert".to_owned(), unused };
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
        _ => {
            let modules = modules(loading.source)?;
            if !modules.transformer.is_empty() {
                let text = format!(
                    "modules.json: the network lies in the folder `{}`; expected it beside modules.json",
                    modules.transformer
                );
                return Err(LoadError::new(LoadErrorKind::Unsupported, text));
            }
            embedding((loading.source, &loading.options), &modules, weights, sizes.hidden_size, kernels)?
        }
    };
    let class = config.architectures().join(", ");
    let unused = scope.unused_layers(names.layer, sizes.layers, loading.source);
    let about = About { class, model_type: config.model_type().to_owned(), unused };
    Ok(Network { config: sizes, encoder, head, kernels, about })
}

/// A head that pools as the model's own files say, else as the operator does, else by the mean.
fn embedding(
    (source, options): (&ModelSource, &Options),
    modules: &SentenceModules,
    weights: &Weights,
    width: usize,
    kernels: Kernels,
) -> Result<Head, LoadError> {
    if let (Some(pooling), Some(_)) = (&modules.pooling, options.pooling) {
        let text = format!("option `pooling`: the model's own files say `{pooling}`");
        return Err(LoadError::new(LoadErrorKind::Invalid, text));
    }
    let pooling = modules.pooling_or(options.pooling);
    // Each layer's weights stay when the next one's come.
    let mut held = 0;
    let open = |folder: &str| {
        let dense = weights.open_beside(source, folder, held)?;
        held += dense.n_bytes();
        Ok(dense)
    };
    Head::embedding(modules, pooling, width, (kernels, weights.precision()), open)
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
