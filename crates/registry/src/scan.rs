//! Reads the repository and what was registered beside it: which models are there, which versions, and what their
//! folders' configuration says.
//!
//! One look, nothing remembered but the parsed configurations. Whether a version has stopped changing, is wanted or
//! serves is decided elsewhere.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_core::{ModelName, Quoted};

use crate::desired::{Orders, Stored};
use crate::files::{Fingerprint, ListError, VersionFiles};
use crate::rooted::{Folder, is_link_refusal};
use crate::{ModelConfig, ModelSet, VersionPolicy};

mod config;

pub(crate) use config::ReadConfig;

use config::Configs;

/// Where a version lies: a folder that the operator named, and a path below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) root: Arc<Path>,
    pub(crate) below: String,
    /// The one file in that folder that is meant, where it is not the whole folder.
    pub(crate) file: Option<String>,
}

impl Place {
    /// Lists the files there now.
    pub(crate) fn files(&self, limit: u64) -> Result<VersionFiles, ListError> {
        let folder = self.folder()?;
        match &self.file {
            Some(file) => VersionFiles::single(folder, file, limit),
            None => VersionFiles::list(folder, limit),
        }
    }

    /// Opens the folder.
    pub(crate) fn folder(&self) -> io::Result<Folder> {
        let root = Folder::open(&self.root)?;
        if self.below.is_empty() { Ok(root) } else { root.folder(&self.below) }
    }

    /// The folder or file, relative to the root, as an operator may see it.
    pub(crate) fn shown(&self) -> String {
        let names = [Some(self.below.as_str()).filter(|below| !below.is_empty()), self.file.as_deref()];
        names.into_iter().flatten().collect::<Vec<_>>().join("/")
    }
}

/// A version directory as it looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundVersion {
    pub(crate) place: Place,
    /// `None` where its files could not be listed; loading will say why.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// Whether it is there because it was registered, and not in its model's own folder.
    pub(crate) is_registered: bool,
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
    /// What its `model.toml` and `config.pbtxt` say; the defaults where there is none; a message where it is wrong.
    pub(crate) config: ReadConfig,
    pub(crate) versions: BTreeMap<u64, FoundVersion>,
    /// Its folder or file below the repository or a store.
    pub(crate) path: String,
    /// Whether it is there only because versions of it were registered.
    pub(crate) is_registered: bool,
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
    stores: Vec<PathBuf>,
    max_model_bytes: u64,
    configs: Configs,
}

impl Scanner {
    pub(crate) fn new(models: ModelSet, stores: Vec<PathBuf>, max_model_bytes: u64) -> Self {
        Self { models, stores, max_model_bytes, configs: Configs::default() }
    }

    /// The folders to watch.
    pub(crate) fn roots(&self) -> Vec<PathBuf> {
        match &self.models {
            ModelSet::Repository(root) => vec![root.clone()],
            ModelSet::Listed(list) => list.iter().map(|model| model.base_path.clone()).collect(),
        }
    }

    /// The folders below which models may be ordered from: the models' own, and the stores.
    pub(crate) fn allowed(&self) -> Vec<PathBuf> {
        self.roots().into_iter().chain(self.stores.iter().cloned()).collect()
    }

    /// Looks at everything that is configured or ordered.
    ///
    /// # Errors
    /// When the repository itself cannot be read: then nothing is known, in particular not that models are gone.
    pub(crate) fn scan(&mut self, orders: &Orders) -> io::Result<Scan> {
        let mut scan = Scan::default();
        match self.models.clone() {
            _ if orders.is_whole => {
                for (name, overrides) in &orders.models {
                    if let Some(base) = &overrides.base {
                        self.listed(name, base, &mut scan);
                    }
                }
            }
            ModelSet::Repository(path) => {
                let root = Folder::open(&path)?;
                let root_path: Arc<Path> = Arc::from(path.as_path());
                for name in root.names()? {
                    self.entry(&root, &root_path, name, &mut scan);
                }
            }
            ModelSet::Listed(list) => {
                for listed in list {
                    let root = Arc::from(listed.base_path.as_path());
                    self.listed(&listed.name, &Place { root, below: String::new(), file: None }, &mut scan);
                }
            }
        }
        for (name, overrides) in &orders.models {
            self.registered(name, &overrides.stored, &mut scan);
        }
        self.configs.retain(|name| scan.models.contains_key(name) || scan.unreadable.contains(name));
        Ok(scan)
    }

    /// A model whose folder is said.
    fn listed(&mut self, name: &ModelName, base: &Place, scan: &mut Scan) {
        let shown = base.root.join(&base.below).display().to_string();
        if !self.allows(base) {
            scan.warnings.push(format!("model `{name}`: {shown} lies in no place that is configured now"));
            return;
        }
        let found = Folder::open(&base.root).and_then(|root| {
            if base.below.is_empty() {
                return self.model(name, &root, &root, "", &base.root, scan);
            }
            let folder = root.folder(&base.below)?;
            self.model(name, &root, &folder, &base.below, &base.root, scan)
        });
        match found {
            Ok(model) => drop(scan.models.insert(name.clone(), model)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                scan.warnings.push(format!("model `{name}`: there is no folder {shown}"));
                let path = last_name(base);
                let (config, versions) = (Ok(Arc::default()), BTreeMap::new());
                scan.models.insert(name.clone(), FoundModel { config, versions, path, is_registered: false });
            }
            Err(error) => {
                scan.warnings.push(format!("model `{name}`: cannot read {shown}: {error}"));
                scan.unreadable.insert(name.clone());
            }
        }
    }

    /// Versions of `name` that were registered. They go before those of the same number that come to lie in its own folder
    /// later: what serves must not change its files because something else appears.
    fn registered(&mut self, name: &ModelName, stored: &BTreeMap<u64, Stored>, scan: &mut Scan) {
        for (version, one) in stored {
            if scan.unreadable.contains(name) {
                return;
            }
            let own = scan.models.get(name).and_then(|model| model.versions.get(version));
            if own.is_some_and(|own| own.place == one.place) {
                continue;
            }
            let hides_own = own.is_some();
            let shown = one.place.root.join(one.place.shown()).display().to_string();
            if !self.allows(&one.place) {
                let why = format!("{shown} lies in no place that is configured now");
                scan.warnings.push(format!("model `{name}`, version {version}, which was registered: {why}"));
                continue;
            }
            let read = one.place.files(self.max_model_bytes).map(|files| Some(files.fingerprint()));
            let fingerprint = match read {
                Ok(fingerprint) => fingerprint,
                // Loading will say what is wrong.
                Err(ListError::TooMany | ListError::TooLarge { .. }) => None,
                Err(ListError::Io(error)) if is_absent(&error) => {
                    let why = format!("there is nothing at {shown}");
                    scan.warnings.push(format!("model `{name}`, version {version}, which was registered: {why}"));
                    continue;
                }
                Err(ListError::Io(error)) => {
                    scan.warnings.push(format!("model `{name}`: cannot read {shown}: {error}"));
                    // Nothing is known to have changed about the model as a whole.
                    scan.models.remove(name);
                    scan.unreadable.insert(name.clone());
                    return;
                }
            };
            if hides_own {
                let why =
                    format!("it was registered from {shown}, which goes before the one in the model's own folder");
                scan.warnings.push(format!("model `{name}`, version {version}: {why}"));
            }
            if !scan.models.contains_key(name) {
                let config = self.registered_config(name, stored, &mut scan.warnings);
                let model =
                    FoundModel { config, versions: BTreeMap::new(), path: one.place.shown(), is_registered: true };
                scan.models.insert(name.clone(), model);
            }
            if let Some(model) = scan.models.get_mut(name) {
                let found = FoundVersion { place: one.place.clone(), fingerprint, is_registered: true };
                model.versions.insert(*version, found);
            }
        }
    }

    /// The configuration of a model of which there is nothing but registered versions: that of the highest which has one.
    fn registered_config(
        &mut self,
        name: &ModelName,
        stored: &BTreeMap<u64, Stored>,
        warnings: &mut Vec<String>,
    ) -> ReadConfig {
        let place = stored.values().rev().find_map(|one| {
            one.config.as_ref().map(|below| Place { below: below.clone(), file: None, ..one.place.clone() })
        });
        let read = place
            .map(|place| place.folder().and_then(|folder| self.configs.read(name, &folder, called(&place), warnings)));
        let read = match read {
            Some(Ok(read)) => read,
            Some(Err(error)) if !is_absent(&error) => {
                return Err(Arc::from(format!("the configuration cannot be read: {error}")));
            }
            Some(Err(_)) | None => Ok(Arc::default()),
        };
        // What was registered is wanted, whatever its folder says about versions that are not here.
        read.map(|config| Arc::new(ModelConfig { versions: Some(VersionPolicy::All), ..(*config).clone() }))
    }

    /// Whether `place` lies where models may come from now.
    fn allows(&self, place: &Place) -> bool {
        self.allowed().iter().any(|root| **root == *place.root)
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
                if Path::new(&name).extension().is_some_and(|extension| extension == "onnx" || extension == "ubj") {
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
        let base = Place { root: Arc::clone(root_path), below: below.to_owned(), file: None };
        let config = self.configs.read(name, folder, called(&base), &mut scan.warnings)?;
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
            let place = Place { root: Arc::clone(root_path), below: path, file: None };
            spelled.insert(number, entry);
            versions.insert(number, FoundVersion { place, fingerprint, is_registered: false });
        }
        // A pipeline is all in its model.toml and needs no folder for its one version. Where the file is broken, this is
        // the version that failed.
        if versions.is_empty() && config.as_ref().map_or(true, |config| config.pipeline.is_some()) {
            versions.insert(1, FoundVersion { place: base.clone(), fingerprint: None, is_registered: false });
        }
        Ok(FoundModel { config, versions, path: last_name(&base), is_registered: false })
    }
}

/// The name of a model's folder.
fn called(base: &Place) -> &str {
    let name = if base.below.is_empty() { base.root.file_name() } else { Path::new(&base.below).file_name() };
    name.and_then(|name| name.to_str()).unwrap_or_default()
}

/// How a model's folder is called where its root is its own: paths of the machine are nobody's business.
fn last_name(base: &Place) -> String {
    if !base.below.is_empty() {
        return base.below.clone();
    }
    base.root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) || is_link_refusal(error)
}

/// The number that a directory's name means; leading zeros are allowed, as TensorFlow Serving allows them.
pub(crate) fn version_number(name: &str) -> Option<u64> {
    let digits = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    // The wire has signed 64-bit versions; a larger one could be loaded but never asked for.
    digits.then(|| name.parse::<i64>().ok()).flatten().and_then(|number| u64::try_from(number).ok())
}

#[cfg(test)]
mod tests;
