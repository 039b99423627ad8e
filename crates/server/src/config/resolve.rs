//! From what was written to what is used: the merge of all sources, and every refusal.
//!
//! The order is flags, environment, `millrace.toml`, `model.toml` (the registry's), TensorFlow Serving's files and
//! variables, defaults.

use std::fs;
use std::net::ToSocketAddrs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use millrace_core::{Alias, Quoted};
use millrace_registry::{BatchOverrides, ListedModel, ModelSet, VersionPolicy};

use super::engines::EnginesConfig;
use super::environment::{self, Environment};
use super::error::{ConfigError, Place};
use super::listeners::listeners;
use super::platform::Hosting;
use super::raw::{Raw, RawBatching, RawCompute, RawLimits, RawLog, RawRegistry, RawServer};
use super::value::List;
use super::{LogFormat, ServerConfig};
use crate::log::Filter;
use crate::net::{Address, AddressError, ConnectionLimits};
use crate::tfs;

/// The folder that `serve` looks into when it is told none.
pub(crate) const DEFAULT_REPOSITORY: &str = "models";

/// A whole process's configuration.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) server: ServerConfig,
    pub(crate) log_format: LogFormat,
    pub(crate) log_filter: Filter,
}

/// Merges `flags`, the environment and the file, and checks the whole.
pub(crate) fn resolve(flags: Raw, config: Option<&Path>, environment: &Environment) -> Result<Settings, ConfigError> {
    let from_environment = environment::read(environment)?;
    let named = config.map(Path::to_owned).or_else(|| environment.get(environment::CONFIG).map(PathBuf::from));
    let file = named.map(|path| read_file(&path)).transpose()?.unwrap_or_default();
    let Raw { server, limits, registry, engines, batching, compute, log, metrics } =
        flags.over(from_environment).over(file);

    let hosting = Hosting::read(server.platform, environment)?;
    let models = models(&registry, &hosting, environment)?;
    let mut config = ServerConfig::new(models);
    hosting.apply(&mut config);
    if let Some(series) = metrics.max_series {
        config.front.max_metric_series = series;
        config.registry.max_metric_series = series;
    }
    self::server(&mut config, server)?;
    self::limits(&mut config, &limits);
    self::compute(&mut config, &compute);
    self::batching(&mut config, batching)?;
    stores(&registry)?;
    self::registry(&mut config, registry, environment);
    config.engines = EnginesConfig::from_raw(engines);
    // Here and not only where they are opened, so that a configuration that cannot be is refused as such.
    listeners(&config)?;
    let RawLog { format, level } = log;
    let level = level.unwrap_or_else(|| "info".to_owned());
    let log_filter = level.parse().map_err(|error| ConfigError::new(Place::Together, format!("log.level: {error}")))?;
    Ok(Settings { server: config, log_format: format.unwrap_or_default(), log_filter })
}

/// Reads `millrace.toml`. Relative paths in it are relative to its folder.
fn read_file(path: &Path) -> Result<Raw, ConfigError> {
    let text = read_text(path, "--config")?;
    let place = Place::File { path: path.to_owned(), at: None };
    let mut raw: Raw = toml::from_str(&text).map_err(|error| ConfigError::from_toml(place, &text, &error))?;
    let folder = path.parent().unwrap_or(path);
    let paths = [
        &mut raw.registry.repository,
        &mut raw.registry.state_dir,
        &mut raw.registry.model_config_file,
        &mut raw.batching.parameters_file,
        &mut raw.engines.onnxruntime_library,
    ];
    for path in paths.into_iter().flatten().chain(raw.registry.stores.iter_mut().flatten()) {
        *path = folder.join(&*path);
    }
    Ok(raw)
}

fn read_text(path: &Path, flag: &'static str) -> Result<String, ConfigError> {
    fs::read_to_string(path)
        .map_err(|error| ConfigError::new(Place::Flag(flag), format!("cannot read {}: {error}", path.display())))
}

fn models(registry: &RawRegistry, hosting: &Hosting, environment: &Environment) -> Result<ModelSet, ConfigError> {
    let together = |message: String| ConfigError::new(Place::Together, message);
    match (&registry.repository, &registry.model_config_file) {
        (Some(repository), Some(file)) => Err(together(format!(
            "both a repository ({}) and a model config file ({}) are given; keep one",
            repository.display(),
            file.display()
        ))),
        (Some(repository), None) => {
            if repository.is_dir() {
                return Ok(ModelSet::Repository(repository.clone()));
            }
            let what = if repository.exists() { "is not a folder" } else { "does not exist" };
            let hint = "give the folder that holds one folder per model";
            Err(together(format!("the repository {} {what}; {hint}", repository.display())))
        }
        (None, Some(file)) => listed(file),
        (None, None) => match tfs_variables(environment)? {
            Some(model) => Ok(ModelSet::Listed(vec![model])),
            None if hosting.names_models() => hosting.models(),
            None if Path::new(DEFAULT_REPOSITORY).is_dir() => {
                Ok(ModelSet::Repository(PathBuf::from(DEFAULT_REPOSITORY)))
            }
            None => Err(together(
                "no models: there is no folder ./models here. Name one: `millrace serve PATH`, where \
                 PATH/NAME/1/model.onnx is version 1 of the model NAME"
                    .to_owned(),
            )),
        },
    }
}

fn listed(path: &Path) -> Result<ModelSet, ConfigError> {
    let text = read_text(path, "--model-config-file")?;
    let mut models = Vec::new();
    for config in tfs::config::models(path, &text)? {
        let error = |message: String| ConfigError::in_file(path, &text, Some(config.offset), message);
        let name = config.name.parse().map_err(|cause| error(format!("{cause}")))?;
        if !config.base_path.is_absolute() {
            return Err(error(format!("base_path {} must be absolute", Quoted(&config.base_path.to_string_lossy()))));
        }
        let mut model = ListedModel::new(name, config.base_path.clone());
        model.policy = match &config.versions {
            tfs::config::Versions::Latest(n) => {
                VersionPolicy::Latest(NonZeroUsize::new(*n).unwrap_or(NonZeroUsize::MIN))
            }
            tfs::config::Versions::All => VersionPolicy::All,
            tfs::config::Versions::Specific(versions) => VersionPolicy::Specific(versions.clone()),
        };
        for (label, version) in &config.labels {
            let alias: Alias = label.parse().map_err(|cause| error(format!("{cause}")))?;
            model.aliases.insert(alias, *version);
        }
        models.push(model);
    }
    Ok(ModelSet::Listed(models))
}

/// TF Serving's container reads these two, and serves the folder `$MODEL_BASE_PATH/$MODEL_NAME`.
fn tfs_variables(environment: &Environment) -> Result<Option<ListedModel>, ConfigError> {
    let (name, base) = (environment.get("MODEL_NAME"), environment.get("MODEL_BASE_PATH"));
    if name.is_none() && base.is_none() {
        return Ok(None);
    }
    let text = name.map_or("model", String::as_str);
    let name = text
        .parse()
        .map_err(|error| ConfigError::new(Place::Environment("MODEL_NAME".to_owned()), format!("{error}")))?;
    let path = Path::new(base.map_or("/models", String::as_str)).join(text);
    if !path.is_dir() {
        let message = format!("the folder {} does not exist; it should hold one folder per version", path.display());
        return Err(ConfigError::new(Place::Environment("MODEL_BASE_PATH".to_owned()), message));
    }
    Ok(Some(ListedModel::new(name, path)))
}

fn server(config: &mut ServerConfig, raw: RawServer) -> Result<(), ConfigError> {
    if let Some(listen) = raw.listen {
        config.listen = addresses("server.listen", &listen)?;
    }
    if let Some(admin) = raw.admin {
        config.admin = addresses("server.admin", &admin)?;
    }
    if let Some(metrics) = raw.metrics {
        config.metrics = addresses("server.metrics", &metrics)?;
    }
    set(&mut config.compat, raw.compat.map(|compat| compat.0));
    set(&mut config.admin_on_data_plane, raw.admin_on_data_plane);
    if let Some(mode) = raw.socket_mode {
        config.socket_mode = socket_mode(&mode)?;
    }
    set(&mut config.reuse_port, raw.reuse_port);
    set(&mut config.drain_delay, raw.drain_delay.map(|span| span.0));
    set(&mut config.drain_timeout, raw.drain_timeout.map(|span| span.0));
    both(&mut config.http.request_timeout, &mut config.grpc.request_timeout, raw.request_timeout.map(|span| span.0));
    set(&mut config.ready, raw.ready);
    both(&mut config.http.server_timing, &mut config.grpc.server_timing, raw.server_timing);
    set(&mut config.http.cors, raw.cors);
    if let Some(bytes) = raw.gzip_min_bytes {
        let least = if bytes.0 == 0 { None } else { Some(size(bytes.0)) };
        (config.http.gzip_min_bytes, config.grpc.compress_min_bytes) = (least, least);
    }
    let offload = raw.offload_bytes.map(|bytes| size(bytes.0));
    both(&mut config.http.offload_bytes, &mut config.grpc.offload_bytes, offload);
    set(&mut config.grpc.tfs_tensor_content, raw.tfs_tensor_content);
    Ok(())
}

/// The addresses of one key; `off` in place of them is none.
fn addresses(key: &str, texts: &List<String>) -> Result<Vec<Address>, ConfigError> {
    if matches!(&*texts.0, [off] if off == "off") {
        return Ok(Vec::new());
    }
    texts.0.iter().map(|text| address(key, text)).collect()
}

fn address(key: &str, text: &str) -> Result<Address, ConfigError> {
    text.parse().or_else(|error| {
        // A name, such as localhost; an error of any other kind is about a path.
        let found = (error == AddressError::Form).then(|| text.to_socket_addrs().ok()?.next()).flatten();
        found
            .map(Address::Tcp)
            .ok_or_else(|| ConfigError::new(Place::Together, format!("{key}: {}: {error}", Quoted(text))))
    })
}

/// Permissions as `chmod` takes them.
fn socket_mode(text: &str) -> Result<u32, ConfigError> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777).ok_or_else(|| {
        let message = format!("server.socket_mode: {} is not a file mode; write it as \"660\"", Quoted(text));
        ConfigError::new(Place::Together, message)
    })
}

fn limits(config: &mut ServerConfig, raw: &RawLimits) {
    let ConnectionLimits { max_connections, max_header_bytes, max_headers, max_streams, .. } = &mut config.connections;
    set(max_connections, raw.max_connections.map(NonZeroUsize::get));
    set(max_header_bytes, raw.max_header_bytes.map(|bytes| size(bytes.0)));
    set(max_headers, raw.max_headers.map(NonZeroUsize::get));
    set(max_streams, raw.max_streams.map(std::num::NonZero::get));
    set(&mut config.connections.header_timeout, raw.header_timeout.map(|span| span.0));
    set(&mut config.connections.max_age, raw.max_connection_age.map(|span| span.0));
    set(&mut config.connections.age_grace, raw.max_connection_grace.map(|span| span.0));
    set(&mut config.connections.idle_timeout, raw.idle_timeout.map(|span| span.0));
    set(&mut config.connections.write_timeout, raw.write_timeout.map(|span| span.0));
    set(&mut config.http.max_body_bytes, raw.max_body_bytes.map(|bytes| bytes.0));
    set(&mut config.http.max_decompressed_bytes, raw.max_decompressed_bytes.map(|bytes| bytes.0));
    set(&mut config.http.max_json_depth, raw.max_json_depth);
    set(&mut config.http.max_client_batch_size, raw.max_client_batch_size.map(NonZeroUsize::get));
    set(&mut config.front.max_receiving_bytes, raw.max_receiving_bytes.map(|bytes| bytes.0));
    set(&mut config.front.max_unsent_bytes, raw.max_unsent_bytes.map(|bytes| bytes.0));
    set(&mut config.grpc.max_message_bytes, raw.max_grpc_message_bytes.map(|bytes| size(bytes.0)));
    set(&mut config.grpc.max_stream_requests, raw.max_stream_requests.map(NonZeroUsize::get));
    let (http, grpc) = (&mut config.http, &mut config.grpc);
    both(&mut http.max_answer_bytes, &mut grpc.max_answer_bytes, raw.max_answer_bytes.map(|bytes| size(bytes.0)));
    both(&mut http.body_timeout, &mut grpc.message_timeout, raw.body_timeout.map(|span| span.0));
    both(&mut http.min_body_rate, &mut grpc.min_message_rate, raw.min_body_rate.map(|bytes| bytes.0));
}

fn compute(config: &mut ServerConfig, raw: &RawCompute) {
    set(&mut config.pool.threads, raw.threads);
    set(&mut config.pool.max_replacements, raw.max_replacements);
    set(&mut config.pool.hang_grace, raw.hang_grace.map(|span| span.0));
    set(&mut config.pool.hang_factor, raw.hang_factor);
    set(&mut config.pool.hang_unknown, raw.hang_unknown.map(|span| span.0));
    set(&mut config.pool.max_jobs, raw.max_jobs.map(NonZeroUsize::get));
}

fn batching(config: &mut ServerConfig, raw: RawBatching) -> Result<(), ConfigError> {
    if let Some(path) = &raw.parameters_file {
        let text = read_text(path, "--batching-parameters-file")?;
        let parameters = tfs::config::batching(path, &text)?;
        config.registry.batching = parameters.apply(config.registry.batching.clone());
    }
    set(&mut config.registry.batching.max_queue_rows, raw.max_queue_rows.map(NonZeroUsize::get));
    set(&mut config.registry.batching.max_queue_bytes, raw.max_queue_bytes.map(|bytes| size(bytes.0)));
    set(&mut config.registry.batching.max_queue_time, raw.max_queue_time.map(|span| span.0));
    let overrides = BatchOverrides {
        enabled: raw.enabled,
        max_batch_size: raw.max_batch_size,
        max_batch_tokens: raw.max_batch_tokens,
        batch_timeout_micros: raw.batch_timeout_micros,
        max_enqueued_batches: raw.max_enqueued_batches,
        num_batch_threads: raw.num_batch_threads,
        allowed_batch_sizes: raw.allowed_batch_sizes,
        preferred_batch_size: raw.preferred_batch_size,
        max_queue_delay_microseconds: raw.max_queue_delay_microseconds,
        latency_goal: raw.latency_goal.map(|span| span.0),
        enable_large_batch_splitting: raw.enable_large_batch_splitting,
    };
    overrides.check().map_err(|error| ConfigError::new(Place::Together, format!("[batching]: {error}")))?;
    config.registry.batching_overrides = overrides;
    Ok(())
}

fn registry(config: &mut ServerConfig, raw: RawRegistry, environment: &Environment) {
    let registry = &mut config.registry;
    set(&mut registry.watch, raw.watch);
    set(&mut registry.poll_interval, raw.poll_interval.map(|span| span.0));
    set(&mut registry.quiet_period, raw.quiet_period.map(|span| span.0));
    set(&mut registry.max_model_bytes, raw.max_model_bytes.map(|bytes| bytes.0));
    set(&mut registry.load_threads, raw.load_threads);
    set(&mut registry.retry.first, raw.retry_first.map(|span| span.0));
    set(&mut registry.retry.max, raw.retry_max.map(|span| span.0));
    // After those of a hosting platform, which has no other way to say where its models are.
    registry.stores.extend(raw.stores.unwrap_or_default());
    registry.memory_budget = raw.memory_budget.map(|bytes| bytes.0);
    registry.state_dir = raw.state_dir.or_else(|| default_state_dir(&registry.models, environment));
}

/// Stores that are not there would otherwise show only when somebody registers a model.
fn stores(registry: &RawRegistry) -> Result<(), ConfigError> {
    match registry.stores.iter().flatten().find(|store| !store.is_dir()) {
        Some(store) => {
            let message = format!("registry.stores: {} is not a folder", store.display());
            Err(ConfigError::new(Place::Together, message))
        }
        None => Ok(()),
    }
}

/// `$XDG_STATE_HOME/millrace/…`, with one folder per set of models: orders to one must not reach another. `None` where
/// the environment names no home.
pub(crate) fn default_state_dir(models: &ModelSet, environment: &Environment) -> Option<PathBuf> {
    let variable = |name| environment.get(name).filter(|value| Path::new(value).is_absolute()).map(PathBuf::from);
    let home = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")))?;
    let folders: Vec<&Path> = match models {
        ModelSet::Repository(path) => vec![path],
        ModelSet::Listed(models) => models.iter().map(|model| model.base_path.as_path()).collect(),
    };
    // FNV-1a: the name must be the same whatever built this program, which the standard hasher does not promise.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for folder in &folders {
        let folder = fs::canonicalize(folder).unwrap_or_else(|_| (*folder).to_owned());
        for byte in folder.as_os_str().as_encoded_bytes().iter().chain(b"\n") {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    let name = folders.first()?.file_name();
    let label = name.map_or_else(|| "models".to_owned(), |name| name.to_string_lossy().into_owned());
    Some(home.join("millrace").join(format!("{label}-{hash:016x}")))
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

/// One word for two front-ends.
fn both<T: Clone>(one: &mut T, other: &mut T, value: Option<T>) {
    set(one, value.clone());
    set(other, value);
}

/// Sizes of things in memory; what does not fit an address cannot be reached either.
fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
