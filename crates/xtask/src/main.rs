//! The project's own checks beside the tests: `cargo xtask check` is the whole list, the other commands are parts of it.
//!
//! The list stands here and nowhere else; continuous integration runs it, then `cargo test --workspace`.

#![forbid(unsafe_code)]

#[cfg(feature = "codegen")]
mod codegen;
mod cuda;
mod dist;
mod layers;

use std::env;
use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::process::{Command, ExitCode, Output};
use std::time::SystemTime;

const HELP: &str = "\
usage: cargo xtask COMMAND

  check    everything but the tests that must hold before a commit lands, stopping at the first failure
  layers   no crate knows a higher one, and core and the backends never reach an async runtime
  deny     licences, bans and sources of dependencies; advisories where their database is at hand
  codegen  write crates/proto/src/gen from /proto; with --check, fail where that would change something
  build-dist  the server as it is handed out, compiled for what a running one does most
  build-cuda  the server for NVIDIA cards; needs a CUDA toolkit, see docs/gpu.md
";

/// The steps of `check`: a title, and a command line or one of this program's own checks.
const STEPS: &[(&str, &[&str])] = &[
    ("formatting", &["cargo", "fmt", "--all", "--check"]),
    ("layers", &["layers"]),
    ("lints", &["cargo", "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]),
    (
        "each feature alone: server without a backend",
        &["cargo", "check", "--locked", "-p", "millrace-server", "--no-default-features"],
    ),
    (
        "each feature alone: server with tract",
        &["cargo", "check", "--locked", "-p", "millrace-server", "--no-default-features", "--features", "tract"],
    ),
    (
        "each feature alone: server with trees",
        &["cargo", "check", "--locked", "-p", "millrace-server", "--no-default-features", "--features", "trees"],
    ),
    (
        "each feature alone: server with ONNX Runtime",
        &["cargo", "check", "--locked", "-p", "millrace-server", "--no-default-features", "--features", "onnxruntime"],
    ),
    (
        "each feature alone: server with candle",
        &["cargo", "check", "--locked", "-p", "millrace-server", "--no-default-features", "--features", "candle"],
    ),
    (
        "each feature alone: server with text",
        &["cargo", "check", "--locked", "-p", "millrace-server", "--no-default-features", "--features", "text"],
    ),
    (
        "each feature alone: server with pictures",
        &["cargo", "check", "--locked", "-p", "millrace-server", "--no-default-features", "--features", "vision"],
    ),
    (
        "each feature alone: server with faces",
        &["cargo", "check", "--locked", "-p", "millrace-server", "--no-default-features", "--features", "face"],
    ),
    ("documentation", &["cargo", "doc", "--workspace", "--no-deps", "--locked"]),
    ("dependencies", &["deny"]),
];

fn main() -> ExitCode {
    if dist::is_asked_for() {
        return if dist::rustc(env::args_os().skip(1)) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let command = env::args().nth(1).unwrap_or_default();
    let done = match command.as_str() {
        "check" => check(),
        "layers" => layers::check(),
        "deny" => deny(),
        "codegen" => codegen(env::args().nth(2).as_deref()),
        "build-dist" => dist::build(env::args_os().skip(2)),
        "build-cuda" => cuda::build(env::args_os().skip(2)),
        _ => Err(HELP.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            say(&message);
            ExitCode::FAILURE
        }
    }
}

fn check() -> Result<(), String> {
    for (title, command) in STEPS {
        say(&format!("== {title}"));
        let began = SystemTime::now();
        match *command {
            ["layers"] => layers::check()?,
            ["deny"] => deny()?,
            [program, arguments @ ..] => run(program, arguments)?,
            [] => {}
        }
        let took = began.elapsed().unwrap_or_default();
        say(&format!("== {title}: ok, {} s", took.as_secs()));
    }
    Ok(())
}

/// Runs the generator, which is a feature of this very program so that nothing else pays for building it.
#[cfg(not(feature = "codegen"))]
fn codegen(flag: Option<&str>) -> Result<(), String> {
    let command = ["run", "--quiet", "--locked", "--package", "xtask", "--features", "codegen", "--", "codegen"];
    let arguments: Vec<&str> = command.into_iter().chain(flag).collect();
    run("cargo", &arguments)
}

#[cfg(feature = "codegen")]
fn codegen(flag: Option<&str>) -> Result<(), String> {
    match flag {
        None => codegen::write(),
        Some("--check") => codegen::check(),
        Some(_) => Err(HELP.to_owned()),
    }
}

/// Runs `cargo deny`. Its advisory database comes over the network: where it can be fetched it counts like the rest, where
/// it cannot, that is said loudly and the rest still counts.
fn deny() -> Result<(), String> {
    run(
        "cargo",
        &["deny", "--workspace", "--locked", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"],
    )?;
    if run("cargo", &["deny", "--log-level", "off", "fetch", "db"]).is_ok() {
        return run("cargo", &["deny", "--workspace", "--locked", "check", "--hide-inclusion-graph", "advisories"]);
    }
    say("!! ADVISORIES WERE NOT CHECKED: their database cannot be fetched from here.");
    say("!! Run `cargo deny check advisories` where it can before you release.");
    Ok(())
}

fn run(program: &str, arguments: &[impl AsRef<OsStr>]) -> Result<(), String> {
    let shown = || {
        let words = arguments.iter().map(|argument| argument.as_ref().to_string_lossy().into_owned());
        std::iter::once(program.to_owned()).chain(words).collect::<Vec<_>>().join(" ")
    };
    let status = Command::new(program)
        .args(arguments)
        .env("RUSTDOCFLAGS", "-D warnings")
        .status()
        .map_err(|error| format!("cannot run `{}`: {error}", shown()))?;
    if status.success() { Ok(()) } else { Err(format!("failed: `{}` ({status})", shown())) }
}

/// Runs `command` and returns what it printed.
fn output(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(format!("failed: {command:?} ({})\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}

fn say(line: &str) {
    // Nobody to tell when standard error is gone.
    let _ = writeln!(io::stderr(), "{line}");
}
