//! Recognises text models and makes what cuts their texts into tokens.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_core::{
    LoadError, LoadErrorKind, Model, ModelFacts, ModelSource, Quoted, TextFactory, TextFacts, TextProcessor, TextTask,
};
use millrace_huggingface::ProblemType;

use crate::canonical::Network;
use crate::folder::{Folder, TOKENIZER, size};
use crate::options::Options;
use crate::processor::{Limits, Processor};
use crate::tokenizer::{Tokenizer, check_size};

/// The length that texts may have where no file and no option says it: that of most models.
const USUAL_TOKENS: usize = 512;

/// Text for every model whose folder has a `tokenizer.json` and whose network takes token ids as
/// [`millrace_core::TextTask`]'s outputs need them.
///
/// The keys of `[text]` in a `model.toml` are `max_tokens`, `truncation` (`"refuse"`, `"right"`, `"left"`) and
/// `default_prompt`.
#[derive(Debug, Clone, Copy, Default)]
pub struct TextSupport;

impl TextFactory for TextSupport {
    fn open(
        &self,
        source: &ModelSource,
        model: &dyn Model,
        options: &BTreeMap<String, String>,
    ) -> Result<Option<Arc<dyn TextProcessor>>, LoadError> {
        let (Some(bytes), Some(network)) = (size(&*source.files, TOKENIZER), Network::of(model.signature())) else {
            return Ok(None);
        };
        let options = Options::read(options)?;
        check_size(bytes, source.memory_budget)?;
        let content = source.files.read(TOKENIZER).map_err(|error| {
            LoadError::new(LoadErrorKind::Missing, format!("{TOKENIZER} cannot be read: {error}")).with_cause(error)
        })?;
        let folder = Folder::read(source)?;
        let is_lower_cased = folder.sentence.is_some_and(|sentence| sentence.is_lower_cased);
        let tokenizer = Tokenizer::load(&content, is_lower_cased, source.memory_budget)?;
        let table = folder.vocabulary()?;
        check_vocabulary(&tokenizer, table)?;
        let pooling = match network.task {
            TextTask::Embedding => pooling(model, &folder),
            TextTask::Classification | TextTask::Ranking => String::new(),
        };
        let facts = TextFacts { pooling, ..facts(&folder, network, &options)? };
        let around = match network.task {
            TextTask::Ranking => tokenizer.template.pair.as_ref().ok_or_else(|| {
                invalid(format!("{TOKENIZER}: its post_processor does not say how two texts are put together"))
            })?,
            TextTask::Embedding | TextTask::Classification => &tokenizer.template.single,
        };
        if around.n_tokens() >= facts.max_tokens {
            let (special, most) = (around.n_tokens(), facts.max_tokens);
            return Err(invalid(format!(
                "{special} special tokens stand around each text, and it may have only {most}"
            )));
        }
        let pad = folder.pad()?.or_else(|| tokenizer.pad.map(|pad| pad as usize)).unwrap_or(0);
        let limits = Limits { table: table.unwrap_or(tokenizer.size), pad };
        Ok(Some(Arc::new(Processor::new(tokenizer, facts, network, &folder, limits))))
    }
}

/// A token that the network has no row for would be refused with every text that has it.
fn check_vocabulary(tokenizer: &Tokenizer, table: Option<usize>) -> Result<(), LoadError> {
    match table {
        Some(table) if tokenizer.size > table => Err(invalid(format!(
            "{TOKENIZER} has token ids up to {}, but the network knows only {table} tokens (`vocab_size` in config.json)",
            tokenizer.size - 1
        ))),
        _ => Ok(()),
    }
}

/// How the vectors of tokens become one: who does it knows, and else perhaps the folder.
fn pooling(model: &dyn Model, folder: &Folder) -> String {
    let own = model.facts().properties.remove(ModelFacts::POOLING);
    own.or_else(|| folder.modules.pooling.as_ref().map(ToString::to_string)).unwrap_or_default()
}

/// All that the folder and the operator say; not the pooling.
fn facts(folder: &Folder, network: Network, options: &Options<'_>) -> Result<TextFacts, LoadError> {
    let config = folder.config.as_ref();
    let (labels, dimension) = match network.task {
        TextTask::Embedding => (Vec::new(), network.width),
        TextTask::Classification | TextTask::Ranking => (labels(folder, network.width)?, 0),
    };
    Ok(TextFacts {
        task: network.task,
        model_type: config.map(|config| config.model_type().to_owned()).unwrap_or_default(),
        max_tokens: max_tokens(folder, options)?,
        truncation: options.truncation,
        labels,
        is_multi_label: config.is_some_and(|config| config.problem_type() == Some(ProblemType::MultiLabel)),
        pooling: String::new(),
        dimension,
        precision: config.and_then(|config| config.precision()).map(|it| it.name().to_owned()).unwrap_or_default(),
        prompts: folder.prompts.texts.clone(),
        default_prompt: default_prompt(folder, options)?,
    })
}

/// The labels in the order of the network's `width` outputs.
fn labels(folder: &Folder, width: usize) -> Result<Vec<Arc<str>>, LoadError> {
    match &folder.config {
        Some(config) if config.labels().len() == width => {
            Ok(config.labels().iter().map(|label| Arc::from(label.as_str())).collect())
        }
        Some(config) => Err(invalid(format!(
            "config.json has {} labels, but the network gives {width} numbers for each text",
            config.labels().len()
        ))),
        None => Ok((0..width).map(|index| Arc::from(format!("LABEL_{index}"))).collect()),
    }
}

/// The most tokens of one row: the operator's word within what the network has positions for, else the least that a file says.
fn max_tokens(folder: &Folder, options: &Options<'_>) -> Result<usize, LoadError> {
    let positions = folder.max_positions()?;
    if let Some(asked) = options.max_tokens {
        return match positions {
            Some(most) if asked > most => Err(invalid(format!(
                "option `max_tokens`: expected at most {most}, as the network has positions for, got {asked}"
            ))),
            _ => Ok(asked),
        };
    }
    let said = [
        positions,
        folder.sentence.and_then(|sentence| sentence.max_length),
        folder.tokenizer.as_ref().and_then(|tokenizer| tokenizer.max_length),
    ];
    Ok(said.into_iter().flatten().min().unwrap_or(USUAL_TOKENS))
}

fn default_prompt(folder: &Folder, options: &Options<'_>) -> Result<Option<String>, LoadError> {
    match options.default_prompt {
        None => Ok(folder.prompts.default.clone()),
        Some("") => Ok(None),
        Some(name) if folder.prompts.texts.contains_key(name) => Ok(Some(name.to_owned())),
        Some(name) => {
            let known: Vec<&str> = folder.prompts.texts.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "the model has no prompts".to_owned() } else { known.join(", ") };
            Err(invalid(format!(
                "option `default_prompt`: expected one of the model's prompts ({known}), got {}",
                Quoted(name)
            )))
        }
    }
}

fn invalid(text: String) -> LoadError {
    LoadError::new(LoadErrorKind::Invalid, text)
}
