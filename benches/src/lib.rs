//! What several of these programs need: the files of a model, as they lie on the disk.

#![forbid(unsafe_code)]

use std::io;
use std::path::Path;

use millrace_core::MemoryFiles;

/// The files of the model at `path`: of a folder all below it, under their names relative to it; one file alone is `model.onnx`.
///
/// # Errors
/// What cannot be read, with its path.
pub fn model_files(path: &Path) -> io::Result<MemoryFiles> {
    if path.is_dir() {
        return below(path, "", MemoryFiles::default());
    }
    Ok(MemoryFiles::default().with("model.onnx", read(path)?))
}

fn below(folder: &Path, prefix: &str, mut files: MemoryFiles) -> io::Result<MemoryFiles> {
    for entry in std::fs::read_dir(folder).map_err(|error| at(folder, &error))? {
        let entry = entry.map_err(|error| at(folder, &error))?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        files = if entry.path().is_dir() {
            below(&entry.path(), &format!("{name}/"), files)?
        } else {
            files.with(name, read(&entry.path())?)
        };
    }
    Ok(files)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| at(path, &error))
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
