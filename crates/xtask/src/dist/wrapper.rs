//! This program in rustc's place (`RUSTC_WRAPPER`): the compiler, with one more flag for some crates.

use std::env;
use std::ffi::{OsStr, OsString};
use std::process::Command;

/// The variable that holds the flag; that it is set says that this program is called as a compiler.
pub(super) const FLAG: &str = "MILLRACE_PROFILE_FLAG";

/// The crates that serve a request, and those that only read flags and configuration.
///
/// The engines stay out, and so does what makes a model's inputs: what is called often is compiled for speed and what is not
/// for size, and which of their loops are called often is for the user's model to say, not for ours.
const TAKE_PART: &[&str] = &[
    "millrace",
    "millrace_batching",
    "millrace_core",
    "millrace_grpc",
    "millrace_http",
    "millrace_json",
    "millrace_proto",
    "millrace_protocol",
    "millrace_registry",
    "millrace_server",
    "arc_swap",
    "base64_simd",
    "bytes",
    "clap_builder",
    "crossbeam_channel",
    "crossbeam_utils",
    "fast_float2",
    "futures_channel",
    "futures_util",
    "h2",
    "http",
    "http_body_util",
    "httparse",
    "hyper",
    "hyper_util",
    "itoa",
    "metrics",
    "metrics_exporter_prometheus",
    "metrics_util",
    "mio",
    "notify",
    "parking_lot",
    "parking_lot_core",
    "prost",
    "serde_core",
    "serde_json",
    "slab",
    "socket2",
    "tokio",
    "tokio_util",
    "toml",
    "toml_parser",
    "tracing_core",
    "tracing_subscriber",
    "zmij",
];

/// Whether this program was called as a compiler.
pub(crate) fn is_asked_for() -> bool {
    env::var_os(FLAG).is_some()
}

/// Calls the compiler that `words` begins with, and returns whether it was content.
pub(crate) fn rustc(words: impl Iterator<Item = OsString>) -> bool {
    let words: Vec<OsString> = words.collect();
    let Some((rustc, arguments)) = words.split_first() else { return false };
    let flag = env::var_os(FLAG).filter(|_| takes_part(arguments));
    Command::new(rustc).args(arguments).args(flag).status().is_ok_and(|status| status.success())
}

/// Whether `arguments` compile one of the crates for the program itself, and not for what runs at build time: only the
/// former is given a platform.
fn takes_part(arguments: &[OsString]) -> bool {
    let name =
        arguments.iter().skip_while(|argument| *argument != "--crate-name").nth(1).and_then(|name| name.to_str());
    name.is_some_and(|name| TAKE_PART.contains(&name))
        && arguments.iter().any(|argument| argument == OsStr::new("--target"))
}

#[cfg(test)]
mod tests {
    use super::{TAKE_PART, takes_part};

    fn compiles(line: &str) -> bool {
        takes_part(&line.split(' ').map(Into::into).collect::<Vec<_>>())
    }

    #[test]
    fn the_request_path_takes_part_and_neither_engines_nor_build_scripts_do() {
        assert!(compiles(
            "--crate-name hyper --edition=2021 lib.rs --crate-type lib --target x86_64-unknown-linux-gnu"
        ));
        assert!(!compiles("--crate-name tract_core --edition=2021 lib.rs --target x86_64-unknown-linux-gnu"));
        assert!(!compiles("--crate-name hyper --edition=2021 lib.rs --crate-type lib"));
        assert!(!compiles("- --crate-name ___ --print=file-names --target x86_64-unknown-linux-gnu"));
    }

    #[test]
    fn every_crate_of_the_list_is_in_the_lockfile() {
        let lockfile = include_str!("../../../../Cargo.lock");
        for name in TAKE_PART.iter().filter(|name| **name != "millrace") {
            let is_locked = |name: &str| lockfile.contains(&format!("name = \"{name}\"\n"));
            assert!(is_locked(name) || is_locked(&name.replace('_', "-")), "{name}");
        }
    }
}
