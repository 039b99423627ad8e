//! The `millrace` binary: hands the process's arguments and environment to the library and exits with its code.

#![forbid(unsafe_code)]

use std::process;

fn main() {
    // The one place that reads the environment.
    let code = millrace_server::run(std::env::args_os().collect(), &std::env::vars_os().filter_map(utf8).collect());
    // Not by returning: a model that hangs on a compute thread must not keep the process.
    process::exit(code);
}

/// Variables that are not UTF-8 are nobody's that this program knows.
fn utf8((name, value): (std::ffi::OsString, std::ffi::OsString)) -> Option<(String, String)> {
    Some((name.into_string().ok()?, value.into_string().ok()?))
}
