//! What the `[options]` of a model may say to this engine. Anything else is an error: an option that does nothing would
//! be taken for one that works.

use std::collections::BTreeMap;

use millrace_core::{LoadError, LoadErrorKind, Quoted};
use ort::session::builder::GraphOptimizationLevel;

/// Devices that a model may be run on, by the name that options use and the one that libraries use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provider {
    Cpu,
    Cuda,
    TensorRt,
    OpenVino,
}

impl Provider {
    const ALL: [Self; 4] = [Self::Cpu, Self::Cuda, Self::TensorRt, Self::OpenVino];

    /// As `execution_providers` has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
            Self::OpenVino => "openvino",
        }
    }

    /// As a library calls it.
    pub(crate) fn library_name(self) -> &'static str {
        match self {
            Self::Cpu => "CPUExecutionProvider",
            Self::Cuda => "CUDAExecutionProvider",
            Self::TensorRt => "TensorrtExecutionProvider",
            Self::OpenVino => "OpenVINOExecutionProvider",
        }
    }
}

/// The options of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// `execution_providers`: in order of preference; never empty. Default: the CPU.
    pub(crate) providers: Vec<Provider>,
    /// `graph_optimization`: `all`, `extended`, `basic` or `disabled`. Default: all.
    pub(crate) optimization: GraphOptimizationLevel,
    /// `memory_arena`: whether memory of a run is kept for the next one. Default: true.
    pub(crate) memory_arena: bool,
    /// `check_rows`: whether loading tries out that rows are independent. Default: true.
    pub(crate) check_rows: bool,
}

const KNOWN: &str = "`check_rows`, `execution_providers`, `graph_optimization` and `memory_arena`";

impl Options {
    /// Reads the options as `model.toml` has them.
    ///
    /// # Errors
    /// [`LoadError`] naming an option that does not exist or its value.
    pub(crate) fn read(options: &BTreeMap<String, String>) -> Result<Self, LoadError> {
        let mut read = Self {
            providers: vec![Provider::Cpu],
            optimization: GraphOptimizationLevel::All,
            memory_arena: true,
            check_rows: true,
        };
        for (name, value) in options {
            match name.as_str() {
                "check_rows" => read.check_rows = flag(name, value)?,
                "memory_arena" => read.memory_arena = flag(name, value)?,
                "graph_optimization" => read.optimization = level(value)?,
                "execution_providers" => read.providers = providers(value)?,
                _ => return Err(invalid(format!("unknown option {}; onnxruntime has {KNOWN}", Quoted(name)))),
            }
        }
        Ok(read)
    }
}

fn invalid(text: String) -> LoadError {
    LoadError::new(LoadErrorKind::Invalid, text)
}

fn flag(name: &str, value: &str) -> Result<bool, LoadError> {
    value.parse().map_err(|_| invalid(format!("option `{name}`: expected true or false, got {}", Quoted(value))))
}

fn level(value: &str) -> Result<GraphOptimizationLevel, LoadError> {
    Ok(match value {
        "all" => GraphOptimizationLevel::All,
        "extended" => GraphOptimizationLevel::Level2,
        "basic" => GraphOptimizationLevel::Level1,
        "disabled" => GraphOptimizationLevel::Disable,
        _ => {
            let text = "option `graph_optimization`: expected all, extended, basic or disabled, got";
            return Err(invalid(format!("{text} {}", Quoted(value))));
        }
    })
}

/// A list as TOML writes it, or words between commas.
fn providers(value: &str) -> Result<Vec<Provider>, LoadError> {
    let inner = value.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(value);
    let words = inner.split(',').map(|word| word.trim().trim_matches(['"', '\'']));
    let mut list = Vec::new();
    for word in words.filter(|word| !word.is_empty()) {
        let Some(provider) = Provider::ALL.into_iter().find(|provider| provider.name() == word) else {
            let known = Provider::ALL.map(Provider::name).join(", ");
            return Err(invalid(format!(
                "option `execution_providers`: expected some of {known}, got {}",
                Quoted(word)
            )));
        };
        if list.contains(&provider) {
            return Err(invalid(format!("option `execution_providers`: `{word}` stands twice")));
        }
        list.push(provider);
    }
    if list.is_empty() {
        return Err(invalid("option `execution_providers`: expected at least one".to_owned()));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ort::session::builder::GraphOptimizationLevel;

    use super::{Options, Provider};

    fn read(pairs: &[(&str, &str)]) -> Result<Options, String> {
        let options: BTreeMap<String, String> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Options::read(&options).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_read_as_toml_writes_them() {
        let lists = ["[\"cuda\", \"cpu\"]", "['cuda','cpu']", "cuda,cpu", "[ \"cuda\" , \"cpu\", ]"];
        for list in lists {
            let options = read(&[("execution_providers", list), ("graph_optimization", "basic")]).unwrap();
            assert_eq!(options.providers, [Provider::Cuda, Provider::Cpu], "{list}");
            assert_eq!(options.optimization, GraphOptimizationLevel::Level1);
        }
        let options = read(&[("check_rows", "false"), ("memory_arena", "false")]).unwrap();
        assert!(!options.check_rows && !options.memory_arena);
    }

    #[test]
    fn what_is_not_known_is_an_error_that_says_what_is() {
        let refused = |name: &str, value: &str, words: &str| {
            let text = read(&[(name, value)]).unwrap_err();
            assert!(text.contains(words), "{text}");
        };
        refused("threads", "2", "unknown option `threads`; onnxruntime has `check_rows`");
        refused("execution_providers", "[\"gpu\"]", "expected some of cpu, cuda, tensorrt, openvino, got `gpu`");
        refused("execution_providers", "[]", "at least one");
        refused("execution_providers", "cpu,cpu", "twice");
        refused("graph_optimization", "3", "expected all, extended, basic or disabled, got `3`");
        refused("memory_arena", "yes", "expected true or false, got `yes`");
    }
}
