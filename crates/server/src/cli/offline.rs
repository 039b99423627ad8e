//! One model without a registry and without a server: found on disk, loaded, and asked directly.
//!
//! For `inspect` and `predict`. Text models take text here too: nobody else waits, so that it is cut into tokens on the spot.
//! What the registry guards against (files that change under it, links out of the
//! repository) does not apply: the operator has named this very file. What a `model.toml` can make of a folder is in
//! `together`.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use millrace_batching::{BatchConfig, BatchQueue, ComputePool, PoolConfig};
use millrace_core::{
    Catalog, InferFuture, InferRequest, Model, ModelFiles, ModelName, ModelRef, ModelSource, ModelStatus, Reason,
    Refusal, RequestContext, Resolver, Servable, Signatures, TextProcessor, VersionState, VersionStatus, Wanted,
    own_options,
};

use super::{Failure, together};
use crate::config::resolve::DEFAULT_REPOSITORY;
use crate::log::error_chain;
use crate::parts::{Choosing, built_in};

/// A model that was loaded for one command.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) name: ModelName,
    pub(super) version: u64,
    pub(super) backend: String,
    /// Bytes of its files.
    pub(super) files: u64,
    pub(super) model: Arc<dyn Model>,
    /// What callers give and get.
    pub(super) signatures: Signatures,
    /// What turns text into tokens, where they give text.
    pub(super) text: Option<Arc<dyn TextProcessor>>,
}

/// The path that the operator means: as it is written, or a name in ./models.
pub(super) fn meant(path: &Path) -> PathBuf {
    let in_repository = Path::new(DEFAULT_REPOSITORY).join(path);
    let is_name = !path.exists() && path.components().count() == 1 && in_repository.exists();
    if is_name { in_repository } else { path.to_owned() }
}

/// Finds and loads what `path` means, with the engine that its `model.toml` names or else is chosen.
pub(super) fn load(path: &Path, choosing: &Choosing) -> Result<Loaded, Failure> {
    load_with(path, choosing, None)
}

/// The same, where `backend` goes before everything.
pub(super) fn load_with(path: &Path, choosing: &Choosing, backend: Option<&str>) -> Result<Loaded, Failure> {
    let config = together::config(path)?;
    let source = ModelSource { options: config.options.clone(), ..find(path)? };
    let parts = built_in(choosing.clone());
    let mut backends = parts.backends.clone();
    if backends.is_empty() {
        return Err(Failure::failed(crate::StartError::NoBackend));
    }
    let mut own = source.clone();
    if let Some(wanted) = backend.or(config.backend.as_deref()) {
        let names: Vec<&str> = backends.iter().map(|backend| backend.name()).collect();
        let text = format!("there is no backend `{}`; expected one of {}", wanted.escape_debug(), names.join(", "));
        // Whoever chooses among engines hands each its own.
        if wanted != "auto" {
            own.options = own_options(&source.options, wanted, &names);
        }
        backends.retain(|backend| backend.name() == wanted);
        if backends.is_empty() {
            return Err(Failure::misused(text));
        }
    }
    let backend = backends.iter().find(|backend| backend.recognises(&source)).ok_or_else(|| {
        let files: Vec<&str> = source.files.list().iter().map(|(name, _)| name.as_str()).collect();
        let names: Vec<&str> = backends.iter().map(|backend| backend.name()).collect();
        let (files, names) = (files.join(", "), names.join(", "));
        Failure::failed(format!(
            "{}: no engine recognises these files: {files} (engines here: {names})",
            path.display()
        ))
    })?;
    let model = backend.load(&own).map_err(|error| Failure::failed(error_chain(&error)))?;
    let backend = model.facts().choice.map_or_else(|| backend.name().to_owned(), |choice| choice.names());
    let files = source.files.list().iter().map(|(_, size)| *size).sum();
    let (signatures, text) =
        parts.signatures(&source, &*model, &config).map_err(|error| Failure::failed(error_chain(&error)))?;
    Ok(Loaded { files, name: source.model, version: source.version, backend, model, signatures, text })
}

/// A model file, a version's folder, a model's folder, or a name in ./models.
fn find(path: &Path) -> Result<ModelSource, Failure> {
    let path = meant(path);
    let read = |error: io::Error| Failure::misused(format!("cannot read {}: {error}", path.display()));
    // Names come from folders, also for `.` and `models/fraud/`.
    let path = fs::canonicalize(&path).map_err(read)?;
    let named = |path: Option<&Path>| {
        let text = path.and_then(Path::file_stem).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        text.parse::<ModelName>().or_else(|_| "model".parse()).map_err(Failure::failed)
    };
    if path.is_file() {
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let files = Files::of(folder, path.file_name().map(Path::new)).map_err(read)?;
        return Ok(ModelSource::new(named(Some(&path))?, 1, Arc::new(files)));
    }
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u64>().ok();
    let mut versions: Vec<(u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(&path).map_err(read)? {
        let child = entry.map_err(read)?.path();
        if let Some(version) = number(&child).filter(|_| child.is_dir()) {
            versions.push((version, child));
        }
    }
    match versions.into_iter().max() {
        Some((version, folder)) => {
            let files = Files::of(folder, None).map_err(read)?;
            Ok(ModelSource::new(named(Some(&path))?, version, Arc::new(files)))
        }
        None => {
            let files = Files::of(path.clone(), None).map_err(read)?;
            let name = if number(&path).is_some() { named(path.parent())? } else { named(Some(&path))? };
            Ok(ModelSource::new(name, number(&path).unwrap_or(1), Arc::new(files)))
        }
    }
}

/// How the names of models end, and of those of trees, whose endings other files have too.
const MODELS: [&str; 4] = ["onnx", "safetensors", "gguf", "ubj"];
const TREES: [&str; 5] = ["model.json", "model.txt", "xgboost.json", "lightgbm.txt", "lightgbm.json"];

/// The regular files in a folder and in the folders in it, but for hidden ones.
#[derive(Debug)]
struct Files {
    folder: PathBuf,
    list: Vec<(String, u64)>,
}

impl Files {
    /// All of `folder`, or, of its models, only the file `only` beside whatever it may refer to.
    fn of(folder: PathBuf, only: Option<&Path>) -> io::Result<Self> {
        let is_model = |path: &Path| {
            let extension = path.extension().and_then(OsStr::to_str);
            let is_tree = path.to_str().is_some_and(|name| TREES.contains(&name));
            is_tree || extension.is_some_and(|ending| MODELS.contains(&ending))
        };
        // Weights may be in several files of one kind.
        let is_part = |path: &Path, only: &Path| {
            path.extension() == only.extension() && only.extension() == Some(OsStr::new("safetensors"))
        };
        let mut list = Vec::new();
        for (name, metadata) in children(&folder)? {
            if metadata.is_dir() {
                let inner = children(&folder.join(&name))?.into_iter().filter(|(_, metadata)| metadata.is_file());
                list.extend(inner.map(|(inner, metadata)| (format!("{name}/{inner}"), metadata.len())));
            } else if metadata.is_file() {
                let path = Path::new(&name);
                if only.is_none_or(|only| path == only || !is_model(path) || is_part(path, only)) {
                    list.push((name, metadata.len()));
                }
            }
        }
        list.sort();
        Ok(Self { folder, list })
    }
}

/// What lies in `folder`, but for what is hidden or has a name that is not UTF-8.
fn children(folder: &Path) -> io::Result<Vec<(String, fs::Metadata)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !name.starts_with('.') {
            // Through links: what is downloaded is often kept elsewhere.
            found.push((name, fs::metadata(entry.path())?));
        }
    }
    Ok(found)
}

impl ModelFiles for Files {
    fn list(&self) -> &[(String, u64)] {
        &self.list
    }

    fn read(&self, name: &str) -> io::Result<Bytes> {
        if self.list.iter().any(|(known, _)| known == name) {
            fs::read(self.folder.join(name)).map(Bytes::from)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }
}

/// The one model, behind its queue, for a front-end.
#[derive(Debug)]
pub(super) struct OneModel {
    name: ModelName,
    version: u64,
    backend: Arc<str>,
    signatures: Arc<Signatures>,
    text: Option<Arc<dyn TextProcessor>>,
    queue: BatchQueue,
}

impl OneModel {
    /// Puts `loaded` behind a queue of `pool`.
    pub(super) fn new(loaded: Loaded, pool: &ComputePool) -> Result<Arc<Self>, Failure> {
        let Loaded { name, version, backend, model, signatures, text, files: _ } = loaded;
        let queue = BatchQueue::new(model, name.clone(), version, BatchConfig::default(), pool)
            .map_err(|error| Failure::failed(error_chain(&error)))?;
        let signatures = Arc::new(signatures);
        Ok(Arc::new(Self { name, version, backend: Arc::from(backend), signatures, text, queue }))
    }
}

/// A pool for one request.
pub(super) fn pool() -> ComputePool {
    ComputePool::new(PoolConfig::default())
}

impl Servable for OneModel {
    fn model(&self) -> &ModelName {
        &self.name
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signatures(&self) -> &Signatures {
        &self.signatures
    }

    fn infer(&self, request: InferRequest) -> InferFuture {
        let Some(text) = self.text.as_ref().filter(|_| request.signature == 0) else {
            return self.queue.infer(InferRequest { signature: 0, ..request });
        };
        let fits = self.signatures.get(0).map_or(Ok(()), |given| given.check(&request.inputs).map(|_| ()));
        match fits.and_then(|()| text.process(&request.inputs)) {
            Ok(inputs) => {
                let chosen = text.outputs();
                // One that there is not stays one that there is not, which the queue refuses.
                let inner = |index: &usize| chosen.get(*index).copied().unwrap_or(usize::MAX);
                let wanted = match request.wanted {
                    Wanted::All => chosen.into(),
                    Wanted::Only(own) => own.iter().map(inner).collect(),
                };
                self.queue.infer(InferRequest { inputs, wanted: Wanted::Only(wanted), ..request })
            }
            Err(error) => InferFuture::refused(error.refusal(&self.name)),
        }
    }

    fn text(&self) -> Option<Arc<dyn TextProcessor>> {
        self.text.clone()
    }
}

/// [`OneModel`] as the whole catalogue.
#[derive(Debug)]
pub(super) struct Only(pub(super) Arc<OneModel>);

impl Resolver for Only {
    fn resolve(&self, model: &ModelRef<'_>, _context: &RequestContext) -> Result<Arc<dyn Servable>, Refusal> {
        if model.name == self.0.name.as_str() {
            Ok(Arc::clone(&self.0) as Arc<dyn Servable>)
        } else {
            Err(Refusal::new(Reason::ModelUnknown, "there is one model here"))
        }
    }
}

impl Catalog for Only {
    fn models(&self) -> Vec<ModelStatus> {
        let one = &self.0;
        let version = VersionStatus {
            backend: Some(Arc::clone(&one.backend)),
            signatures: Some(Arc::clone(&one.signatures)),
            ..VersionStatus::new(one.version, VersionState::Available)
        };
        vec![ModelStatus {
            versions: vec![version],
            default_version: Some(one.version),
            ..ModelStatus::new(one.name.clone())
        }]
    }

    fn model(&self, name: &str) -> Option<ModelStatus> {
        self.models().into_iter().find(|model| model.name.as_str() == name)
    }

    fn is_ready(&self) -> bool {
        true
    }
}
