//! A repository in a temporary folder with a registry over it, so that tests read like sentences.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_batching::{ComputePool, PoolConfig};
use millrace_core::{
    Alias, Backend, Catalog, Control, InferRequest, ModelName, ModelRef, Reason, Refusal, Registration, RequestContext,
    Resolver, Servable, Tensor, VersionState, VersionStatus, WantedModel,
};
use millrace_registry::{Parts, Registry, RegistryConfig};
use millrace_testkit::{FakeAdapterFactory, FakeBackend, FakePipelineFactory};
use pollster::block_on;
use tempfile::TempDir;

pub(crate) struct Repository {
    folder: TempDir,
    state: TempDir,
}

impl Repository {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), state: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("models")
    }

    pub(crate) fn state(&self) -> &Path {
        self.state.path()
    }

    /// Version `version` of `model`, which multiplies by `version`. It appears all at once.
    pub(crate) fn version(&self, model: &str, version: u64) -> &Self {
        self.version_with(model, version, &FakeBackend::file(as_f32(version), 0.0))
    }

    /// The same with this text as its file.
    pub(crate) fn version_with(&self, model: &str, version: u64, text: &str) -> &Self {
        self.file(&format!("{model}/{version}/model.fake"), text)
    }

    /// A file with this text, which replaces an older one as a whole.
    pub(crate) fn file(&self, name: &str, text: &str) -> &Self {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let new = self.folder.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, path).unwrap();
        self
    }

    /// A file with this text in the folder `store`, which is no repository.
    pub(crate) fn stored(&self, name: &str, text: &str) -> &Self {
        self.file(&format!("../store/{name}"), text)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    pub(crate) fn remove(&self, name: &str) -> &Self {
        fs::remove_dir_all(self.path().join(name)).unwrap();
        self
    }

    /// No watching, no polling, no pauses: only what the test orders happens.
    pub(crate) fn config(&self) -> RegistryConfig {
        fs::create_dir_all(self.path()).unwrap();
        let mut config = RegistryConfig::repository(self.path());
        config.watch = false;
        config.quiet_period = Duration::ZERO;
        config
    }

    /// The same with a store and a state directory.
    pub(crate) fn with_store(&self) -> RegistryConfig {
        fs::create_dir_all(self.store()).unwrap();
        RegistryConfig { stores: vec![self.store()], state_dir: Some(self.state().to_owned()), ..self.config() }
    }

    pub(crate) fn start(&self) -> Served {
        start(self.config(), FakeBackend::default())
    }
}

/// Starts and waits until the first look has settled.
pub(crate) fn start(config: RegistryConfig, backend: impl Backend) -> Served {
    let served = begin(config, backend);
    block_on(served.0.settled());
    assert!(served.0.is_ready());
    served
}

/// Starts and does not wait.
pub(crate) fn begin(config: RegistryConfig, backend: impl Backend) -> Served {
    begin_on(PoolConfig::default(), config, backend)
}

/// The same on a pool of one's own.
pub(crate) fn begin_on(pool: PoolConfig, config: RegistryConfig, backend: impl Backend) -> Served {
    let pool = ComputePool::new(pool);
    Served(Registry::start(config, vec![Arc::new(backend)], pool).unwrap())
}

/// The same with a pipeline and an input of the testkit.
pub(crate) fn begin_with(
    config: RegistryConfig,
    backend: FakeBackend,
    pipeline: FakePipelineFactory,
    adapter: FakeAdapterFactory,
) -> Served {
    let parts = Parts {
        backends: vec![Arc::new(backend)],
        pipelines: vec![Arc::new(pipeline)],
        adapters: vec![Arc::new(adapter)],
        text: None,
    };
    Served(Registry::start(config, parts, ComputePool::new(PoolConfig::default())).unwrap())
}

/// Starts with all of them and waits until the first look has settled.
pub(crate) fn start_all(config: RegistryConfig) -> Served {
    let served =
        begin_with(config, FakeBackend::default(), FakePipelineFactory::default(), FakeAdapterFactory::default());
    block_on(served.0.settled());
    assert!(served.0.is_ready());
    served
}

fn as_f32(version: u64) -> f32 {
    f32::from(u16::try_from(version).unwrap())
}

pub(crate) fn name(model: &str) -> ModelName {
    model.parse().unwrap()
}

pub(crate) fn alias(alias: &str) -> Alias {
    alias.parse().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "requests carry when they were received")]
pub(crate) fn context() -> RequestContext {
    RequestContext::new(Instant::now())
}

/// Asks a leased version for `y` of `x`.
pub(crate) fn ask(servable: &Arc<dyn Servable>, x: f32) -> Result<f32, Refusal> {
    let input = Tensor::from_vec(&[1], vec![x]).unwrap();
    let response = block_on(servable.infer(InferRequest::new([input].to_vec(), context())))?;
    Ok(response.outputs[0].elements::<f32>().unwrap()[0])
}

pub(crate) struct Served(pub(crate) Registry);

impl Served {
    pub(crate) fn resolve(&self, model: &ModelRef<'_>) -> Result<Arc<dyn Servable>, Refusal> {
        self.0.resolve(model, &context())
    }

    /// Waits until `done`, giving the registry its turn in between: each round waits for an answer of its thread.
    pub(crate) fn until(&self, what: &str, done: impl Fn() -> bool) {
        let begun = context().received;
        while !done() {
            assert!(context().received - begun < Duration::from_secs(60), "{what} did not happen within a minute");
            assert_eq!(self.remove_alias("nobody", "nothing"), Err(Reason::ModelUnknown));
            std::thread::yield_now();
        }
    }

    /// Which version answers, and that it answers as itself.
    pub(crate) fn answers(&self, model: &ModelRef<'_>) -> Result<u64, Reason> {
        let servable = self.resolve(model).map_err(|refusal| refusal.reason())?;
        let version = servable.version();
        let answer = ask(&servable, 10.0).map_err(|refusal| refusal.reason())?;
        assert_eq!(answer.to_bits(), (10.0 * as_f32(version)).to_bits(), "version {version} answers as another");
        Ok(version)
    }

    pub(crate) fn default_of(&self, model: &str) -> Result<u64, Reason> {
        self.answers(&ModelRef::new(model))
    }

    pub(crate) fn version_of(&self, model: &str, version: u64) -> Result<u64, Reason> {
        self.answers(&ModelRef::with_version(model, version))
    }

    pub(crate) fn label_of(&self, model: &str, label: &str) -> Result<u64, Reason> {
        self.answers(&ModelRef::with_label(model, label))
    }

    pub(crate) fn rescan(&self) {
        block_on(self.0.rescan()).unwrap();
    }

    pub(crate) fn load(&self, model: &str, version: impl Into<Option<u64>>) -> Result<(), Reason> {
        block_on(self.0.load(&name(model), version.into())).map_err(|refusal| refusal.reason())
    }

    pub(crate) fn unload(&self, model: &str, version: impl Into<Option<u64>>) -> Result<(), Reason> {
        block_on(self.0.unload(&name(model), version.into())).map_err(|refusal| refusal.reason())
    }

    pub(crate) fn scale(&self, model: &str, version: impl Into<Option<u64>>, executors: usize) -> Result<(), Reason> {
        block_on(self.0.scale(&name(model), version.into(), executors)).map_err(|refusal| refusal.reason())
    }

    pub(crate) fn register(&self, registration: Registration) -> Result<(String, u64), Reason> {
        let registered = block_on(self.0.register(registration)).map_err(|refusal| refusal.reason())?;
        Ok((registered.model.to_string(), registered.version))
    }

    pub(crate) fn unregister(&self, model: &str, version: impl Into<Option<u64>>) -> Result<(), Reason> {
        block_on(self.0.unregister(&name(model), version.into())).map_err(|refusal| refusal.reason())
    }

    pub(crate) fn replace(&self, models: impl Into<Vec<WantedModel>>) -> Result<(), Reason> {
        block_on(self.0.replace(models.into())).map_err(|refusal| refusal.reason())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.0.models().into_iter().map(|model| model.name.to_string()).collect()
    }

    pub(crate) fn overrides(&self, model: &str) -> Vec<String> {
        self.0.model(model).unwrap_or_else(|| panic!("no model {model}")).overrides
    }

    pub(crate) fn set_alias(&self, model: &str, label: &str, version: u64) -> Result<(), Reason> {
        block_on(self.0.set_alias(&name(model), &alias(label), version)).map_err(|refusal| refusal.reason())
    }

    pub(crate) fn remove_alias(&self, model: &str, label: &str) -> Result<(), Reason> {
        block_on(self.0.remove_alias(&name(model), &alias(label))).map_err(|refusal| refusal.reason())
    }

    pub(crate) fn status(&self, model: &str, version: u64) -> VersionStatus {
        let status = self.0.model(model).unwrap_or_else(|| panic!("no model {model}"));
        let found = status.versions.into_iter().find(|status| status.version == version);
        found.unwrap_or_else(|| panic!("no version {version} of {model}"))
    }

    pub(crate) fn failure(&self, model: &str, version: u64) -> String {
        let status = self.status(model, version);
        assert_eq!(status.state, VersionState::End);
        status.failure.unwrap_or_else(|| panic!("version {version} of {model} has not failed")).message
    }

    /// The versions that serve.
    pub(crate) fn available(&self, model: &str) -> Vec<u64> {
        let status = self.0.model(model).unwrap_or_else(|| panic!("no model {model}"));
        let available = status.versions.iter().filter(|version| version.state == VersionState::Available);
        available.map(|version| version.version).collect()
    }
}
