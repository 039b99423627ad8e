//! From files to a loaded model: find the file and hand it to its reader.

use std::sync::Arc;

use millrace_core::{Backend, LoadError, LoadErrorKind, Model, ModelSource};

use crate::{formats, graph};

/// The engine: trees, and the pipelines that they stand in, on the CPU.
#[derive(Debug, Clone, Default)]
pub struct TreesBackend {}

impl Backend for TreesBackend {
    fn name(&self) -> &'static str {
        "trees"
    }

    fn recognises(&self, source: &ModelSource) -> bool {
        model_file(source).is_ok()
    }

    fn load(&self, source: &ModelSource) -> Result<Arc<dyn Model>, LoadError> {
        let file = model_file(source)?;
        let size = source.files.list().iter().find(|(name, _)| name == file).map_or(0, |(_, size)| *size);
        if size > source.memory_budget {
            let text = format!("{file}: {size} bytes; the memory budget is {}", source.memory_budget);
            return Err(LoadError::new(LoadErrorKind::TooLarge, text));
        }
        let bytes = source.files.read(file).map_err(|error| {
            let text = format!("{file}: it cannot be read: {}", error.kind());
            LoadError::new(LoadErrorKind::Missing, text).with_cause(error)
        })?;
        if file.ends_with(ONNX) { graph::load(file, &bytes, source) } else { formats::load(file, &bytes, source) }
    }
}

const ONNX: &str = ".onnx";

/// The one model file of the version: its ONNX file, or a file that has one of the names of the libraries' own formats.
fn model_file(source: &ModelSource) -> Result<&str, LoadError> {
    let names = || source.files.list().iter().map(|(name, _)| name.as_str());
    let onnx: Vec<&str> = names().filter(|name| name.ends_with(ONNX) && !name.contains('/')).collect();
    match onnx.as_slice() {
        [file] => return Ok(file),
        [] => {}
        several => {
            return several.iter().copied().find(|name| *name == "model.onnx").ok_or_else(|| {
                let text = format!(
                    "which model file? expected one .onnx file or one called model.onnx, got {}",
                    several.len()
                );
                LoadError::new(LoadErrorKind::Invalid, text)
            });
        }
    }
    formats::NAMES.into_iter().find_map(|wanted| names().find(|name| *name == wanted)).ok_or_else(|| {
        let text = format!("no model file: expected model.onnx, or one of {}", formats::NAMES.join(", "));
        LoadError::new(LoadErrorKind::Missing, text)
    })
}
