//! `cargo xtask build-dist`: the program as it is handed out, compiled for what a running server does most.
//!
//! Profile-guided optimisation, as <https://doc.rust-lang.org/rustc/profile-guided-optimization.html> has it: a program that
//! counts is built, a while of traffic is served with it, and the counts say how the real one is laid out. Only the crates of
//! the request path take part (see `wrapper`).

mod training;
mod wrapper;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::Value;

use crate::{output, run, say};

pub(crate) use wrapper::{is_asked_for, rustc};

const HELP: &str = "\
usage: cargo xtask build-dist

Builds target/dist-program/millrace, the program as it is handed out: one that counts, then a minute and a half of traffic
over loopback, then the real one by what was counted. Takes an hour of processor time and 3 GB of disk; needs rustup's
component llvm-tools. On a machine that has much else to do it takes longer, and counts the same.
";

/// Runs the command with the words that follow it.
pub(crate) fn build(mut words: impl Iterator<Item = OsString>) -> Result<(), String> {
    if words.next().is_some() {
        return Err(HELP.to_owned());
    }
    let rustc = Rustc::ask()?;
    // Asked for first: it would be a pity to learn of it in half an hour.
    let profdata = rustc.profdata()?;
    let metadata = output(Command::new("cargo").args(["metadata", "--format-version", "1", "--no-deps", "--locked"]))?;
    let metadata: Value =
        serde_json::from_slice(&metadata.stdout).map_err(|error| format!("cargo metadata: {error}"))?;
    let folder = |name: &str| metadata.get(name).and_then(Value::as_str).map(PathBuf::from);
    let (Some(target), Some(root)) = (folder("target_directory"), folder("workspace_root")) else {
        return Err("cargo metadata names no target directory".to_owned());
    };

    say("== a program that counts");
    let counts = target.join("dist-counts");
    make_anew(&counts)?;
    let counting = compile(&rustc, &target.join("dist-counting"), &format!("-Cprofile-generate={}", counts.display()))?;

    say("== traffic");
    run("cargo", &["build", "--release", "--locked", "--package", "millrace-traffic"])?;
    let traffic = target.join("release").join("millrace-traffic");
    training::serve(&counting, &traffic, &root.join("fixtures/models"), &counts)?;
    let merged = counts.join("merged.profdata");
    output(Command::new(profdata).arg("merge").arg("--output").arg(&merged).args(raw_counts(&counts)?))?;

    say("== the program");
    let folder = target.join("dist-program");
    // cargo does not see that the counts are others than last time.
    make_anew(&folder)?;
    let built = compile(&rustc, &folder.join("build"), &format!("-Cprofile-use={}", merged.display()))?;
    let program = folder.join("millrace");
    fs::copy(&built, &program).map_err(|error| format!("cannot write {}: {error}", program.display()))?;
    let version = output(Command::new(&program).arg("--version"))?;
    let size = fs::metadata(&program).map_err(|error| format!("{}: {error}", program.display()))?.len();
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    say(&format!("{}: {version}; {}.{} MB", program.display(), size / 1_000_000, size / 100_000 % 10));
    Ok(())
}

/// The compiler that cargo calls here.
struct Rustc {
    /// The platform that it runs on, and builds for.
    host: String,
    sysroot: PathBuf,
}

impl Rustc {
    fn ask() -> Result<Self, String> {
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let ask = |argument: &str| {
            let output = output(Command::new(&rustc).args(argument.split(' ')))?;
            Ok::<_, String>(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let version = ask("--version --verbose")?;
        let host = version.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc names no host")?;
        Ok(Self { host: host.to_owned(), sysroot: PathBuf::from(ask("--print sysroot")?.trim_end()) })
    }

    /// The tool that puts counts together, of the compiler's own LLVM: the format changes with its version.
    fn profdata(&self) -> Result<PathBuf, String> {
        let path = self.sysroot.join("lib/rustlib").join(&self.host).join("bin/llvm-profdata");
        if path.is_file() {
            return Ok(path);
        }
        Err(format!("there is no {}\nTo install it: rustup component add llvm-tools", path.display()))
    }
}

/// Builds the server with `flag` for the crates that take part, and returns where it lies.
fn compile(rustc: &Rustc, target: &Path, flag: &str) -> Result<PathBuf, String> {
    let this = env::current_exe().map_err(|error| format!("where this program lies: {error}"))?;
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--profile", "dist", "--locked", "--package", "millrace-server", "--bin", "millrace"])
        // Named so that what runs at build time is compiled apart, and without the flag.
        .args(["--target", &rustc.host])
        .arg("--target-dir")
        .arg(target)
        .env("RUSTC_WRAPPER", this)
        .env(wrapper::FLAG, flag);
    let status = cargo.status().map_err(|error| format!("cannot run {cargo:?}: {error}"))?;
    if !status.success() {
        return Err(format!("failed: {cargo:?} ({status})"));
    }
    Ok(target.join(&rustc.host).join("dist").join("millrace"))
}

fn make_anew(folder: &Path) -> Result<(), String> {
    let failed = |error| format!("cannot make {} anew: {error}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(failed)?;
    }
    fs::create_dir_all(folder).map_err(failed)
}

/// What the counting program left in `folder`.
fn raw_counts(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let raw: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "profraw")).collect();
    if raw.is_empty() {
        return Err(format!("the program that counts left nothing in {}", folder.display()));
    }
    Ok(raw)
}
