//! Reads the repository: which models are there, which versions, and what stands in each `model.toml`.
//!
//! One look, nothing remembered but the parsed `model.toml`s. Whether a version has stopped changing, is wanted or
//! serves is decided elsewhere.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_core::{ModelName, Quoted};

use crate::files::{Fingerprint, ListError, VersionFiles, read_whole};
use crate::rooted::{Folder, is_link_refusal};
use crate::{ModelConfig, ModelSet};

/// The name of a model's own configuration.
const CONFIG: &str = "model.toml";
/// The most bytes a `model.toml` may have.
const LARGEST_CONFIG: u64 = 1 << 20;

/// Where a version lies: a folder that the operator named, and a path below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) root: Arc<Path>,
    pub(crate) below: String,
}

impl Place {
    /// Lists the files there now.
    pub(crate) fn files(&self, limit: u64) -> Result<VersionFiles, ListError> {
        let folder = Folder::open(&self.root)?.folder(&self.below)?;
        VersionFiles::list(folder, limit)
    }
}

/// A version directory as it looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundVersion {
    pub(crate) place: Place,
    /// `None` where its files could not be listed; loading will say why.
    pub(crate) fingerprint: Option<Fingerprint>,
}

impl FoundVersion {
    /// Names, sizes and modification times of the files.
    pub(crate) fn contents(&self) -> Option<u64> {
        self.fingerprint.map(|fingerprint| fingerprint.contents)
    }
}

/// A model's folder as it looked.
#[derive(Debug, Clone)]
pub(crate) struct FoundModel {
    /// What its `model.toml` says; the defaults where there is none; a message where it is wrong.
    pub(crate) config: ReadConfig,
    pub(crate) versions: BTreeMap<u64, FoundVersion>,
}

/// One look at everything.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) models: BTreeMap<ModelName, FoundModel>,
    /// Models that are there but could not be read this time: nothing is known to have changed about them.
    pub(crate) unreadable: HashSet<ModelName>,
    /// What an operator should know, one line each, naming paths.
    pub(crate) warnings: Vec<String>,
}

/// Reads the repository again and again.
#[derive(Debug)]
pub(crate) struct Scanner {
    models: ModelSet,
    max_model_bytes: u64,
    configs: HashMap<ModelName, (Stamp, ReadConfig)>,
}

/// What a `model.toml` says, or what is wrong with it.
type ReadConfig = Result<Arc<ModelConfig>, Arc<str>>;

/// Size, modification and change time of a `model.toml`: the same stamp is not parsed again.
type Stamp = (u64, i64, i64, i64, i64);

impl Scanner {
    pub(crate) fn new(models: ModelSet, max_model_bytes: u64) -> Self {
        Self { models, max_model_bytes, configs: HashMap::new() }
    }

    /// The folders to watch.
    pub(crate) fn roots(&self) -> Vec<PathBuf> {
        match &self.models {
            ModelSet::Repository(root) => vec![root.clone()],
            ModelSet::Listed(list) => list.iter().map(|model| model.base_path.clone()).collect(),
        }
    }

    /// Looks at everything.
    ///
    /// # Errors
    /// When the repository itself cannot be read: then nothing is known, in particular not that models are gone.
    pub(crate) fn scan(&mut self) -> io::Result<Scan> {
        let mut scan = Scan::default();
        match self.models.clone() {
            ModelSet::Repository(path) => {
                let root = Folder::open(&path)?;
                let root_path: Arc<Path> = Arc::from(path.as_path());
                for name in root.names()? {
                    self.entry(&root, &root_path, name, &mut scan);
                }
            }
            ModelSet::Listed(list) => {
                for listed in list {
                    let root_path: Arc<Path> = Arc::from(listed.base_path.as_path());
                    let found = Folder::open(&listed.base_path)
                        .and_then(|folder| self.model(&listed.name, &folder, &folder, "", &root_path, &mut scan));
                    let model = match found {
                        Ok(model) => model,
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {
                            let path = listed.base_path.display();
                            scan.warnings.push(format!("model `{}`: there is no folder {path}", listed.name));
                            FoundModel { config: Ok(Arc::default()), versions: BTreeMap::new() }
                        }
                        Err(error) => {
                            let path = listed.base_path.display();
                            scan.warnings.push(format!("model `{}`: cannot read {path}: {error}", listed.name));
                            scan.unreadable.insert(listed.name);
                            continue;
                        }
                    };
                    scan.models.insert(listed.name, model);
                }
            }
        }
        self.configs.retain(|name, _| scan.models.contains_key(name) || scan.unreadable.contains(name));
        Ok(scan)
    }

    /// One entry of the repository's own folder.
    fn entry(&mut self, root: &Folder, root_path: &Arc<Path>, name: Result<String, String>, scan: &mut Scan) {
        let shown = |name: &str| root_path.join(name).display().to_string();
        let name = match name {
            Ok(name) => name,
            Err(escaped) => {
                scan.warnings.push(format!("{}: ignored: the name is not UTF-8", Quoted(&escaped)));
                return;
            }
        };
        let folder = match root.metadata(&name) {
            Ok(metadata) if !metadata.is_dir() => {
                if Path::new(&name).extension().is_some_and(|extension| extension == "onnx") {
                    let hint = "a model needs a folder per version, such as NAME/1/model.onnx";
                    scan.warnings.push(format!("{}: ignored: {hint}", Quoted(&shown(&name))));
                }
                return;
            }
            Ok(_) => root.folder(&name),
            Err(error) => Err(error),
        };
        let model: ModelName = match name.parse() {
            Ok(model) => model,
            Err(error) => {
                scan.warnings.push(format!("{}: ignored: {error}", Quoted(&shown(&name))));
                return;
            }
        };
        let found = folder.and_then(|folder| self.model(&model, root, &folder, &name, root_path, scan));
        match found {
            Ok(found)
                if found.versions.is_empty()
                    && matches!(&found.config, Ok(config) if **config == ModelConfig::default()) =>
            {
                let hint = "no version in it; a version is a folder with a number for its name, such as 1";
                scan.warnings.push(format!("{}: ignored: {hint}", Quoted(&shown(&name))));
            }
            Ok(found) => drop(scan.models.insert(model, found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if is_link_refusal(&error) => {
                let rule = "the link leads out of the repository or in a circle";
                scan.warnings.push(format!("{}: ignored: {rule}", Quoted(&shown(&name))));
            }
            Err(error) => {
                scan.warnings.push(format!("{}: cannot be read: {error}", Quoted(&shown(&name))));
                scan.unreadable.insert(model);
            }
        }
    }

    /// One model's folder, which lies at `below` under `root`.
    fn model(
        &mut self,
        name: &ModelName,
        root: &Folder,
        folder: &Folder,
        below: &str,
        root_path: &Arc<Path>,
        scan: &mut Scan,
    ) -> io::Result<FoundModel> {
        let config = self.config(name, folder)?;
        let mut versions = BTreeMap::new();
        // Canonical spellings are kept whatever the order in which others come.
        let mut spelled: BTreeMap<u64, String> = BTreeMap::new();
        for entry in folder.names()?.into_iter().flatten() {
            let path = if below.is_empty() { entry.clone() } else { format!("{below}/{entry}") };
            let shown = root_path.join(&path).display().to_string();
            let warning = |why: &str| format!("{}: ignored: {why}", Quoted(&shown));
            let Some(number) = version_number(&entry) else {
                if entry.trim_start_matches('-').starts_with(|first: char| first.is_ascii_digit()) {
                    scan.warnings.push(warning("a version is a whole number from 0 to 9223372036854775807"));
                }
                continue;
            };
            let version = match root.folder(&path) {
                Ok(version) => version,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                    scan.warnings.push(warning("a version is a folder"));
                    continue;
                }
                Err(error) if is_link_refusal(&error) => {
                    scan.warnings.push(warning("the link leads out of the repository or in a circle"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            if version.is(folder)? || version.is(root)? {
                scan.warnings.push(warning("the link leads out of the repository or in a circle"));
                continue;
            }
            if let Some(other) = spelled.get(&number) {
                let canonical = entry == number.to_string();
                let (kept, left) = if canonical { (&entry, other) } else { (other, &entry) };
                scan.warnings.push(format!(
                    "model `{name}`: {} and {} are both version {number}; the first is used",
                    Quoted(kept),
                    Quoted(left)
                ));
                if !canonical {
                    continue;
                }
            }
            let fingerprint = VersionFiles::list(version, self.max_model_bytes).ok().map(|files| files.fingerprint());
            let place = Place { root: Arc::clone(root_path), below: path };
            spelled.insert(number, entry);
            versions.insert(number, FoundVersion { place, fingerprint });
        }
        Ok(FoundModel { config, versions })
    }

    fn config(&mut self, name: &ModelName, folder: &Folder) -> io::Result<ReadConfig> {
        let wrong = |message: String| Err(Arc::<str>::from(message));
        let (file, metadata) = match folder.file(CONFIG) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.configs.remove(name);
                return Ok(Ok(Arc::default()));
            }
            Err(error) if is_link_refusal(&error) => {
                return Ok(wrong("model.toml is a link that leads out of the model's folder".to_owned()));
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Ok(wrong("model.toml is not a file".to_owned()));
            }
            Err(error) => return Err(error),
        };
        let stamp = (metadata.len(), metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec());
        if let Some((known, config)) = self.configs.get(name)
            && *known == stamp
        {
            return Ok(config.clone());
        }
        let config = if metadata.len() > LARGEST_CONFIG {
            wrong(format!("model.toml has {} bytes; the limit is {LARGEST_CONFIG}", metadata.len()))
        } else {
            let bytes = read_whole(file, metadata.len())?;
            match std::str::from_utf8(&bytes) {
                Ok(text) => match ModelConfig::parse(text) {
                    Ok(config) => Ok(Arc::new(config)),
                    Err(error) => wrong(error.to_string()),
                },
                Err(error) => wrong(format!("model.toml is not UTF-8: {error}")),
            }
        };
        self.configs.insert(name.clone(), (stamp, config.clone()));
        Ok(config)
    }
}

/// The number that a directory's name means; leading zeros are allowed, as TensorFlow Serving allows them.
fn version_number(name: &str) -> Option<u64> {
    let digits = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    // The wire has signed 64-bit versions; a larger one could be loaded but never asked for.
    digits.then(|| name.parse::<i64>().ok()).flatten().and_then(|number| u64::try_from(number).ok())
}

#[cfg(test)]
mod tests;
