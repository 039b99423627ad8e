//! `millrace predict`: one request, answered by the same front-end and queue as a server's, without a socket.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use millrace_batching::ComputePool;
use millrace_core::{Catalog, ModelName, Resolver};
use millrace_http::{
    ConnectionContext, Front, FrontConfig, HttpConfig, HttpParts, MetricsText, Readiness, http_service,
};
use millrace_registry::Registry;

use super::args::PredictArgs;
use super::offline::{self, OneModel, Only};
use super::together::{self, Together};
use super::{DONE, FAILED, Failure, say};
use crate::config::engines::EnginesConfig;
use crate::parts::Choosing;

/// Runs the command.
pub(super) fn run(args: &PredictArgs, engines: &EnginesConfig) -> Result<i32, Failure> {
    let Asked { path, resolver, catalog, pool } = load(&args.model, &Choosing::afresh(engines))?;
    let body = read(&args.input)?;
    let service = http_service(HttpParts {
        resolver,
        catalog,
        control: None,
        compute: Arc::new(pool),
        readiness: Readiness::default(),
        metrics_text: MetricsText::new(String::new),
        // Nobody else waits, and the operator's own file is as large as it is.
        front: Front::new(&FrontConfig {
            max_receiving_bytes: u64::MAX,
            max_unsent_bytes: u64::MAX,
            ..FrontConfig::default()
        }),
        config: HttpConfig {
            max_body_bytes: u64::MAX,
            max_decompressed_bytes: u64::MAX,
            max_answer_bytes: usize::MAX,
            ..HttpConfig::default()
        },
    });
    let request = Request::builder().method(Method::POST).uri(path).body(Full::new(body)).map_err(Failure::failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(Failure::failed)?;
    let response = runtime.block_on(service.answer(request, ConnectionContext::default()));
    let status = response.status();
    let answer = response.into_body().into_bytes();
    let text = String::from_utf8_lossy(&answer);
    if status.is_success() {
        say(&mut io::stdout(), format_args!("{text}\n"));
        Ok(DONE)
    } else {
        say(&mut io::stderr(), format_args!("{text}\n"));
        Ok(FAILED)
    }
}

/// What answers, and where.
struct Asked {
    path: String,
    resolver: Arc<dyn Resolver>,
    catalog: Arc<dyn Catalog>,
    pool: ComputePool,
}

fn load(model: &Path, choosing: &Choosing) -> Result<Asked, Failure> {
    let path = |name: &ModelName, version: u64| format!("/v1/models/{name}/versions/{version}:predict");
    if let Some(described) = together::described(model)? {
        let Together { name, version, registry, pool } = together::load(&described, choosing)?;
        let registry = Arc::new(registry);
        let resolver = Arc::<Registry>::clone(&registry);
        return Ok(Asked { path: path(&name, version.version), resolver, catalog: registry, pool });
    }
    let (loaded, pool) = (offline::load(model, choosing)?, offline::pool());
    let path = path(&loaded.name, loaded.version);
    let only = Arc::new(Only(OneModel::new(loaded, &pool)?));
    Ok(Asked { path, resolver: Arc::<Only>::clone(&only), catalog: only, pool })
}

fn read(path: &Path) -> Result<Bytes, Failure> {
    let result = if path == Path::new("-") {
        let mut body = Vec::new();
        io::stdin().lock().read_to_end(&mut body).map(|_| body)
    } else {
        fs::read(path)
    };
    result.map(Bytes::from).map_err(|error| Failure::misused(format!("cannot read {}: {error}", path.display())))
}
