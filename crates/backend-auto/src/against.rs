//! What a model loses and gains against its original: the same requests through both.
//!
//! For models of reduced precision, which answer a little differently on purpose. Nothing is judged here; whether a
//! difference matters is for whoever knows what the model is for.

use std::sync::Arc;
use std::time::Duration;

use half::{bf16, f16};
use millrace_core::{Batch, DType, Model, PartOutputs, Signature, Tensor, TensorList};

use crate::AutoConfig;
use crate::compare::{is_float, numbers};
use crate::data::{Attempt, Data, Fill, Spread};
use crate::runner::{Runner, Trouble};
use crate::terms::Terms;

/// How many different requests are compared, where the budget allows.
const REQUESTS: usize = 64;
/// Open axes are made larger while a run takes less than this part of the budget.
const QUICK: u32 = 20;
/// How often a run is timed at most.
const MOST_RUNS: usize = 15;

/// Two models side by side.
#[derive(Debug, Clone, PartialEq)]
pub struct Against {
    /// How many requests (of one row, where there are rows) were compared.
    pub requests: usize,
    /// Each output.
    pub outputs: Vec<OutputGap>,
    /// Times by rows.
    pub times: Vec<Column>,
}

/// How far one output is off.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputGap {
    /// Its name.
    pub output: Arc<str>,
    /// The largest absolute difference.
    pub largest: f64,
    /// The mean of all absolute differences.
    pub mean: f64,
    /// The original's smallest and largest value.
    pub range: (f64, f64),
    /// Of the rows that hold several scores: how many, and in how many both have the same best one.
    pub agreement: Option<(usize, usize)>,
}

/// The shortest time of one run of each model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Rows of the run.
    pub rows: usize,
    /// The model's.
    pub model: Duration,
    /// The original's.
    pub original: Duration,
}

/// Compares `model` with its `original` on invented requests, for at most about `config.budget`.
///
/// # Errors
/// Inputs or outputs that are not the same but for their precision; a model that takes none of the requests.
pub fn against(model: &Arc<dyn Model>, original: &Arc<dyn Model>, config: &AutoConfig) -> Result<Against, String> {
    let (own, first) = (model.signature(), original.signature());
    alike(own, first)?;
    let runner = |model: &Arc<dyn Model>| {
        Terms::agree(model.signature(), model.signature()).map(|terms| Runner::new(Arc::clone(model), terms))
    };
    let (mut model, mut original) = (Side(runner(model)?), Side(runner(original)?));
    let grows_trees = original.0.model.facts().operators.keys().any(|name| name.contains("TreeEnsemble"));
    let spread = if grows_trees { Spread::Wide } else { Spread::Narrow };
    let mut trouble = "no input of a reasonable size fits".to_owned();
    let clock = &config.clock;
    for fill in Fill::ALL {
        let grown = Data::grown(first, fill, spread, REQUESTS, |data| {
            let start = clock.now();
            let result = data.all().first().map_or(Ok(()), |inputs| original.answer(inputs).map(drop));
            Attempt { result, is_quick: clock.since(start) < config.budget / QUICK }
        });
        let compared = match grown {
            Ok((data, ())) => compared(&mut model, &mut original, &data, config).map_err(Some),
            Err(trouble) => Err(trouble),
        };
        match compared {
            Ok(against) => return Ok(against),
            Err(Some(Trouble::Invalid(text) | Trouble::Failed(text))) => trouble = text,
            Err(None) => {}
        }
    }
    Err(format!("the two could not be compared: {trouble}"))
}

/// Names and ranks must be equal; numbers may be of another precision.
fn alike(own: &Signature, original: &Signature) -> Result<(), String> {
    for (what, own, original) in
        [("inputs", own.inputs(), original.inputs()), ("outputs", own.outputs(), original.outputs())]
    {
        let same = own.len() == original.len()
            && own.iter().zip(original).all(|(one, other)| {
                let same_kind = one.dtype == other.dtype || (is_float(one.dtype) && is_float(other.dtype));
                one.name == other.name && one.shape.len() == other.shape.len() && same_kind
            });
        if !same {
            let list = |specs: &[millrace_core::TensorSpec]| {
                specs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            };
            return Err(format!("their {what} differ: {} against {}", list(own), list(original)));
        }
    }
    Ok(())
}

/// One of the two.
struct Side(Runner);

impl Side {
    /// `inputs` in this model's own precision.
    fn own(&self, inputs: &TensorList) -> TensorList {
        let specs = self.0.model.signature().inputs();
        inputs.iter().zip(specs).map(|(tensor, spec)| cast(tensor, spec.dtype)).collect()
    }

    fn answer(&mut self, inputs: &TensorList) -> Result<PartOutputs, Trouble> {
        let inputs = self.own(inputs);
        let admission = self.0.model.signature().check(&inputs).map_err(|error| Trouble::Invalid(error.to_string()))?;
        self.0.admit(&inputs, &admission)?;
        self.0.answer(&inputs, admission.rows)
    }

    fn batch(&self, inputs: &TensorList, rows: usize) -> Result<Batch, Trouble> {
        let inputs = self.own(inputs);
        let admission = self.0.model.signature().check(&inputs).map_err(|error| Trouble::Invalid(error.to_string()))?;
        self.0.admit(&inputs, &admission)?;
        self.0.prepare(&admission.group, rows);
        Ok(Batch::single(inputs, admission.rows))
    }
}

fn compared(model: &mut Side, original: &mut Side, data: &Data, config: &AutoConfig) -> Result<Against, Trouble> {
    let clock = &config.clock;
    let start = clock.now();
    let specs = original.0.model.signature().outputs().to_vec();
    let mut sums: Vec<Sums> = specs.iter().map(|_| Sums::default()).collect();
    let mut requests = 0;
    for inputs in data.all() {
        if requests > 0 && clock.since(start) > config.budget / 2 {
            break;
        }
        let (expected, got) = (original.answer(inputs)?, model.answer(inputs)?);
        for ((sums, expected), got) in sums.iter_mut().zip(&expected).zip(&got) {
            if let (Some(expected), Some(got)) = (expected, got) {
                sums.add(expected, got)?;
            }
        }
        requests += 1;
    }
    let mut times = Vec::new();
    let batched = model.0.model.signature().is_batched() && original.0.model.signature().is_batched();
    let counts = if batched { config.rows.clone() } else { vec![1] };
    for rows in counts {
        if rows > 1 && clock.since(start) > config.budget / 2 {
            break;
        }
        let Some(inputs) = data.inputs(rows) else { break };
        let batches = [model.batch(&inputs, rows)?, original.batch(&inputs, rows)?];
        let mut best = [Duration::MAX; 2];
        let began = clock.now();
        for round in 0..MOST_RUNS {
            best[0] = best[0].min(model.0.time(&batches[0], clock)?);
            best[1] = best[1].min(original.0.time(&batches[1], clock)?);
            if round > 0 && (clock.since(began) > config.budget / 8 || clock.since(start) > config.budget) {
                break;
            }
        }
        times.push(Column { rows, model: best[0], original: best[1] });
    }
    let outputs = specs.iter().zip(sums).map(|(spec, sums)| sums.gap(Arc::clone(&spec.name))).collect();
    Ok(Against { requests, outputs, times })
}

/// One output, over all requests.
#[derive(Debug, Default)]
struct Sums {
    largest: f64,
    sum: f64,
    elements: f64,
    range: Option<(f64, f64)>,
    rows: usize,
    equal: usize,
}

impl Sums {
    fn add(&mut self, expected: &Tensor, got: &Tensor) -> Result<(), Trouble> {
        if expected.shape() != got.shape() {
            return Err(Trouble::Invalid(format!("one gives {got:?} where the other gives {expected:?}")));
        }
        let Some((one, other)) = numbers(expected).zip(numbers(got)) else {
            // Strings are labels: each is right or wrong.
            let (one, other) = (expected.strings(), got.strings());
            for (one, other) in one.into_iter().zip(other).flat_map(|(one, other)| one.iter().zip(other.iter())) {
                self.rows += 1;
                self.equal += usize::from(one == other);
            }
            return Ok(());
        };
        for (one, other) in one.iter().zip(&other) {
            let difference = if one == other || (one.is_nan() && other.is_nan()) { 0.0 } else { (one - other).abs() };
            self.largest = self.largest.max(if difference.is_nan() { f64::INFINITY } else { difference });
            self.sum += difference;
            self.elements += 1.0;
            let (least, most) = self.range.unwrap_or((*one, *one));
            self.range = Some((least.min(*one), most.max(*one)));
        }
        let width = expected.shape().last().copied().unwrap_or(1);
        let is_scores = is_float(expected.dtype()) && expected.shape().len() >= 2 && width >= 2;
        let is_label = !is_float(expected.dtype());
        if is_scores {
            for (one, other) in one.chunks_exact(width).zip(other.chunks_exact(width)) {
                self.rows += 1;
                self.equal += usize::from(best(one) == best(other));
            }
        } else if is_label {
            self.rows += one.len();
            self.equal += one.iter().zip(&other).filter(|(one, other)| one == other).count();
        }
        Ok(())
    }

    fn gap(self, output: Arc<str>) -> OutputGap {
        OutputGap {
            output,
            largest: self.largest,
            mean: if self.elements > 0.0 { self.sum / self.elements } else { 0.0 },
            range: self.range.unwrap_or_default(),
            agreement: (self.rows > 0).then_some((self.rows, self.equal)),
        }
    }
}

/// The position of the largest.
fn best(scores: &[f64]) -> Option<usize> {
    (0..scores.len()).max_by(|one, other| scores[*one].total_cmp(&scores[*other]).then(other.cmp(one)))
}

/// The same numbers in another precision; anything else as it is.
fn cast(tensor: &Tensor, dtype: DType) -> Tensor {
    if tensor.dtype() == dtype || !is_float(dtype) || !is_float(tensor.dtype()) {
        return tensor.clone();
    }
    let Some(values) = numbers(tensor) else { return tensor.clone() };
    let sizes = tensor.shape();
    #[expect(clippy::cast_possible_truncation, reason = "rounding to the wanted precision is the point")]
    let made = match dtype {
        DType::Fp16 => Tensor::from_vec(sizes, values.into_iter().map(f16::from_f64).collect::<Vec<_>>()),
        DType::Bf16 => Tensor::from_vec(sizes, values.into_iter().map(bf16::from_f64).collect::<Vec<_>>()),
        DType::Fp64 => Tensor::from_vec(sizes, values),
        _ => Tensor::from_vec(sizes, values.into_iter().map(|value| value as f32).collect::<Vec<_>>()),
    };
    made.unwrap_or_else(|_| tensor.clone())
}
