//! `cargo xtask build-cuda`: the server and the GPU benchmark with CUDA, as programs that start on any machine.
//!
//! The toolkit is given, nothing is downloaded. The programs are linked with shims in place of NVIDIA's shared libraries
//! (see `shims`) and with the static CUDA runtime, and are checked afterwards: none of those libraries is asked for at
//! start-up, and they do start here.

mod shims;
mod toolkit;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::Value;

use crate::{output, say};
use toolkit::Toolkit;

const HELP: &str = "\
usage: cargo xtask build-cuda [--cuda-home DIR] [--compute-cap NN] [--threads N]

Builds target/cuda/millrace and target/cuda/candle_times, stripped, for NVIDIA cards; they start without a driver, too.

  --cuda-home DIR   the CUDA toolkit; else CUDA_HOME. docs/gpu.md says how to get one from Python wheels
  --compute-cap NN  the cards to build for: 90 is Hopper alone (the default); 80 is every card since Ampere
  --threads N       how many CUDA sources are compiled at once (as many as there are cores)
";

/// What is built: package and program.
const PROGRAMS: &[(&str, &str)] = &[("millrace-server", "millrace"), ("millrace-gpu-bench", "candle_times")];

/// What the command line says.
#[derive(Debug, Default, PartialEq)]
struct Arguments {
    cuda_home: Option<OsString>,
    compute_cap: Option<u32>,
    threads: Option<usize>,
}

/// Runs the command with the words that follow it.
pub(crate) fn build(words: impl Iterator<Item = OsString>) -> Result<(), String> {
    let arguments = Arguments::read(words)?;
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Err("build-cuda knows x86-64 Linux only: the shims are written in its assembler".to_owned());
    }
    let toolkit = Toolkit::find(arguments.cuda_home.clone())?;
    let metadata = metadata()?;
    let target = metadata.get("target_directory").and_then(Value::as_str).map(PathBuf::from);
    let target = target.ok_or("cargo metadata names no target directory")?;
    let stand_ins = target.join("cuda-shims");
    write_shims(&toolkit, &metadata, &stand_ins.join("lib"))?;
    compile(&toolkit, &arguments, &stand_ins)?;
    let folder = target.join("cuda");
    fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    for (_, program) in PROGRAMS {
        let path = folder.join(program);
        let strip = ["-s".as_ref(), "-o".as_ref(), path.as_os_str()];
        output(Command::new("strip").args(strip).arg(target.join("release").join(program)))?;
        inspect(&path)?;
    }
    Ok(())
}

impl Arguments {
    fn read(mut words: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut arguments = Self::default();
        while let Some(word) = words.next() {
            let name = word.to_string_lossy().into_owned();
            let mut value = || words.next().ok_or_else(|| format!("{name} wants a value\n\n{HELP}"));
            match name.as_str() {
                "--cuda-home" => arguments.cuda_home = Some(value()?),
                "--compute-cap" => arguments.compute_cap = Some(number(&name, &value()?, 50..=150)?),
                "--threads" => arguments.threads = Some(number(&name, &value()?, 1..=1024)?),
                _ => return Err(HELP.to_owned()),
            }
        }
        Ok(arguments)
    }
}

fn number<T>(name: &str, text: &OsStr, range: std::ops::RangeInclusive<T>) -> Result<T, String>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    let number = text.to_str().and_then(|text| text.parse().ok()).filter(|number| range.contains(number));
    number.ok_or_else(|| {
        format!("{name}: expected a number from {} to {}, got {}", range.start(), range.end(), text.display())
    })
}

/// What cargo knows of the workspace, with the packages that the feature brings in.
fn metadata() -> Result<Value, String> {
    let arguments = ["metadata", "--format-version", "1", "--locked", "--features", "millrace-server/cuda"];
    let output = output(Command::new("cargo").args(arguments))?;
    serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))
}

fn write_shims(toolkit: &Toolkit, metadata: &Value, folder: &Path) -> Result<(), String> {
    let packages = metadata.get("packages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let cudarc: Vec<&Path> = packages
        .iter()
        .filter(|package| package.get("name").and_then(Value::as_str) == Some("cudarc"))
        .filter_map(|package| package.get("manifest_path").and_then(Value::as_str).map(Path::new)?.parent())
        .collect();
    let [cudarc] = cudarc.as_slice() else {
        return Err(format!("expected one package `cudarc` among the dependencies, got {}", cudarc.len()));
    };
    for library in shims::LIBRARIES {
        let source = cudarc.join("src").join(library.folder).join("sys/mod.rs");
        let source = fs::read_to_string(&source).map_err(|error| format!("{}: {error}", source.display()))?;
        let functions = shims::functions(&source);
        if functions.is_empty() {
            return Err(format!("the bindings of {} declare no functions as far as shims.rs can see", library.name));
        }
        shims::write(library, &functions, folder)?;
        say(&format!("shim for {}: {} functions", library.soname, functions.len()));
    }
    let cudart = folder.join("libcudart.a");
    fs::copy(&toolkit.cudart, &cudart).map_err(|error| format!("cannot write {}: {error}", cudart.display()))?;
    Ok(())
}

fn compile(toolkit: &Toolkit, arguments: &Arguments, stand_ins: &Path) -> Result<(), String> {
    let inherited = env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(toolkit.root.join("bin")).chain(env::split_paths(&inherited));
    let path = env::join_paths(path).map_err(|error| format!("PATH: {error}"))?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--locked"]);
    for (package, program) in PROGRAMS {
        cargo.args(["--package", package, "--bin", program, "--features", &format!("{package}/cuda")]);
    }
    cargo
        .env("PATH", path)
        .env("CUDA_COMPUTE_CAP", arguments.compute_cap.unwrap_or(90).to_string())
        .env("CUDAFORGE_THREADS", arguments.threads.unwrap_or(cores).to_string())
        // Where the bindings look for libraries: the shims alone. nvcc is found by PATH; were the toolkit named here, too, a
        // `libcuda.so` in it would come before our `libcuda.a`.
        .env("CUDA_ROOT", stand_ins)
        .env_remove("CUDA_HOME")
        .env_remove("CUDA_PATH")
        .env_remove("CUDA_TOOLKIT_ROOT_DIR")
        .env_remove("CUDNN_LIB")
        .env_remove("NVCC");
    let status = cargo.status().map_err(|error| format!("cannot run {cargo:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("failed: {cargo:?} ({status})")) }
}

/// Whether the program at `path` can start where there is no NVIDIA library, and does start here.
fn inspect(path: &Path) -> Result<(), String> {
    let dynamic = output(Command::new("readelf").arg("-d").arg(path))?;
    let needed = needed(&String::from_utf8_lossy(&dynamic.stdout));
    let stems = || shims::LIBRARIES.iter().map(|library| library.name).chain(["cudart", "nvidia"]);
    if let Some(library) = needed.iter().find(|file| stems().any(|stem| file.starts_with(&format!("lib{stem}")))) {
        return Err(format!("{} asks for {library} at start-up: some shim was not linked", path.display()));
    }
    let version = output(Command::new(path).arg("--version"))?;
    let size = fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?.len();
    say(&format!(
        "{}: {}; {}.{} MB; asks for {} and, by need, glibc {}",
        path.display(),
        String::from_utf8_lossy(&version.stdout).trim(),
        size / 1_000_000,
        size / 100_000 % 10,
        needed.join(", "),
        glibc(path)?
    ));
    Ok(())
}

/// The libraries that the loader opens before a program starts, out of what `readelf -d` prints.
fn needed(dynamic: &str) -> Vec<String> {
    let names = dynamic.lines().filter(|line| line.contains("(NEEDED)")).filter_map(|line| {
        let (_, rest) = line.split_once('[')?;
        Some(rest.split_once(']')?.0.to_owned())
    });
    names.collect()
}

/// The newest version of glibc whose symbols a program asks for.
fn glibc(path: &Path) -> Result<String, String> {
    let versions = output(Command::new("readelf").arg("-V").arg(path))?;
    let text = String::from_utf8_lossy(&versions.stdout).into_owned();
    let numbers = text.split("Name: GLIBC_").skip(1).filter_map(|rest| {
        let version = rest.split_whitespace().next()?;
        version.split('.').map(|part| part.parse::<u32>().ok()).collect::<Option<Vec<_>>>()
    });
    let newest = numbers.max().unwrap_or_default();
    Ok(newest.iter().map(u32::to_string).collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::{Arguments, needed};

    fn read(words: &[&str]) -> Result<Arguments, String> {
        Arguments::read(words.iter().map(Into::into))
    }

    #[test]
    fn what_is_said_is_read_and_what_is_wrong_is_named() {
        let said = read(&["--cuda-home", "toolkit", "--compute-cap", "80", "--threads", "2"]).unwrap();
        let expected = Arguments { cuda_home: Some("toolkit".into()), compute_cap: Some(80), threads: Some(2) };
        assert_eq!(said, expected);
        assert_eq!(read(&[]).unwrap(), Arguments::default());
        let error = read(&["--compute-cap", "sm_90"]).unwrap_err();
        assert_eq!(error, "--compute-cap: expected a number from 50 to 150, got sm_90");
        assert!(read(&["--threads"]).unwrap_err().starts_with("--threads wants a value"));
        assert!(read(&["--cuda"]).unwrap_err().starts_with("usage:"));
    }

    #[test]
    fn the_libraries_of_a_program_are_read() {
        let dynamic = "
 0x0000000000000001 (NEEDED)             Shared library: [libstdc++.so.6]
 0x0000000000000001 (NEEDED)             Shared library: [libcuda.so.1]
 0x000000000000000c (INIT)               0x1000";
        assert_eq!(needed(dynamic), ["libstdc++.so.6", "libcuda.so.1"]);
    }
}
