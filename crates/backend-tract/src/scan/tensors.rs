//! Constants in the file: their sizes must agree with their data, and the data must be in the file or beside it.
//!
//! Afterwards every number lies in `raw_data`, so that the engine has one way to read it and opens no file.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use millrace_core::{LoadError, LoadErrorKind, MAX_RANK};
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{GraphProto, TensorProto};

use super::{Checker, called};

/// Whether the engine has the type, or is given a wider one in its place.
pub(super) fn is_supported(r#type: DataType) -> bool {
    element_bytes(r#type).is_some() || r#type == DataType::String
}

/// Bytes of one element; `None` for strings and for types that the engine does not have.
pub(super) fn element_bytes(r#type: DataType) -> Option<u64> {
    Some(match r#type {
        DataType::Bool | DataType::Uint8 | DataType::Int8 => 1,
        DataType::Uint16 | DataType::Int16 | DataType::Float16 | DataType::Bfloat16 => 2,
        DataType::Float | DataType::Int32 | DataType::Uint32 => 4,
        DataType::Double | DataType::Int64 | DataType::Uint64 => 8,
        _ => return None,
    })
}

/// Bytes of the constants of the graph and of the graphs inside it, by the name of their type. They have been settled.
pub(super) fn weights(graph: &GraphProto) -> BTreeMap<String, u64> {
    let mut types = BTreeMap::new();
    let mut count = |tensor: &TensorProto| {
        let name = match DataType::try_from(tensor.data_type).unwrap_or(DataType::Undefined) {
            DataType::Float => "FP32",
            DataType::Float16 => "FP16",
            DataType::Bfloat16 => "BF16",
            DataType::Double => "FP64",
            DataType::String => "BYTES",
            other => other.as_str_name(),
        };
        let strings = tensor.string_data.iter().map(Vec::len).sum::<usize>();
        *types.entry(name.to_owned()).or_insert(0) += (tensor.raw_data.len() + strings) as u64;
    };
    graph.initializer.iter().for_each(&mut count);
    super::graph::for_each_node(graph, &mut |node| {
        node.attribute.iter().flat_map(|found| found.t.iter().chain(&found.tensors)).for_each(&mut count);
        super::graph::subgraphs(node).flat_map(|inner| &inner.initializer).for_each(&mut count);
    });
    types
}

/// Checks and rewrites every constant of the graph and of the graphs inside it.
///
/// # Errors
/// [`LoadError`] naming the initializer or the node.
pub(super) fn settle(checker: &Checker<'_>, graph: &mut GraphProto) -> Result<(), LoadError> {
    let mut settler = Settler { checker, files: HashMap::new(), total: 0 };
    settler.graph(graph)
}

struct Settler<'a> {
    checker: &'a Checker<'a>,
    /// External files by name: many constants lie in one.
    files: HashMap<String, Bytes>,
    total: u64,
}

impl Settler<'_> {
    fn graph(&mut self, graph: &mut GraphProto) -> Result<(), LoadError> {
        for tensor in &mut graph.initializer {
            let label = format!("initializer `{}`", tensor.name);
            self.tensor(tensor, &label)?;
        }
        for node in &mut graph.node {
            let label = called(node);
            for attribute in &mut node.attribute {
                if attribute.sparse_tensor.is_some() || !attribute.sparse_tensors.is_empty() {
                    return Err(self.checker.unsupported(format_args!("{label}: sparse constants")));
                }
                attribute
                    .t
                    .iter_mut()
                    .chain(&mut attribute.tensors)
                    .try_for_each(|tensor| self.tensor(tensor, &label))?;
                attribute.g.iter_mut().chain(&mut attribute.graphs).try_for_each(|graph| self.graph(graph))?;
            }
        }
        Ok(())
    }

    fn tensor(&mut self, tensor: &mut TensorProto, label: &str) -> Result<(), LoadError> {
        let checker = self.checker;
        let r#type = DataType::try_from(tensor.data_type).unwrap_or(DataType::Undefined);
        if !is_supported(r#type) {
            return Err(checker
                .unsupported(format_args!("{label} is {}, which this engine does not run", r#type.as_str_name())));
        }
        if tensor.segment.is_some() {
            return Err(checker.unsupported(format_args!("{label} is stored in segments")));
        }
        let elements = elements(&tensor.dims).map_err(|why| checker.invalid(format_args!("{label}: {why}")))?;
        if tensor.data_location == Some(DataLocation::External as i32) {
            self.read_external(tensor, label)?;
        } else if tensor.raw_data.is_empty() {
            pack(tensor, r#type).ok_or_else(|| {
                checker.invalid(format_args!("{label}: a number does not fit in {}", r#type.as_str_name()))
            })?;
        }
        let (unit, wanted, got) = match element_bytes(r#type) {
            Some(size) => ("bytes", elements.checked_mul(size), tensor.raw_data.len()),
            None => ("elements", Some(elements), tensor.string_data.len()),
        };
        if wanted != Some(got as u64) {
            let dims = &tensor.dims;
            let wanted = wanted.map_or_else(|| "more than fit in memory".to_owned(), |wanted| wanted.to_string());
            let name = r#type.as_str_name();
            return Err(
                checker.invalid(format_args!("{label}: shape {dims:?} of {name} wants {wanted} {unit}, got {got}"))
            );
        }
        if tensor.string_data.iter().any(|string| std::str::from_utf8(string).is_err()) {
            return Err(checker.unsupported(format_args!("{label}: this engine takes only strings that are UTF-8")));
        }
        let bytes = tensor.raw_data.len() as u64;
        self.total = self.total.saturating_add(bytes);
        if bytes > checker.max_tensor_bytes() {
            return Err(
                checker.too_large(format_args!("{label}: {bytes} bytes; the limit is {}", checker.max_tensor_bytes()))
            );
        }
        if self.total > checker.source.memory_budget {
            let budget = checker.source.memory_budget;
            return Err(
                checker.too_large(format_args!("the weights take more than the memory budget of {budget} bytes"))
            );
        }
        Ok(())
    }

    /// Replaces a reference to a file by the bytes it means. Only files that the version's list names are opened.
    fn read_external(&mut self, tensor: &mut TensorProto, label: &str) -> Result<(), LoadError> {
        let checker = self.checker;
        let entry =
            |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
        let number = |key: &str| {
            let wrong =
                || checker.invalid(format_args!("{label}: the {key} of its external data is not a number of bytes"));
            entry(key).map(|text| text.parse::<usize>().map_err(|_| wrong())).transpose()
        };
        let location = entry("location").unwrap_or_default();
        let location = location.strip_prefix("./").unwrap_or(location);
        // The name is not repeated here: it may be a path of the machine.
        let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', ':', '\0']);
        if !location.split('/').all(is_plain) {
            let text = format_args!("{label}: external data must be a plain name inside the version's folder");
            return Err(checker.error(LoadErrorKind::Forbidden, text));
        }
        if !self.files.contains_key(location) {
            let missing = |why: &str| {
                checker.error(LoadErrorKind::Missing, format_args!("{label}: the external data `{location}` {why}"))
            };
            if !checker.source.files.list().iter().any(|(name, _)| name == location) {
                return Err(missing("is not among the version's files"));
            }
            let content = checker.source.files.read(location);
            let content = content.map_err(|error| missing("cannot be read").with_cause(error))?;
            self.files.insert(location.to_owned(), content);
        }
        let content = &self.files[location];
        let offset = number("offset")?.unwrap_or(0);
        let length = number("length")?.unwrap_or_else(|| content.len().saturating_sub(offset));
        let end = offset.checked_add(length).filter(|end| *end <= content.len());
        let Some(end) = end else {
            let (size, name) = (content.len(), location);
            let text = format!(
                "{label}: the external data `{name}` has {size} bytes; {length} from {offset} on are not there"
            );
            return Err(checker.invalid(text));
        };
        tensor.raw_data = content[offset..end].to_vec();
        tensor.data_location = None;
        tensor.external_data.clear();
        Ok(())
    }
}

/// The number of elements.
fn elements(dims: &[i64]) -> Result<u64, String> {
    if dims.len() > MAX_RANK {
        return Err(format!("rank {} is above the limit of {MAX_RANK}", dims.len()));
    }
    let sizes = dims.iter().map(|&dim| u64::try_from(dim)).collect::<Result<Vec<u64>, _>>();
    let sizes = sizes.map_err(|_| format!("shape {dims:?} has a negative size"))?;
    // The sizes beside a zero must be reasonable too: the engine multiplies them in its own order.
    let product = sizes.iter().filter(|size| **size > 0).try_fold(1_u64, |product, size| product.checked_mul(*size));
    let product = product.filter(|product| isize::try_from(*product).is_ok());
    let product = product.ok_or_else(|| format!("shape {dims:?} does not fit in memory"))?;
    Ok(if sizes.contains(&0) { 0 } else { product })
}

/// Turns a list of numbers into raw bytes. `None` when one does not fit the type.
fn pack(tensor: &mut TensorProto, r#type: DataType) -> Option<()> {
    fn narrow<T: TryFrom<i32>, const N: usize>(numbers: &[i32], bytes: fn(T) -> [u8; N]) -> Option<Vec<u8>> {
        let narrowed = numbers.iter().map(|&number| T::try_from(number).ok().map(bytes));
        narrowed.collect::<Option<Vec<_>>>().map(|list| list.concat())
    }
    let raw = match r#type {
        DataType::Float => tensor.float_data.iter().flat_map(|number| number.to_le_bytes()).collect(),
        DataType::Double => tensor.double_data.iter().flat_map(|number| number.to_le_bytes()).collect(),
        DataType::Int64 => tensor.int64_data.iter().flat_map(|number| number.to_le_bytes()).collect(),
        DataType::Uint64 => tensor.uint64_data.iter().flat_map(|number| number.to_le_bytes()).collect(),
        DataType::Uint32 => {
            let numbers = tensor.uint64_data.iter().map(|&number| u32::try_from(number).ok().map(u32::to_le_bytes));
            numbers.collect::<Option<Vec<_>>>()?.concat()
        }
        DataType::Int32 => tensor.int32_data.iter().flat_map(|number| number.to_le_bytes()).collect(),
        DataType::Int16 => narrow(&tensor.int32_data, i16::to_le_bytes)?,
        DataType::Int8 => narrow(&tensor.int32_data, i8::to_le_bytes)?,
        DataType::Uint16 | DataType::Float16 | DataType::Bfloat16 => narrow(&tensor.int32_data, u16::to_le_bytes)?,
        DataType::Uint8 => narrow(&tensor.int32_data, u8::to_le_bytes)?,
        DataType::Bool => tensor.int32_data.iter().map(|&number| u8::from(number != 0)).collect(),
        _ => return Some(()),
    };
    tensor.raw_data = raw;
    tensor.float_data = Vec::new();
    tensor.double_data = Vec::new();
    tensor.int32_data = Vec::new();
    tensor.int64_data = Vec::new();
    tensor.uint64_data = Vec::new();
    Some(())
}
