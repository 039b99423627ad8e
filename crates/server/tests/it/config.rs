//! `millrace.toml`, flags and variables, as the binary takes them, and their documentation.

use std::fs;

use tempfile::TempDir;

use crate::support::{Process, Repository, millrace, output};

/// Runs `serve` with this file; gives the exit code and what it says.
fn refused(toml: &str) -> (Option<i32>, String) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("millrace.toml");
    fs::write(&file, toml).unwrap();
    let output = output(millrace().arg("serve").arg("--config").arg(&file));
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_wrong_file_is_refused_with_line_column_and_suggestion() {
    for (toml, expected) in [
        (
            "[server]\nlisten = \"127.0.0.1:0\"\ndrain_dely = \"5s\"\n",
            "millrace.toml:3:1: unknown key `drain_dely`; did you mean `drain_delay`?",
        ),
        ("[sever]\n", "did you mean `server`?"),
        ("[limits]\nmax_connections = 0\n", "millrace.toml:2:19: "),
        ("[limits]\nheader_timeout = 5\n", "write \"5s\" or \"5ms\""),
        ("[server]\nready = \"perhaps\"\n", "millrace.toml:2:9: "),
        ("[server\n", "millrace.toml:1:"),
        ("[batching]\nbatch_timeout_micros = 1\nlatency_goal = \"1ms\"\n", "say the same thing twice"),
        ("[server]\nlisten = \"nowhere\"\n", "server.listen"),
        ("[server]\nlisten = \"unix:\"\n", "server.listen: `unix:`: `unix:` wants a path"),
        ("[server]\nlisten = []\n", "server.listen: no address for clients is left"),
        ("[server]\ncompat = [\"tfs\", \"kserve\"]\n", "unknown variant `kserve`"),
        ("[server]\nsocket_mode = \"9\"\n", "server.socket_mode"),
        ("[server]\nadmin = \"0.0.0.0:8080\"\nmetrics = \"127.0.0.1:8080\"\n", "--metrics wants 127.0.0.1:8080"),
        ("[log]\nlevel = \"inof\"\n", "log.level"),
    ] {
        let repository = Repository::new();
        let path = repository.path().display();
        let toml = if expected.contains("did you mean") || toml.starts_with("[server\n") {
            toml.to_owned()
        } else {
            format!("{toml}[registry]\nrepository = \"{path}\"\n")
        };
        let (code, said) = refused(&toml);
        assert_eq!(code, Some(2), "{toml}: {said}");
        assert!(said.contains(expected), "{toml}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
}

#[test]
fn a_store_that_is_not_there_is_refused_by_name() {
    let repository = Repository::new();
    let output = output(millrace().arg("serve").arg(repository.path()).args(["--model-store", "/no/such/store"]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("registry.stores: /no/such/store is not a folder"), "{said}");
}

#[test]
fn flags_go_before_variables_and_those_before_the_file() {
    let repository = Repository::new();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("millrace.toml");
    fs::write(&file, "[server]\nlisten = \"256.0.0.1:1\"\nadmin = \"256.0.0.1:2\"\ndrain_delay = \"0s\"\n").unwrap();
    let mut process = Process::start(
        millrace()
            .args(["serve", "--log-format", "json", "--listen", "127.0.0.1:0"])
            .arg(repository.path())
            .env("MILLRACE_CONFIG", &file)
            .env("MILLRACE_SERVER__LISTEN", "256.0.0.1:3")
            .env("MILLRACE_SERVER__ADMIN", "off"),
    );
    assert_eq!(process.admin, None);
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
fn an_unknown_variable_stops_the_start() {
    let output = output(millrace().args(["serve", "."]).env("MILLRACE_SERVER_LISTEN", "127.0.0.1:0"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("did you mean `MILLRACE_SERVER__LISTEN`"), "{said}");
}

#[test]
fn every_key_is_documented() {
    let manual = include_str!("../../../../docs/configuration.md");
    // The keys as the program knows them: it lists a section's keys when one is far from all of them.
    for section in ["server", "limits", "registry", "batching", "compute", "log", "metrics"] {
        let (_, said) = refused(&format!("[{section}]\nqqqqqqqqqqqqqqqq = 1\n"));
        let keys = said.split("known here: ").nth(1).unwrap_or_else(|| panic!("{said}"));
        let part = manual.split(&format!("### `[{section}]`")).nth(1).unwrap_or_else(|| panic!("no [{section}]"));
        let part = part.split("\n### ").next().unwrap();
        for key in keys.trim().split(", ") {
            assert!(part.contains(&format!("`{key}`")), "[{section}] {key} is not documented");
        }
    }
}
