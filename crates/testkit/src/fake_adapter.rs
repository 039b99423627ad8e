//! A small form of input with a real contract: numbers written as text.

use std::collections::BTreeMap;
use std::panic::panic_any;
use std::sync::Arc;

use millrace_core::{
    DType, InputAdapter, InputAdapterFactory, InputError, LoadError, LoadErrorKind, Tensor, TensorSpec,
};

use crate::Gate;

/// Makes adapters of the kind `number`: callers give BYTES `[N]`, such as `"1.5"`, for FP32 `[N]`.
///
/// | option | meaning |
/// |---|---|
/// | `plus` | added to every number |
/// | `most` | the most instances of one request |
/// | `axes` | `false` leaves the batch axis out, which is wrong |
///
/// The text `panic` makes it panic, `twice` makes it give a row too many, and anything else that is no number is refused.
#[derive(Debug, Clone)]
pub struct FakeAdapterFactory {
    gate: Gate,
}

impl Default for FakeAdapterFactory {
    fn default() -> Self {
        Self { gate: Gate::opened() }
    }
}

impl FakeAdapterFactory {
    /// Every call passes `gate`.
    #[must_use]
    pub fn gate(mut self, gate: Gate) -> Self {
        self.gate = gate;
        self
    }
}

impl InputAdapterFactory for FakeAdapterFactory {
    fn name(&self) -> &'static str {
        "number"
    }

    fn build(
        &self,
        inner: &TensorSpec,
        options: &BTreeMap<String, String>,
    ) -> Result<Arc<dyn InputAdapter>, LoadError> {
        let invalid = |text: String| LoadError::new(LoadErrorKind::Invalid, text);
        if inner.dtype != DType::Fp32 {
            return Err(invalid(format!("numbers are FP32, the network takes {inner}")));
        }
        let (mut plus, mut most, mut shape) = (0.0, usize::MAX, inner.shape.clone());
        for (key, value) in options {
            match key.as_str() {
                "plus" => plus = value.parse().map_err(|_| invalid(format!("`plus`: {value} is no number")))?,
                "most" => most = value.parse().map_err(|_| invalid(format!("`most`: {value} is no number")))?,
                "axes" => shape.clear(),
                _ => return Err(invalid(format!("unknown option `{key}`; expected plus"))),
            }
        }
        let spec = TensorSpec::new(&inner.name, DType::Bytes, shape);
        Ok(Arc::new(FakeAdapter { spec, plus, most, gate: self.gate.clone() }))
    }
}

#[derive(Debug)]
struct FakeAdapter {
    spec: TensorSpec,
    plus: f32,
    most: usize,
    gate: Gate,
}

impl InputAdapter for FakeAdapter {
    fn spec(&self) -> &TensorSpec {
        &self.spec
    }

    fn admit(&self, given: &Tensor) -> Result<(), InputError> {
        if given.shape().rows().is_some_and(|rows| rows <= self.most) {
            return Ok(());
        }
        let (input, detail) = (Arc::clone(&self.spec.name), "one instance too many".to_owned());
        Err(InputError::Instance { input, index: self.most, detail })
    }

    fn adapt(&self, given: &Tensor) -> Result<Tensor, InputError> {
        self.gate.pass();
        let wrong = |index: usize, detail: String| {
            let input = Arc::clone(&self.spec.name);
            InputError::Instance { input, index, detail }
        };
        let strings = given.strings().ok_or_else(|| wrong(0, "expected text".to_owned()))?;
        let mut numbers = Vec::with_capacity(strings.len());
        for (index, text) in strings.iter().enumerate() {
            let text = String::from_utf8_lossy(text);
            match &*text {
                "panic" => panic_any("the fake adapter panics, as the test asked"),
                "twice" => numbers.extend([0.0, 0.0]),
                text => {
                    let number: f32 = text.parse().map_err(|_| wrong(index, "expected a number".to_owned()))?;
                    numbers.push(number + self.plus);
                }
            }
        }
        Tensor::from_vec(&[numbers.len()], numbers).map_err(|error| wrong(0, error.to_string()))
    }
}
