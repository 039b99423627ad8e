//! The command line: what may be said, and which command runs. Each command has a file of its own.
//!
//! Exit codes: 0 done; 1 the work failed (a model, a request, an address); 2 the words were wrong (a flag, a file, a
//! path).

mod against;
mod args;
mod check;
mod engines;
mod inspect;
mod offline;
mod predict;
mod sample;
mod serve;
mod table;
mod together;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};

use clap::Parser;

use self::args::{Args, Command};
use crate::config::engines::EnginesConfig;
use crate::config::environment::Environment;

/// The command did what it was asked.
const DONE: i32 = 0;
/// The work failed.
const FAILED: i32 = 1;
/// The words were wrong.
const MISUSED: i32 = 2;

/// Runs the program with `arguments`, the first of which is its name, and gives its exit code.
pub fn run(arguments: Vec<OsString>, environment: &Environment) -> i32 {
    // Here and not where a server starts: an embedder's hook stays as it is.
    crate::panics::log_all(environment.get("RUST_BACKTRACE").is_some_and(|value| value != "0"));
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => {
            // Help and version are "errors" that go to standard output with code 0.
            let _ = error.print();
            return error.exit_code();
        }
    };
    let engines = || EnginesConfig::of_environment(environment).map_err(Failure::misused);
    let result = match args.command {
        Command::Serve(args) => serve::run(*args, environment),
        Command::Check(args) => engines().and_then(|engines| check::run(args, &engines, environment)),
        Command::Inspect(args) => engines().and_then(|engines| inspect::run(&args, &engines)),
        Command::Predict(args) => engines().and_then(|engines| predict::run(&args, &engines)),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            say(&mut io::stderr(), format_args!("error: {}\n", failure.message));
            failure.code
        }
    }
}

/// Why a command ended early: one line for standard error.
#[derive(Debug)]
struct Failure {
    code: i32,
    message: String,
}

impl Failure {
    fn failed(message: impl Display) -> Self {
        Self { code: FAILED, message: message.to_string() }
    }

    fn misused(message: impl Display) -> Self {
        Self { code: MISUSED, message: message.to_string() }
    }
}

/// Writes a line to standard error.
pub(crate) fn complain(line: &impl Display) {
    say(&mut io::stderr(), format_args!("{line}\n"));
}

/// Writes text. A reader who has gone (`millrace check | head`) is not an error.
fn say(to: &mut impl Write, text: impl Display) {
    let _ = write!(to, "{text}").and_then(|()| to.flush());
}
