//! Neutral golden cases: what goes in, what must come out, whatever the protocol. The form is in `fixtures/README.md`.

use std::fs;
use std::path::Path;

use half::f16;
use millrace_core::{DType, Element, Strings, Tensor};
use serde_json::Value;

use crate::fixture;

/// One question to one model, and the answer computed by a reference implementation.
#[derive(Debug, Clone)]
pub struct Case {
    /// The model's name.
    pub model: String,
    /// The version asked.
    pub version: u64,
    /// Inputs by name.
    pub inputs: Vec<(String, Tensor)>,
    /// Expected outputs by name.
    pub outputs: Vec<(String, Tensor)>,
    /// How far floats may differ: `|got - want| <= tolerance * max(1, |want|)`; 0 means equal bits.
    pub tolerance: f64,
}

impl Case {
    /// All cases for the models in `fixtures/models`.
    pub fn models() -> Vec<Self> {
        Self::load_all("cases")
    }

    /// All cases for the models in `fixtures/extra`.
    pub fn extra() -> Vec<Self> {
        Self::load_all("cases/extra")
    }

    /// The cases for `model`.
    pub fn of(model: &str) -> Vec<Self> {
        Self::models().into_iter().filter(|case| case.model == model).collect()
    }

    /// All cases in a folder of the fixtures, such as `cases/trees`.
    pub fn folder(folder: &str) -> Vec<Self> {
        Self::load_all(folder)
    }

    fn load_all(folder: &str) -> Vec<Self> {
        let entries = fs::read_dir(fixture(folder)).expect("the folder of cases is there");
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        assert!(!paths.is_empty(), "no cases in {folder}");
        paths.iter().flat_map(|path| load(path)).collect()
    }

    /// Compares the outputs that a model gave, by name.
    ///
    /// # Panics
    /// When one is missing, has another dtype or shape, or differs by more than the tolerance.
    pub fn check<'a>(&self, got: impl IntoIterator<Item = (&'a str, &'a Tensor)>) {
        let got: Vec<_> = got.into_iter().collect();
        for (name, want) in &self.outputs {
            let (_, tensor) = got
                .iter()
                .find(|(known, _)| known == name)
                .unwrap_or_else(|| panic!("{} {}: no output {name}", self.model, self.version));
            assert_close(tensor, want, self.tolerance, &format!("{} {} {name}", self.model, self.version));
        }
    }
}

/// Compares two tensors as `fixtures/README.md` says. NaN equals NaN.
///
/// # Panics
/// When they differ; `what` is part of the message.
pub fn assert_close(got: &Tensor, want: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(got.dtype(), want.dtype(), "{what}: dtype");
    assert_eq!(got.shape(), want.shape(), "{what}: shape");
    let (got_floats, want_floats) = match want.dtype() {
        DType::Fp16 => (floats::<f16>(got), floats::<f16>(want)),
        DType::Fp32 => (floats::<f32>(got), floats::<f32>(want)),
        DType::Fp64 => (floats::<f64>(got), floats::<f64>(want)),
        _ => {
            assert!(got == want, "{what}: elements differ");
            return;
        }
    };
    for (index, (&got, &want)) in got_floats.iter().zip(&want_floats).enumerate() {
        let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
        let close = same || (got - want).abs() <= tolerance * want.abs().max(1.0) && tolerance > 0.0;
        assert!(close, "{what}[{index}]: got {got}, want {want}, tolerance {tolerance}");
    }
}

fn floats<T: Element + Into<f64>>(tensor: &Tensor) -> Vec<f64> {
    tensor.elements::<T>().expect("the dtype was compared").iter().map(|&element| element.into()).collect()
}

fn load(path: &Path) -> Vec<Case> {
    let text = fs::read_to_string(path).expect("the case can be read");
    let document: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let cases = document["cases"].as_array().expect("a list of cases");
    let tensors = |value: &Value| -> Vec<(String, Tensor)> {
        value.as_object().expect("tensors by name").iter().map(|(name, value)| (name.clone(), tensor(value))).collect()
    };
    let case = |case: &Value| Case {
        model: case["model"].as_str().expect("a model").to_owned(),
        version: case["version"].as_u64().expect("a version"),
        inputs: tensors(&case["inputs"]),
        outputs: tensors(&case["outputs"]),
        tolerance: case["tolerance"].as_f64().expect("a tolerance"),
    };
    cases.iter().map(case).collect()
}

fn tensor(value: &Value) -> Tensor {
    let dtype: DType = value["dtype"].as_str().expect("a dtype").parse().expect("a known dtype");
    let size = |size: &Value| usize::try_from(size.as_u64().expect("a size")).expect("a small size");
    let sizes: Vec<usize> = value["shape"].as_array().expect("a shape").iter().map(size).collect();
    let data = value["data"].as_array().expect("flat data");
    match dtype {
        DType::Bool => numbers(&sizes, data, |value| value.as_bool()),
        DType::Uint8 => numbers(&sizes, data, integer::<u8>),
        DType::Uint16 => numbers(&sizes, data, integer::<u16>),
        DType::Uint32 => numbers(&sizes, data, integer::<u32>),
        DType::Uint64 => numbers(&sizes, data, integer::<u64>),
        DType::Int8 => numbers(&sizes, data, integer::<i8>),
        DType::Int16 => numbers(&sizes, data, integer::<i16>),
        DType::Int32 => numbers(&sizes, data, integer::<i32>),
        DType::Int64 => numbers(&sizes, data, integer::<i64>),
        DType::Fp16 => numbers(&sizes, data, |value| float::<f64>(value).map(f16::from_f64)),
        DType::Fp32 => numbers(&sizes, data, float::<f32>),
        DType::Fp64 => numbers(&sizes, data, float::<f64>),
        DType::Bytes => Tensor::from_strings(&sizes, data.iter().map(bytes).collect::<Strings>()).expect("a tensor"),
        DType::Bf16 => panic!("no case has BF16"),
    }
}

fn numbers<T: Element>(sizes: &[usize], data: &[Value], read: impl Fn(&Value) -> Option<T>) -> Tensor {
    let read = |value: &Value| read(value).unwrap_or_else(|| panic!("{value} is not a {}", T::DTYPE));
    Tensor::from_vec(sizes, data.iter().map(read).collect()).expect("a tensor")
}

/// Through the number's own text, so that 64-bit integers and shortest floats arrive exactly.
fn integer<T: std::str::FromStr>(value: &Value) -> Option<T> {
    value.as_number()?.to_string().parse().ok()
}

fn float<T: std::str::FromStr>(value: &Value) -> Option<T> {
    match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_number()?.to_string().parse().ok(),
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value["b64"].as_str().expect("base64 text");
    base64_simd::STANDARD.decode_to_vec(text).expect("base64")
}

#[cfg(test)]
mod tests {
    use super::Case;

    #[test]
    fn every_case_reads_and_equals_itself() {
        for case in Case::models().into_iter().chain(Case::extra()) {
            case.check(case.outputs.iter().map(|(name, tensor)| (name.as_str(), tensor)));
        }
    }
}
