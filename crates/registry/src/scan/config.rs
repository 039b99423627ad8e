//! The configuration in a model's folder: `config.pbtxt`, and over it `model.toml`. Files that look as they did are not
//! read again.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use millrace_core::ModelName;

use crate::files::read_whole;
use crate::rooted::{Folder, is_link_refusal};
use crate::{ModelConfig, triton};

/// The name of a model's own configuration.
const OWN: &str = "model.toml";
/// The most bytes that either file may have.
const LARGEST: u64 = 1 << 20;

/// What the files say, or what is wrong with one of them.
pub(crate) type ReadConfig = Result<Arc<ModelConfig>, Arc<str>>;

/// Size, modification and change time of a file.
type Stamp = (u64, i64, i64, i64, i64);

/// What was read of every model.
#[derive(Debug, Default)]
pub(super) struct Configs(HashMap<ModelName, Known>);

#[derive(Debug)]
struct Known {
    stamps: [Option<Stamp>; 2],
    config: ReadConfig,
    /// What of the files is not heeded.
    warnings: Vec<String>,
}

/// One file as it was opened; a text says why it cannot be used.
type Opened = Option<Result<(File, Metadata), String>>;

impl Configs {
    /// Reads what stands in `folder`, which is called `called`, about the model `name`. What is not heeded is added to
    /// `warnings`.
    pub(super) fn read(
        &mut self,
        name: &ModelName,
        folder: &Folder,
        called: &str,
        warnings: &mut Vec<String>,
    ) -> io::Result<ReadConfig> {
        let files = [open(folder, triton::FILE)?, open(folder, OWN)?];
        let stamps = [stamp(files[0].as_ref()), stamp(files[1].as_ref())];
        let is_known = self.0.get(name).is_some_and(|known| known.stamps == stamps);
        if !is_known {
            let (config, warnings) = match parse(name, called, files)? {
                Ok((config, warnings)) => (Ok(Arc::new(config)), warnings),
                Err(message) => (Err(Arc::from(message)), Vec::new()),
            };
            self.0.insert(name.clone(), Known { stamps, config, warnings });
        }
        let Some(known) = self.0.get(name) else { return Ok(Ok(Arc::default())) };
        warnings.extend(known.warnings.iter().map(|warning| format!("model `{name}`: {warning}")));
        Ok(known.config.clone())
    }

    /// Forgets every model for which `is_there` does not hold.
    pub(super) fn retain(&mut self, is_there: impl Fn(&ModelName) -> bool) {
        self.0.retain(|name, _| is_there(name));
    }
}

/// Opens the file `name`, if it is there.
fn open(folder: &Folder, name: &str) -> io::Result<Opened> {
    match folder.file(name) {
        Ok((file, metadata)) if metadata.len() <= LARGEST => Ok(Some(Ok((file, metadata)))),
        Ok((_, metadata)) => Ok(Some(Err(format!("{name} has {} bytes; the limit is {LARGEST}", metadata.len())))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if is_link_refusal(&error) => {
            Ok(Some(Err(format!("{name} is a link that leads out of the model's folder"))))
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(Some(Err(format!("{name} is not a file")))),
        Err(error) => Err(error),
    }
}

/// What identifies a usable file without reading it. One that cannot be used has none and is looked at each time.
fn stamp(file: Option<&Result<(File, Metadata), String>>) -> Option<Stamp> {
    let (_, metadata) = file?.as_ref().ok()?;
    Some((metadata.len(), metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()))
}

/// What both files say together, and what of them is not heeded. `Err` is what is wrong with one.
fn parse(name: &ModelName, called: &str, files: [Opened; 2]) -> io::Result<Result<(ModelConfig, Vec<String>), String>> {
    let [pbtxt, own] = files;
    let (mut config, mut warnings) = (ModelConfig::default(), Vec::new());
    if let Some(file) = pbtxt {
        let text = match text(file, triton::FILE)? {
            Ok(text) => text,
            Err(message) => return Ok(Err(message)),
        };
        match triton::read(&text, &[name.as_str(), called]) {
            Ok(read) => (config, warnings) = read,
            Err(error) => return Ok(Err(error.to_string())),
        }
    }
    if let Some(file) = own {
        let text = match text(file, OWN)? {
            Ok(text) => text,
            Err(message) => return Ok(Err(message)),
        };
        match ModelConfig::parse_over(config, &text) {
            Ok(read) => config = read,
            Err(error) => return Ok(Err(error.to_string())),
        }
    }
    Ok(Ok((config, warnings)))
}

fn text(file: Result<(File, Metadata), String>, name: &str) -> io::Result<Result<String, String>> {
    let (file, metadata) = match file {
        Ok(opened) => opened,
        Err(message) => return Ok(Err(message)),
    };
    let bytes = read_whole(file, metadata.len())?;
    Ok(String::from_utf8(bytes).map_err(|error| format!("{name} is not UTF-8: {}", error.utf8_error())))
}
