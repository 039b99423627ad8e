//! The small files of a version's folder: what is said about its network, its tokenizer and its prompts.

use std::io;

use millrace_core::{LoadError, LoadErrorKind, ModelFiles, ModelSource};
use millrace_huggingface::{
    Config, HuggingFaceError, MAX_FILE_BYTES, Prompts, SentenceBert, SentenceModules, TokenizerConfig,
};

/// The tokenizer's file.
pub(crate) const TOKENIZER: &str = "tokenizer.json";

/// What the files say, each where it is there.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) config: Option<Config>,
    pub(crate) modules: SentenceModules,
    pub(crate) tokenizer: Option<TokenizerConfig>,
    pub(crate) sentence: Option<SentenceBert>,
    pub(crate) prompts: Prompts,
}

impl Folder {
    pub(crate) fn read(source: &ModelSource) -> Result<Self, LoadError> {
        let files = &*source.files;
        let config = parsed(files, "config.json", Config::parse)?;
        // What saved a classification's modules has nothing to pool, and other modules than these.
        let is_classifier = config.as_ref().is_some_and(|config| config.head() != millrace_huggingface::Head::None);
        let modules = if is_classifier {
            SentenceModules::default()
        } else {
            SentenceModules::read(|name| small(files, name)).map_err(|error| refused(&error))?
        };
        Ok(Self {
            config,
            modules,
            tokenizer: parsed(files, TokenizerConfig::FILE, TokenizerConfig::parse)?,
            sentence: parsed(files, SentenceBert::FILE, SentenceBert::parse)?,
            prompts: parsed(files, Prompts::FILE, Prompts::parse)?.unwrap_or_default(),
        })
    }

    /// The most tokens that the network has positions for, where the files say it.
    pub(crate) fn max_positions(&self) -> Result<Option<usize>, LoadError> {
        self.config.as_ref().map_or(Ok(None), Config::max_tokens).map_err(|error| refused(&error))
    }

    /// Rows of the network's table of tokens, where the files say it.
    pub(crate) fn vocabulary(&self) -> Result<Option<usize>, LoadError> {
        self.config.as_ref().map_or(Ok(None), Config::vocab_size).map_err(|error| refused(&error))
    }

    /// The token that rows are filled up with, where the files say it.
    pub(crate) fn pad(&self) -> Result<Option<usize>, LoadError> {
        let Some(config) = &self.config else { return Ok(None) };
        let said = config.pad_token_id().map_err(|error| refused(&error))?;
        // A family that has a default writes it only where it differs.
        let family = config.text().ok().flatten().map(|text| text.pad_token_id);
        Ok(said.or(family))
    }
}

/// The size of the file `name` in bytes.
pub(crate) fn size(files: &dyn ModelFiles, name: &str) -> Option<u64> {
    files.list().iter().find(|(known, _)| known == name).map(|(_, bytes)| *bytes)
}

/// The content of one of the files that say something, or `None` where there is no such file. One that is too large to be
/// such a file is not read.
fn small(files: &dyn ModelFiles, name: &str) -> io::Result<Option<impl AsRef<[u8]> + use<>>> {
    match size(files, name) {
        None => Ok(None),
        Some(bytes) if bytes > MAX_FILE_BYTES as u64 => {
            Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has {bytes} bytes")))
        }
        Some(_) => files.read(name).map(Some),
    }
}

fn parsed<T>(
    files: &dyn ModelFiles,
    name: &str,
    parse: fn(&[u8]) -> Result<T, HuggingFaceError>,
) -> Result<Option<T>, LoadError> {
    let content = small(files, name).map_err(|source| {
        let text = format!("{name} cannot be read: {source}");
        LoadError::new(LoadErrorKind::Missing, text).with_cause(source)
    })?;
    content.map(|bytes| parse(bytes.as_ref())).transpose().map_err(|error| refused(&error))
}

/// A fault of the folder, for the operator.
pub(crate) fn refused(error: &HuggingFaceError) -> LoadError {
    let kind = match error {
        HuggingFaceError::TooLarge { .. } => LoadErrorKind::TooLarge,
        error if error.is_unsupported() => LoadErrorKind::Unsupported,
        error if error.is_absent() => LoadErrorKind::Missing,
        _ => LoadErrorKind::Invalid,
    };
    LoadError::new(kind, error.to_string())
}
