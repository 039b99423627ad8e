//! `millrace check`: loads and warms a whole repository, and says what is wrong with it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use millrace_batching::{ComputePool, PoolConfig};
use millrace_core::Catalog as _;
use millrace_registry::{ModelSet, Registry, RegistryConfig};

use super::args::CheckArgs;
use super::table::{problems, table};
use super::{DONE, FAILED, Failure, say};
use crate::StartError;
use crate::config::LogFormat;
use crate::config::engines::EnginesConfig;
use crate::config::environment::Environment;
use crate::config::resolve::default_state_dir;
use crate::log::error_chain;
use crate::parts::{Choosing, built_in, missing_engines};

/// Runs the command.
pub(super) fn run(args: CheckArgs, engines: &EnginesConfig, environment: &Environment) -> Result<i32, Failure> {
    if !args.repository.is_dir() {
        return Err(Failure::misused(format!("the repository {} is not a folder", args.repository.display())));
    }
    // What a server of this repository has measured need not be measured again, nor the other way round.
    let state = default_state_dir(&ModelSet::Repository(args.repository.clone()), environment);
    let parts = built_in(Choosing::remembering(engines, state));
    if parts.backends.is_empty() {
        return Err(Failure::failed(StartError::NoBackend));
    }
    // What the registry has to say is printed below, once.
    crate::log::start(
        LogFormat::Auto,
        &"warn,millrace_registry=off,millrace_backend_auto=off".parse().map_err(Failure::failed)?,
    );
    let path = args.repository.clone();
    let mut config = RegistryConfig::repository(args.repository);
    config.watch = false;
    let registry = Registry::start(config, parts, ComputePool::new(PoolConfig::default()))
        .map_err(|error| Failure::misused(error_chain(&error)))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(Failure::failed)?;
    runtime.block_on(registry.settled());
    let models = registry.models();
    say(&mut io::stdout(), table(&models));
    for line in super::engines::lines(&models) {
        say(&mut io::stdout(), format_args!("{line}\n"));
    }
    for missing in missing_engines(engines) {
        say(&mut io::stdout(), format_args!("{missing}\n"));
    }
    for warning in registry.warnings() {
        say(&mut io::stderr(), format_args!("warning: {warning}\n"));
    }
    let mut problems = problems(&models);
    if models.is_empty() {
        problems.push(no_model(&path));
    }
    for problem in &problems {
        say(&mut io::stderr(), format_args!("problem: {problem}\n"));
    }
    Ok(if problems.is_empty() { DONE } else { FAILED })
}

/// Why there is nothing in `path`: often it is one folder too deep.
fn no_model(path: &Path) -> String {
    let is_version = |name: &OsStr| name.to_str().is_some_and(|name| name.parse::<u64>().is_ok());
    let names = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let hint = if names.into_iter().any(|name| is_version(&name)) {
        "it looks like one model; give the folder above it, or use `millrace inspect`"
    } else {
        "give the folder that holds one folder per model, such as NAME/1/model.onnx"
    };
    format!("the repository {} holds no model → {hint}", path.display())
}
