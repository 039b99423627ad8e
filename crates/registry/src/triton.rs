//! Triton's `config.pbtxt`: what it says about a model, in the form of a [`ModelConfig`].
//!
//! A file that contradicts itself or its folder is an error with line and column. What has no meaning here is named in a
//! warning and left out: nothing of an operator's file is dropped in silence.

use std::num::NonZeroUsize;

use millrace_core::{DType, Quoted, nearest};

use crate::model_config::{WarmupInput, WarmupRequest};
use crate::text_format::{self, Field, Message, Value};
use crate::toml_reader::ModelConfigError;
use crate::{ModelConfig, VersionPolicy};

mod declared;

pub use declared::{Declared, DeclaredTensor};

/// The file's name.
pub(crate) const FILE: &str = "config.pbtxt";

/// What Triton calls its engine for ONNX files; any engine here that loads them will do.
const ONNX: [&str; 4] = ["", "onnxruntime_onnx", "onnxruntime", "onnx"];
/// What Triton calls its engine for forests.
const FORESTS: &str = "fil";
/// Fields that are read.
const READ: [&str; 11] = [
    "name",
    "platform",
    "backend",
    "max_batch_size",
    "input",
    "output",
    "dynamic_batching",
    "version_policy",
    "instance_group",
    "model_warmup",
    "default_model_filename",
];
/// Triton's other fields, for suggestions.
const OTHERS: [&str; 14] = [
    "runtime",
    "batch_input",
    "batch_output",
    "optimization",
    "sequence_batching",
    "ensemble_scheduling",
    "cc_model_filenames",
    "metric_tags",
    "parameters",
    "model_operations",
    "model_transaction_policy",
    "model_repository_agents",
    "response_cache",
    "model_metrics",
];

/// Reads the text of a `config.pbtxt` in the folder of a model that is called one of `names`. Also gives what is not
/// heeded, one line each.
///
/// # Errors
/// [`ModelConfigError`] for text that is not the format, values of the wrong kind, another model's name, and settings that
/// contradict each other.
pub(crate) fn read(text: &str, names: &[&str]) -> Result<(ModelConfig, Vec<String>), ModelConfigError> {
    let mut reader = Reader { text, warnings: Vec::new() };
    let message = text_format::parse(text).map_err(|error| reader.error(error.offset, &error.message))?;
    let config = reader.model(&message, names)?;
    Ok((config, reader.warnings))
}

struct Reader<'t> {
    text: &'t str,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn error(&self, offset: usize, message: &str) -> ModelConfigError {
        ModelConfigError::at(FILE, self.text, &(offset..offset), message)
    }

    /// Says that `field` is not heeded.
    fn warn(&mut self, field: &Field, why: &str) {
        let warning = self.error(field.offset, &format!("{} {why}", Quoted(&field.name)));
        self.warnings.push(warning.to_string());
    }

    /// Says that `field`, of which nothing is read, is not heeded.
    fn ignore(&mut self, field: &Field) {
        self.warn(field, "has no meaning here and is ignored");
    }

    fn wants(&self, field: &Field, what: &str) -> ModelConfigError {
        self.error(field.offset, &format!("`{}`: expected {what}", field.name))
    }

    fn string<'f>(&self, field: &'f Field) -> Result<&'f str, ModelConfigError> {
        match &field.value {
            Value::Text(text) => Ok(text),
            Value::Word(_) | Value::Message(_) => Err(self.wants(field, "a quoted string")),
        }
    }

    fn word<'f>(&self, field: &'f Field) -> Result<&'f str, ModelConfigError> {
        match &field.value {
            Value::Word(word) => Ok(word),
            Value::Text(_) | Value::Message(_) => Err(self.wants(field, "a word")),
        }
    }

    fn message<'f>(&self, field: &'f Field) -> Result<&'f [Field], ModelConfigError> {
        match &field.value {
            Value::Message(Message(fields)) => Ok(fields),
            Value::Text(_) | Value::Word(_) => Err(self.wants(field, "{ … }")),
        }
    }

    fn number<T: std::str::FromStr>(&self, field: &Field) -> Result<T, ModelConfigError> {
        let number = match &field.value {
            Value::Word(word) => word.parse().ok(),
            Value::Text(_) | Value::Message(_) => None,
        };
        number.ok_or_else(|| self.wants(field, "a whole number in its range"))
    }

    fn flag(&self, field: &Field) -> Result<bool, ModelConfigError> {
        match &field.value {
            Value::Word(word) if matches!(word.as_str(), "true" | "True" | "t" | "1") => Ok(true),
            Value::Word(word) if matches!(word.as_str(), "false" | "False" | "f" | "0") => Ok(false),
            _ => Err(self.wants(field, "true or false")),
        }
    }

    fn model(&mut self, message: &Message, names: &[&str]) -> Result<ModelConfig, ModelConfigError> {
        let mut config = ModelConfig::default();
        let mut declared = Declared::default();
        let mut executors = None;
        let mut preferred = None;
        for field in &message.0 {
            match field.name.as_str() {
                "name" => {
                    let name = self.string(field)?;
                    if !name.is_empty() && !names.contains(&name) {
                        let folder = names.last().copied().unwrap_or_default();
                        let text = format!("the model is called {}, but its folder `{folder}`", Quoted(name));
                        return Err(self.error(field.offset, &text));
                    }
                }
                "platform" | "backend" => {
                    let engine = self.string(field)?;
                    if engine == FORESTS {
                        config.backend = Some("trees".to_owned());
                    } else if !ONNX.contains(&engine) {
                        config.backend = Some(engine.to_owned());
                    }
                }
                "max_batch_size" => declared.max_batch_size = Some(self.number(field)?),
                "input" => declared.inputs.push(self.tensor(field)?),
                "output" => declared.outputs.push(self.tensor(field)?),
                "version_policy" => config.versions = Some(self.policy(field)?),
                "dynamic_batching" => preferred = self.batching(field, &mut config)?,
                "instance_group" => executors = self.instances(field, executors)?,
                "model_warmup" => {
                    if let Some(request) = self.warmup(field)? {
                        config.warmup.requests.push(request);
                    }
                }
                "default_model_filename" => {
                    let name = self.string(field)?;
                    if name.contains('/') {
                        return Err(self.wants(field, "the name of a file in the version's folder"));
                    }
                    config.model_file = Some(name.to_owned()).filter(|name| !name.is_empty());
                }
                "parameters" => self.parameter(field)?,
                name if OTHERS.contains(&name) => self.ignore(field),
                name => {
                    let known: Vec<&str> = READ.iter().chain(&OTHERS).copied().collect();
                    let hint = nearest(name, known.iter().copied()).map(|near| format!("; did you mean `{near}`?"));
                    self.warn(field, &format!("is unknown and is ignored{}", hint.unwrap_or_default()));
                }
            }
        }
        match declared.max_batch_size {
            None => {}
            Some(0) => config.batching.enabled = Some(false),
            Some(most) => {
                config.batching.max_batch_size = NonZeroUsize::new(most);
                if let Some((field, largest)) = preferred.filter(|(_, largest)| *largest > most) {
                    let text = format!("`preferred_batch_size`: {largest} is more than `max_batch_size`, {most}");
                    return Err(self.error(field, &text));
                }
            }
        }
        config.batching.num_batch_threads = executors;
        config.declared = Some(declared).filter(|declared| *declared != Declared::default());
        Ok(config)
    }

    fn tensor(&mut self, field: &Field) -> Result<DeclaredTensor, ModelConfigError> {
        let mut tensor = DeclaredTensor::default();
        let (mut dims, mut reshape) = (None, None);
        for part in self.message(field)? {
            match part.name.as_str() {
                "name" => self.string(part)?.clone_into(&mut tensor.name),
                "data_type" => tensor.dtype = self.dtype(part)?,
                "dims" => dims.get_or_insert_with(Vec::new).push(self.dim(part)?),
                "reshape" => {
                    let shape = self.message(part)?.iter().filter(|part| part.name == "shape");
                    reshape = Some(shape.map(|part| self.dim(part)).collect::<Result<Vec<_>, _>>()?);
                    self.warn(part, "is not applied: clients send the model's own shape");
                }
                "format" if self.word(part)? == "FORMAT_NONE" => {}
                "optional" | "is_shape_tensor" | "allow_ragged_batch" | "is_non_linear_format_io"
                    if !self.flag(part)? => {}
                _ => self.ignore(part),
            }
        }
        if tensor.name.is_empty() {
            return Err(self.wants(field, "a `name` in it"));
        }
        tensor.dims = reshape.or(dims);
        Ok(tensor)
    }

    fn dim(&self, field: &Field) -> Result<Option<usize>, ModelConfigError> {
        match self.number::<i64>(field)? {
            -1 => Ok(None),
            size => usize::try_from(size).map(Some).map_err(|_| self.wants(field, "a size, or -1 where it varies")),
        }
    }

    /// Triton's name for a type is ours behind `TYPE_`, but for strings.
    fn dtype(&self, field: &Field) -> Result<Option<DType>, ModelConfigError> {
        match self.word(field)? {
            "TYPE_INVALID" => Ok(None),
            "TYPE_STRING" => Ok(Some(DType::Bytes)),
            word => {
                let named =
                    word.strip_prefix("TYPE_").filter(|name| *name != "BYTES").and_then(|name| name.parse().ok());
                named.map(Some).ok_or_else(|| self.wants(field, "a type such as TYPE_FP32"))
            }
        }
    }

    fn policy(&self, field: &Field) -> Result<VersionPolicy, ModelConfigError> {
        let mut policy = VersionPolicy::default();
        for choice in self.message(field)? {
            let inner = self.message(choice)?;
            policy = match choice.name.as_str() {
                "latest" => {
                    let count = inner.iter().rfind(|part| part.name == "num_versions");
                    let count = count.map(|part| self.number::<usize>(part)).transpose()?.unwrap_or(1);
                    VersionPolicy::Latest(NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN))
                }
                "all" => VersionPolicy::All,
                "specific" => {
                    let versions = inner.iter().filter(|part| part.name == "versions");
                    VersionPolicy::Specific(versions.map(|part| self.number(part)).collect::<Result<_, _>>()?)
                }
                _ => return Err(self.error(choice.offset, "expected `latest`, `all` or `specific`")),
            };
        }
        Ok(policy)
    }

    /// Gives where the preferred sizes stand, and the largest of them.
    fn batching(
        &mut self,
        field: &Field,
        config: &mut ModelConfig,
    ) -> Result<Option<(usize, usize)>, ModelConfigError> {
        let mut sizes: Vec<NonZeroUsize> = Vec::new();
        let mut at = 0;
        for part in self.message(field)? {
            match part.name.as_str() {
                "preferred_batch_size" => {
                    at = part.offset;
                    sizes.push(self.number(part)?);
                }
                "max_queue_delay_microseconds" => {
                    config.batching.max_queue_delay_microseconds = Some(self.number(part)?);
                }
                // Answers of one caller come in the order of its requests unless they run apart; nothing relies on more.
                "preserve_ordering" if !self.flag(part)? => {}
                _ => self.ignore(part),
            }
        }
        sizes.sort_unstable();
        sizes.dedup();
        let largest = sizes.last().map(|size| (at, size.get()));
        config.batching.enabled = Some(true);
        config.batching.preferred_batch_size = Some(sizes).filter(|sizes| !sizes.is_empty());
        Ok(largest)
    }

    /// Adds one group's instances to those of the groups `before`.
    fn instances(
        &mut self,
        field: &Field,
        before: Option<NonZeroUsize>,
    ) -> Result<Option<NonZeroUsize>, ModelConfigError> {
        let mut count = None;
        for part in self.message(field)? {
            match part.name.as_str() {
                "count" => count = NonZeroUsize::new(self.number(part)?),
                "kind" => match self.word(part)? {
                    "KIND_AUTO" | "KIND_CPU" | "KIND_MODEL" => {}
                    "KIND_GPU" => self.warn(part, "asks for a GPU; the instances run on the CPU"),
                    _ => return Err(self.wants(part, "KIND_AUTO, KIND_CPU, KIND_GPU or KIND_MODEL")),
                },
                "name" => {}
                _ => self.ignore(part),
            }
        }
        Ok(match (before, count) {
            (Some(before), Some(count)) => Some(before.saturating_add(count.get())),
            (before, count) => before.or(count),
        })
    }

    /// A warm-up request; `None` where it needs data that is not read.
    fn warmup(&mut self, field: &Field) -> Result<Option<WarmupRequest>, ModelConfigError> {
        let mut request = WarmupRequest { name: String::new(), rows: 1, runs: NonZeroUsize::MIN, inputs: Vec::new() };
        for part in self.message(field)? {
            match part.name.as_str() {
                "name" => self.string(part)?.clone_into(&mut request.name),
                "batch_size" => request.rows = self.number::<usize>(part)?.max(1),
                "count" => request.runs = NonZeroUsize::new(self.number(part)?).unwrap_or(NonZeroUsize::MIN),
                "inputs" => match self.warmup_input(part)? {
                    Some(input) => request.inputs.push(input),
                    None => {
                        self.warn(field, "reads its data from a file, which is not supported; it is left out");
                        return Ok(None);
                    }
                },
                _ => self.ignore(part),
            }
        }
        Ok(Some(request))
    }

    fn warmup_input(&mut self, field: &Field) -> Result<Option<WarmupInput>, ModelConfigError> {
        let mut input = WarmupInput { name: String::new(), dtype: None, dims: Vec::new(), is_random: false };
        let entry = self.message(field)?;
        for part in entry.iter().filter(|part| part.name == "key") {
            self.string(part)?.clone_into(&mut input.name);
        }
        for value in entry.iter().filter(|part| part.name == "value") {
            for part in self.message(value)? {
                match part.name.as_str() {
                    "data_type" => input.dtype = self.dtype(part)?,
                    "dims" => input.dims.push(self.number(part)?),
                    "zero_data" => input.is_random &= !self.flag(part)?,
                    "random_data" => input.is_random |= self.flag(part)?,
                    "input_data_file" => return Ok(None),
                    _ => self.ignore(part),
                }
            }
        }
        Ok(Some(input))
    }

    fn parameter(&mut self, field: &Field) -> Result<(), ModelConfigError> {
        let key = self.message(field)?.iter().rfind(|part| part.name == "key");
        let key = key.map(|key| self.string(key)).transpose()?.unwrap_or_default().to_owned();
        self.warn(field, &format!("{} is Triton's engine's own and is ignored", Quoted(&key)));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
