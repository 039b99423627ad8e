//! `millrace serve`: starts the server, prints what it serves, and drains on signals.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::args::ServeArgs;
use super::table::{curl_lines, table_with_reasons};
use super::{DONE, FAILED, Failure, say};
use crate::config::environment::Environment;
use crate::config::resolve::{Settings, resolve};
use crate::log::error_chain;
use crate::server::{Drained, Server};

/// Supervisors signal a process and then its group, which is one order that arrives twice.
const SAME_ORDER: Duration = Duration::from_millis(200);

/// Runs the command until a signal ends it.
pub(super) fn run(args: ServeArgs, environment: &Environment) -> Result<i32, Failure> {
    let config = args.config.clone();
    let mut settings = resolve(args.into_raw(), config.as_deref(), environment).map_err(Failure::misused)?;
    if let Some(name) = hostname() {
        settings.server.front.hostname = name;
    }
    crate::log::start(settings.log_format, &settings.log_filter);
    let runtime = io_runtime().map_err(|error| Failure::failed(format!("cannot start the I/O threads: {error}")))?;
    let code = runtime.block_on(serve(settings));
    // A job that hangs must not keep the process.
    runtime.shutdown_background();
    code
}

/// One I/O thread per core this process may use; models run on the compute pool, never here.
fn io_runtime() -> io::Result<Runtime> {
    let mut builder = match thread::available_parallelism() {
        // Nobody to share tasks with: what sharing costs (locks, counts, a look at others' queues) is spared.
        Ok(cores) if cores.get() == 1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.thread_name("millrace-io").enable_all().build()
}

/// This machine's name, where the system tells it.
fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

async fn serve(settings: Settings) -> Result<i32, Failure> {
    // Before anything takes long: a signal that arrives while models load must be heard.
    let mut signals = Signals::new().map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))?;
    let set = settings.server.registry.models.clone();
    let server = Server::start(settings.server).await.map_err(|error| Failure::failed(error_chain(&error)))?;
    let server = Arc::new(server);
    let ended_early = {
        let mut ready = pin!(server.ready());
        signals.until(&server, async { ready.as_mut().await }).await
    };
    if ended_early.is_ok() {
        let models = server.catalog().models();
        let lines = curl_lines(&models, server.local_addr(), &set);
        say(&mut io::stdout(), format_args!("{}\n{lines}", table_with_reasons(&models)));
        tracing::info!(models = models.len(), "ready");
        // Nothing else ends it.
        let _ = signals.until(&server, std::future::pending::<()>()).await;
    }
    let mut draining = pin!(server.drain());
    let began = Instant::now();
    let drained = loop {
        tokio::select! {
            drained = draining.as_mut() => break drained,
            () = signals.end() => if began.elapsed() > SAME_ORDER {
                tracing::warn!("second signal: not waiting any longer");
                server.cut();
            }
        }
    };
    Ok(match drained {
        Drained::Complete => DONE,
        Drained::Cut => FAILED,
    })
}

/// A signal asked for the end.
struct Ended;

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Ends at SIGTERM or SIGINT.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits for `done`, rescanning at each SIGHUP.
    async fn until<T>(&mut self, server: &Server, done: impl Future<Output = T>) -> Result<T, Ended> {
        let mut done = pin!(done);
        loop {
            tokio::select! {
                value = done.as_mut() => return Ok(value),
                _ = self.terminate.recv() => return Err(Ended),
                _ = self.interrupt.recv() => return Err(Ended),
                _ = self.hangup.recv() => {
                    tracing::info!("SIGHUP: reading the repository again");
                    let rescan = server.control().rescan();
                    tokio::spawn(async move {
                        if let Err(refusal) = rescan.await {
                            tracing::warn!(%refusal, "cannot read the repository again");
                        }
                    });
                }
            }
        }
    }
}
