//! What follows a text network in a folder saved by `sentence-transformers`: its `modules.json` and the modules' own files.

use std::io;

use serde_json::Value;

use crate::activation::Activation;
use crate::error::HuggingFaceError;
use crate::fields::{Fields, list, parse};
use crate::pooling::{Pooling, PoolingMode};

const MODULES: &str = "modules.json";
/// Where the library puts the pooling's file by custom.
const POOLING: &str = "1_Pooling/config.json";
/// More modules than any model has.
const MAX_MODULES: usize = 32;

/// The way from the vectors of tokens to the vector of a text.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SentenceModules {
    /// The folder of the network's own files, relative to the model's; empty where they lie beside `modules.json`, as all
    /// newer models have them.
    pub transformer: String,
    /// How the vectors of tokens become one, where the files say it.
    pub pooling: Option<Pooling>,
    /// What is done with that, in order.
    pub steps: Vec<SentenceStep>,
}

/// One step behind the pooling.
#[derive(Debug, Clone, PartialEq)]
pub enum SentenceStep {
    /// A linear layer and a function.
    Dense(Dense),
    /// Division by the length (but by at least 1e-12).
    Normalize,
}

/// A linear layer `f(W·x + b)`; `linear.weight` [outputs, inputs] and `linear.bias` stand in the folder's
/// `model.safetensors`.
#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    /// The folder, relative to the model's.
    pub folder: String,
    /// Numbers taken.
    pub inputs: usize,
    /// Numbers given.
    pub outputs: usize,
    /// Whether there is a `b`.
    pub has_bias: bool,
    /// The function.
    pub activation: Activation,
}

impl SentenceModules {
    /// Reads what a folder says. `file` gives the content of a file by its name relative to the folder, or `None` where
    /// there is none. Without a `modules.json` there are no steps, and the pooling is that of `1_Pooling/config.json`, if any.
    ///
    /// # Errors
    /// A module that is not known here or stands in the wrong place, a file that is missing or damaged.
    pub fn read<B: AsRef<[u8]>>(mut file: impl FnMut(&str) -> io::Result<Option<B>>) -> Result<Self, HuggingFaceError> {
        let mut content =
            |name: &str| file(name).map_err(|source| HuggingFaceError::Read { file: name.to_owned(), source });
        let mut modules = Self::default();
        let Some(bytes) = content(MODULES)? else {
            modules.pooling = content(POOLING)?.map(|bytes| Pooling::parse(POOLING, bytes.as_ref())).transpose()?;
            return Ok(modules);
        };
        let mut has_transformer = false;
        for module in listed(bytes.as_ref())? {
            let config = format!("{}config.json", module.prefix());
            let wrong = |expected: &str| module.fields.wrong("type", expected);
            if !has_transformer && module.class != "Transformer" {
                return Err(module.fields.unsupported("type", "Transformer as the first module"));
            }
            match module.class.as_str() {
                "Transformer" if has_transformer => return Err(wrong("a Transformer only as the first module")),
                "Transformer" => {
                    has_transformer = true;
                    modules.transformer = module.path;
                }
                "Pooling" if modules.pooling.is_some() || !modules.steps.is_empty() => {
                    return Err(wrong("one Pooling, right behind the Transformer"));
                }
                "Pooling" => {
                    let bytes = content(&config)?.ok_or_else(|| absent(&config))?;
                    modules.pooling = Some(Pooling::parse(&config, bytes.as_ref())?);
                }
                // It does something only in training.
                "Dropout" => {}
                "Normalize" | "Dense" if modules.pooling.is_none() => {
                    return Err(wrong("a Pooling in front of it"));
                }
                "Normalize" => {
                    if let Some(bytes) = content(&config)? {
                        on_sentences(&Fields::parse(&config, bytes.as_ref())?)?;
                    }
                    modules.steps.push(SentenceStep::Normalize);
                }
                "Dense" => {
                    let bytes = content(&config)?.ok_or_else(|| absent(&config))?;
                    let fields = Fields::parse(&config, bytes.as_ref())?;
                    modules.steps.push(SentenceStep::Dense(Dense::read(&fields, module.path)?));
                }
                _ => {
                    let known = list(["Transformer", "Pooling", "Dense", "Normalize", "Dropout"].into_iter());
                    return Err(module.fields.unsupported("type", known));
                }
            }
        }
        modules.check()?;
        Ok(modules)
    }

    /// The pooling: the files', else `option`, else the mean, as the library has it.
    pub fn pooling_or(&self, option: Option<PoolingMode>) -> Pooling {
        self.pooling.clone().unwrap_or_else(|| Pooling::of(option.unwrap_or(PoolingMode::Mean)))
    }

    /// Numbers in the vector of a text, where those of one token have `hidden`.
    ///
    /// # Errors
    /// Modules whose sizes do not fit one another.
    pub fn dimension(&self, pooling: &Pooling, hidden: usize) -> Result<usize, HuggingFaceError> {
        let clash = |expected: usize, got: usize, whose: &str| HuggingFaceError::Wrong {
            file: MODULES.to_owned(),
            key: whose.to_owned(),
            expected: format!("{expected} numbers, as it gets"),
            got: got.to_string(),
        };
        if let Some(said) = pooling.dimension.filter(|said| *said != hidden) {
            return Err(clash(hidden, said, "Pooling"));
        }
        let mut width = hidden * pooling.modes.len();
        for step in &self.steps {
            match step {
                SentenceStep::Dense(dense) if dense.inputs != width => {
                    return Err(clash(width, dense.inputs, &dense.folder));
                }
                SentenceStep::Dense(dense) => width = dense.outputs,
                SentenceStep::Normalize => {}
            }
        }
        Ok(width)
    }

    /// Whether the last step makes vectors of length 1.
    pub fn is_normalised(&self) -> bool {
        self.steps.last() == Some(&SentenceStep::Normalize)
    }

    fn check(&self) -> Result<(), HuggingFaceError> {
        // Where the pooling does not say how wide a token's vector is, the engine finds out through `dimension`.
        match &self.pooling {
            Some(pooling) => pooling.dimension.map_or(Ok(0), |hidden| self.dimension(pooling, hidden)).map(|_| ()),
            None => Ok(()),
        }
    }
}

impl Dense {
    fn read(fields: &Fields, folder: String) -> Result<Self, HuggingFaceError> {
        on_sentences(fields)?;
        if fields.flag("use_residual")? == Some(true) {
            return Err(fields.unsupported("use_residual", "false"));
        }
        Ok(Self {
            folder,
            inputs: fields.needed_size("in_features", 1..=1 << 20)?,
            outputs: fields.needed_size("out_features", 1..=1 << 20)?,
            has_bias: fields.flag("bias")?.unwrap_or(true),
            activation: Activation::read_class(fields, "activation_function", Activation::Tanh)?,
        })
    }
}

/// Modules can be told to work on the vectors of tokens instead.
fn on_sentences(fields: &Fields) -> Result<(), HuggingFaceError> {
    for key in ["module_input_name", "module_output_name"] {
        fields.word(key, &[("sentence_embedding", ())])?;
    }
    Ok(())
}

struct Module {
    fields: Fields,
    /// The last part of the class's name: where it lives has changed over the library's versions.
    class: String,
    path: String,
}

impl Module {
    fn prefix(&self) -> String {
        if self.path.is_empty() { String::new() } else { format!("{}/", self.path) }
    }
}

/// The modules in order.
fn listed(bytes: &[u8]) -> Result<Vec<Module>, HuggingFaceError> {
    let syntax = |detail: String| HuggingFaceError::Syntax { file: MODULES.to_owned(), detail };
    let Value::Array(items) = parse(MODULES, bytes)? else {
        return Err(syntax("expected a list of modules".to_owned()));
    };
    if items.is_empty() || items.len() > MAX_MODULES {
        return Err(syntax(format!("{} modules; expected 1 to {MAX_MODULES}", items.len())));
    }
    let module = |(index, item)| {
        let Value::Object(map) = item else { return Err(syntax(format!("module {index} is no object"))) };
        let fields = Fields::of(MODULES, map);
        let class = fields.text("type")?.ok_or_else(|| fields.missing("type", "the name of a class"))?;
        let class = class.rsplit('.').next().unwrap_or(class).to_owned();
        let path = fields.text("path")?.unwrap_or_default().trim_end_matches('/').to_owned();
        Ok(Module { fields, class, path })
    };
    items.into_iter().enumerate().map(module).collect()
}

fn absent(file: &str) -> HuggingFaceError {
    HuggingFaceError::Absent { file: file.to_owned(), by: MODULES.to_owned() }
}
