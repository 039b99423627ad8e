//! Writes `crates/proto/src/gen` from the files in `/proto`, or says how the two differ. Needs no `protoc`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use prost::Message as _;
use prost_types::FileDescriptorSet;

/// What the generator writes beside the Rust files.
const DESCRIPTORS: &str = "descriptors.bin";

/// File contents by name.
type Files = BTreeMap<String, Vec<u8>>;

/// Replaces the generated files.
pub(crate) fn write() -> Result<(), String> {
    let fresh = generate()?;
    let home = home();
    for stale in read(&home)?.keys().filter(|name| !fresh.contains_key(*name)) {
        fs::remove_file(home.join(stale)).map_err(|error| format!("cannot remove {stale}: {error}"))?;
    }
    for (name, contents) in fresh {
        fs::write(home.join(&name), contents).map_err(|error| format!("cannot write {name}: {error}"))?;
    }
    Ok(())
}

/// Fails where [`write`] would change something, and says where.
pub(crate) fn check() -> Result<(), String> {
    let (fresh, present) = (generate()?, read(&home())?);
    let differs = |name: &&String| fresh.get(*name) != present.get(*name);
    let mut names: Vec<&String> = fresh.keys().chain(present.keys()).filter(differs).collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Ok(());
    }
    Err(format!("crates/proto/src/gen is not what /proto gives: {names:?} differ; run `cargo xtask codegen`"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn home() -> PathBuf {
    root().join("crates/proto/src/gen")
}

fn generate() -> Result<Files, String> {
    let include = root().join("proto");
    let mut sources = Vec::new();
    find(&include, &mut sources).map_err(|error| format!("cannot read /proto: {error}"))?;
    sources.sort();
    let mut set = protox::compile(sources, [include]).map_err(|error| format!("/proto: {error}"))?;

    let scratch = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
    tonic_prost_build::configure()
        .build_transport(false)
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .bytes(".")
        .include_file("mod.rs")
        .out_dir(scratch.path())
        .emit_rerun_if_changed(false)
        .compile_fds(set.clone())
        .map_err(|error| format!("the generator failed: {error}"))?;

    let mut files = read(scratch.path())?;
    files.insert(DESCRIPTORS.to_owned(), without_comments(&mut set));
    Ok(files)
}

/// Reflection needs names and numbers, not what people wrote around them.
fn without_comments(set: &mut FileDescriptorSet) -> Vec<u8> {
    for file in &mut set.file {
        file.source_code_info = None;
    }
    set.encode_to_vec()
}

fn find(directory: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
    Ok(())
}

fn read(directory: &Path) -> Result<Files, String> {
    let failed = |error: io::Error| format!("cannot read {}: {error}", directory.display());
    let mut files = Files::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).map_err(failed)?);
    }
    Ok(files)
}
