//! The words of the command line, and how the flags of `serve` become a configuration.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand};

use crate::config::listeners::Compat;
use crate::config::raw::Raw;
use crate::config::value::{List, Span};
use crate::config::{LogFormat, Platform, Ready};

/// Serves trained models over HTTP: one program, one folder of models.
#[derive(Debug, Parser)]
#[command(name = "millrace", version, after_help = EXAMPLES, max_term_width = 110)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  millrace serve models                 serve every model below ./models on port 8080
  millrace check models                 load and warm them all, say what is wrong, exit
  millrace inspect models/fraud         show what a model takes and gives, and its fastest engine
  millrace inspect path/to/minilm       the same for a Hugging Face folder: task, labels, …
  echo '{\"instances\": [[1, 2]]}' | millrace predict models/fraud

A repository is a folder of models, and a model a folder of numbered versions:
  models/fraud/1/model.onnx
  models/minilm/1/{config.json, model.safetensors, tokenizer.json}

Exit codes: 0 done; 1 the work failed (a model, a request, an address); 2 wrong flag, file or path.";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serve a folder of models.
    Serve(Box<ServeArgs>),
    /// Load and warm every model of a repository, print a table with the engines chosen, and exit 1 if anything is wrong.
    Check(CheckArgs),
    /// Show a model's signature, its engines with their times, operators, node counts and sizes.
    Inspect(InspectArgs),
    /// Answer one request without a server: TensorFlow Serving's JSON in, its JSON out.
    Predict(PredictArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = SERVE_EXAMPLES)]
pub(super) struct ServeArgs {
    /// The folder that holds one folder per model [default: ./models].
    repository: Option<PathBuf>,
    /// Read this configuration file (see docs/configuration.md); $MILLRACE_CONFIG does the same.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Address for clients: IP:PORT or unix:PATH; may be given again [default: 0.0.0.0:8080].
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// Address for operators, or `off`; may be given again [default: 127.0.0.1:8081].
    #[arg(long, value_name = "ADDR")]
    admin: Vec<String>,
    /// Address that shows metrics and health and nothing else; the others show them too.
    #[arg(long, value_name = "ADDR")]
    metrics: Vec<String>,
    /// Listen on other servers' ports too: tfs 8501, 8500; triton 8000-8002; torchserve 8080-8082, 7070, 7071.
    #[arg(long, value_name = "SERVERS", value_delimiter = ',')]
    compat: Vec<Compat>,
    /// Let clients load, unload and reload models by the Open Inference Protocol and TensorFlow Serving's API.
    #[arg(long, action = ArgAction::SetTrue)]
    admin_on_data_plane: bool,
    /// Allow models below this folder to be registered; may be given again.
    #[arg(long, value_name = "DIR")]
    model_store: Vec<PathBuf>,
    /// Keep Amazon SageMaker's contract: /invocations, and its multi-model verbs.
    #[arg(long, action = ArgAction::SetTrue)]
    sagemaker: bool,
    /// Follow changes in the repository [default].
    #[arg(long, overrides_with = "no_watch", action = ArgAction::SetTrue)]
    watch: bool,
    /// Read the repository at the start and on SIGHUP only.
    #[arg(long, overrides_with = "watch", action = ArgAction::SetTrue)]
    no_watch: bool,
    /// Keep operators' orders here, so that they survive restarts [default: $XDG_STATE_HOME/millrace/…].
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// After SIGTERM, go on serving for so long, not ready any more, so that load balancers notice [default: 0s].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    drain_delay: Option<Duration>,
    /// How long requests in flight may take after that [default: 30s].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    drain_timeout: Option<Duration>,
    /// When to be ready: `settled` (each model is available or has failed) or `all` (none has failed).
    #[arg(long, value_name = "WHEN")]
    ready: Option<Ready>,
    /// `error`, `warn`, `info`, `debug`, `trace` or `off`; or by target, such as `warn,millrace_registry=debug` [default: info].
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// `auto` is text on a terminal and JSON elsewhere.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Serve the models of TensorFlow Serving's model config file instead of a repository.
    #[arg(long, visible_alias = "model_config_file", value_name = "FILE")]
    model_config_file: Option<PathBuf>,
    /// Batch as TensorFlow Serving's batching parameters file says (text format or JSON).
    #[arg(long, visible_alias = "batching_parameters_file", value_name = "FILE")]
    batching_parameters_file: Option<PathBuf>,
}

const SERVE_EXAMPLES: &str = "\
Examples:
  millrace serve models
  millrace serve models --listen 127.0.0.1:9000 --admin off
  millrace serve models --drain-delay 5s --ready all       behind a load balancer
  millrace serve models --compat tfs,triton                for clients that know no other ports
  millrace serve models --listen unix:/run/millrace.sock
  millrace serve --config /etc/millrace.toml
  MILLRACE_LIMITS__MAX_BODY_BYTES=16MiB millrace serve models

Flags go before MILLRACE_SECTION__KEY variables, those before the file, that before defaults.
SIGTERM or SIGINT drains and exits 0 (1 if requests had to be cut off); a second one cuts at once. SIGHUP rescans.";

impl ServeArgs {
    /// The flags as a configuration in which nothing else is said.
    pub(super) fn into_raw(self) -> Raw {
        let mut raw = Raw::default();
        raw.registry.repository = self.repository;
        raw.registry.state_dir = self.state_dir;
        raw.registry.model_config_file = self.model_config_file;
        raw.registry.watch = if self.watch { Some(true) } else { self.no_watch.then_some(false) };
        raw.registry.stores = Some(self.model_store).filter(|stores| !stores.is_empty());
        raw.server.listen = some(self.listen);
        raw.server.admin = some(self.admin);
        raw.server.metrics = some(self.metrics);
        raw.server.compat = some(self.compat);
        raw.server.admin_on_data_plane = self.admin_on_data_plane.then_some(true);
        raw.server.platform = self.sagemaker.then_some(Platform::Sagemaker);
        raw.server.drain_delay = self.drain_delay.map(Span);
        raw.server.drain_timeout = self.drain_timeout.map(Span);
        raw.server.ready = self.ready;
        raw.batching.parameters_file = self.batching_parameters_file;
        raw.log.level = self.log_level;
        raw.log.format = self.log_format;
        raw
    }
}

/// What was said, if anything.
fn some<T>(values: Vec<T>) -> Option<List<T>> {
    Some(values).filter(|values| !values.is_empty()).map(List)
}

#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// The folder that holds one folder per model.
    pub(super) repository: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// A model's folder, a version's folder, a model file, or the name of a model in ./models.
    pub(super) path: PathBuf,
    /// Print a request that the model accepts, and nothing else: ones of the right shapes.
    #[arg(long)]
    pub(super) sample: bool,
    /// Compare the answers, sizes and times with another model: this one's original in full precision, say.
    #[arg(long, value_name = "OTHER", conflicts_with = "sample")]
    pub(super) against: Option<PathBuf>,
    /// Look at one engine only, in place of the one that would be chosen.
    #[arg(long, value_name = "NAME")]
    pub(super) backend: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct PredictArgs {
    /// A model's folder, a version's folder, a model file, or the name of a model in ./models.
    pub(super) model: PathBuf,
    /// The request, as for POST /v1/models/NAME:predict; `-` is standard input.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(super) input: PathBuf,
}

fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<Span>().map(|span| span.0)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::{Args, Command, Compat};

    fn raw(words: &[&str]) -> crate::config::raw::Raw {
        match Args::try_parse_from(["millrace", "serve"].iter().chain(words)).unwrap().command {
            Command::Serve(args) => args.into_raw(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_last_of_watch_and_no_watch_counts() {
        assert_eq!(raw(&[]).registry.watch, None);
        assert_eq!(raw(&["--no-watch"]).registry.watch, Some(false));
        assert_eq!(raw(&["--no-watch", "--watch"]).registry.watch, Some(true));
        assert_eq!(raw(&["--watch", "--no-watch"]).registry.watch, Some(false));
    }

    #[test]
    fn addresses_and_servers_may_be_several() {
        let said =
            raw(&["--listen", "127.0.0.1:1", "--listen", "unix:/a", "--compat", "tfs,triton", "--compat=torchserve"]);
        assert_eq!(said.server.listen.unwrap().0, ["127.0.0.1:1", "unix:/a"]);
        assert_eq!(said.server.compat.unwrap().0, [Compat::Tfs, Compat::Triton, Compat::Torchserve]);
        assert_eq!(raw(&[]).server.listen, None);
        assert_eq!(raw(&[]).server.admin_on_data_plane, None);
    }

    #[test]
    fn tf_servings_spelling_of_its_flags_is_taken() {
        let raw = raw(&["--model_config_file=m", "--batching_parameters_file=b"]);
        assert_eq!(raw.registry.model_config_file, Some("m".into()));
        assert_eq!(raw.batching.parameters_file, Some("b".into()));
    }
}
