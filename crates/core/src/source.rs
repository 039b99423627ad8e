//! The files of one version, handed to a backend. A backend opens nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::{ModelName, Signature, TensorList};

/// The files of one version directory, by name relative to it, with `/` between folders.
///
/// Names that lead elsewhere (`../x`, absolute ones, links out) are simply not there.
pub trait ModelFiles: fmt::Debug + Send + Sync {
    /// Names and sizes in bytes, sorted by name.
    fn list(&self) -> &[(String, u64)];

    /// The whole content of the file `name`.
    ///
    /// # Errors
    /// `NotFound` for a name that is not in the list; else what reading gave.
    fn read(&self, name: &str) -> io::Result<Bytes>;
}

/// What a backend loads from.
#[derive(Debug, Clone)]
pub struct ModelSource {
    /// The model's name.
    pub model: ModelName,
    /// The version.
    pub version: u64,
    /// The version's files.
    pub files: Arc<dyn ModelFiles>,
    /// The most bytes that loading may take.
    pub memory_budget: u64,
    /// The engine's own options from `model.toml`.
    pub options: BTreeMap<String, String>,
    /// Requests that an operator recorded, for engines that try the model at load; `None` lets them invent some.
    pub samples: Option<Arc<dyn Samples>>,
}

/// Recorded requests, made into tensors once a signature is known.
pub trait Samples: fmt::Debug + Send + Sync {
    /// The inputs of each request in the order of `signature`; those that do not fit it are left out.
    fn inputs(&self, signature: &Signature) -> Vec<TensorList>;
}

impl ModelSource {
    /// A source without a budget, options and samples.
    pub fn new(model: ModelName, version: u64, files: Arc<dyn ModelFiles>) -> Self {
        Self { model, version, files, memory_budget: u64::MAX, options: BTreeMap::new(), samples: None }
    }
}

/// Files held in memory: for embedders and tests.
#[derive(Debug, Default)]
pub struct MemoryFiles {
    list: Vec<(String, u64)>,
    contents: BTreeMap<String, Bytes>,
}

impl MemoryFiles {
    /// Adds or replaces a file.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, content: impl Into<Bytes>) -> Self {
        self.contents.insert(name.into(), content.into());
        self.list = self.contents.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect();
        self
    }
}

impl ModelFiles for MemoryFiles {
    fn list(&self) -> &[(String, u64)] {
        &self.list
    }

    fn read(&self, name: &str) -> io::Result<Bytes> {
        self.contents.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
