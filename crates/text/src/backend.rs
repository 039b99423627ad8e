//! Gives ONNX text networks, as they were exported, the form that every text model has here.

use std::sync::Arc;

use millrace_core::{Backend, LoadError, LoadErrorKind, Model, ModelSource, OptionReader};
use millrace_huggingface::{PoolingMode, SentenceModules};

use crate::export::{Export, Gives};
use crate::folder::{Folder, TOKENIZER, refused, size};
use crate::options::POOLING;
use crate::wrapped::{Steps, TextModel, Vocabulary};

/// An engine whose text models have the inputs and outputs that text models have here, whatever their exporter called
/// them.
///
/// A version is taken for a text model where its folder has a `tokenizer.json` and its network takes `input_ids`,
/// `attention_mask` and perhaps `token_type_ids`, and gives `logits`, `sentence_embedding` or the vectors of tokens; every
/// other is the inner engine's, untouched. The vectors of tokens are pooled as the folder's `modules.json` says, else as
/// the option `pooling` (`"mean"`, `"cls"`, `"max"` and so on), else by their mean. A network that also gives
/// `sentence_embedding` is believed where neither is there.
///
/// Requests of different lengths ride in one batch. Its rows are sorted by length and cut into runs, each padded to its
/// longest row, so that the time is least by what earlier runs took.
#[derive(Debug)]
pub struct TextBackend {
    inner: Arc<dyn Backend>,
}

impl TextBackend {
    /// `inner`, with text models in their form. It keeps the name of `inner`.
    pub fn over(inner: Arc<dyn Backend>) -> Self {
        Self { inner }
    }
}

impl Backend for TextBackend {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn recognises(&self, source: &ModelSource) -> bool {
        self.inner.recognises(source)
    }

    fn load(&self, source: &ModelSource) -> Result<Arc<dyn Model>, LoadError> {
        if size(&*source.files, TOKENIZER).is_none() {
            return self.inner.load(source);
        }
        let mut inner_source = source.clone();
        let option = pooling(inner_source.options.remove(POOLING))?;
        let folder = Folder::read(source)?;
        let model = self.inner.load(&inner_source)?;
        let is_said = folder.modules.pooling.is_some() || option.is_some();
        let export = Export::of(model.signature(), folder.config.as_ref(), is_said);
        if option.is_some() {
            may_choose(export.as_ref(), &folder)?;
        }
        match export {
            Some(export) => wrapped(model, export, source, &folder, option),
            None => Ok(model),
        }
    }
}

/// Whether the option `pooling` decides anything: what would not be heeded is refused.
fn may_choose(export: Option<&Export>, folder: &Folder) -> Result<(), LoadError> {
    let why = match export.map(|export| &export.gives) {
        Some(Gives::Hidden { .. }) => match &folder.modules.pooling {
            None => return Ok(()),
            Some(pooling) => format!("the model's own files say `{pooling}`"),
        },
        Some(Gives::Sentence { .. }) => {
            "the network pools by itself and does not give `last_hidden_state`; expected it among the outputs, or no option"
                .to_owned()
        }
        Some(Gives::Logits { .. }) => "the model classifies, and pools nothing".to_owned(),
        None => "this network is no text network whose tokens' vectors could be pooled".to_owned(),
    };
    Err(LoadError::new(LoadErrorKind::Invalid, format!("option `pooling`: {why}")))
}

fn wrapped(
    model: Arc<dyn Model>,
    export: Export,
    source: &ModelSource,
    folder: &Folder,
    option: Option<PoolingMode>,
) -> Result<Arc<dyn Model>, LoadError> {
    let steps = match &export.gives {
        Gives::Hidden { width, .. } => Steps::read(&folder.modules, option, *width, source, model.memory_bytes())?,
        Gives::Sentence { .. } | Gives::Logits { .. } => Steps::none(&SentenceModules::default()),
    };
    let text = folder.config.as_ref().map_or(Ok(None), |config| config.text()).map_err(|error| refused(&error))?;
    let vocabulary = Vocabulary {
        tokens: folder.vocabulary()?,
        types: text.map(|text| text.type_vocab_size.max(1)),
        positions: folder.max_positions()?,
        pad: folder.pad()?.unwrap_or(0),
    };
    Ok(Arc::new(TextModel::new(model, export, steps, vocabulary)?))
}

fn pooling(said: Option<String>) -> Result<Option<PoolingMode>, LoadError> {
    let Some(said) = said else { return Ok(None) };
    let options = [(POOLING.to_owned(), said)].into();
    OptionReader::new(&options).word(POOLING, None, &PoolingMode::WORDS.map(|(word, mode)| (word, Some(mode))))
}
