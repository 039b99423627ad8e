//! `millrace check`: loads and warms a whole repository, and says what is wrong with it.

use std::io;

use millrace_batching::{ComputePool, PoolConfig};
use millrace_core::Catalog as _;
use millrace_registry::{Registry, RegistryConfig};

use super::args::CheckArgs;
use super::table::{problems, table};
use super::{DONE, FAILED, Failure, say};
use crate::StartError;
use crate::config::LogFormat;
use crate::log::error_chain;
use crate::server::built_in;

/// Runs the command.
pub(super) fn run(args: CheckArgs) -> Result<i32, Failure> {
    if !args.repository.is_dir() {
        return Err(Failure::misused(format!("the repository {} is not a folder", args.repository.display())));
    }
    let backends = built_in();
    if backends.is_empty() {
        return Err(Failure::failed(StartError::NoBackend));
    }
    // The table says which versions failed and why; warnings say what was ignored.
    crate::log::start(LogFormat::Auto, &"warn".parse().map_err(Failure::failed)?);
    let mut config = RegistryConfig::repository(args.repository);
    config.watch = false;
    let registry = Registry::start(config, backends, ComputePool::new(PoolConfig::default()))
        .map_err(|error| Failure::misused(error_chain(&error)))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(Failure::failed)?;
    runtime.block_on(registry.settled());
    let models = registry.models();
    say(&mut io::stdout(), table(&models));
    let problems = problems(&models);
    for problem in &problems {
        say(&mut io::stderr(), format_args!("problem: {problem}\n"));
    }
    Ok(if problems.is_empty() { DONE } else { FAILED })
}
