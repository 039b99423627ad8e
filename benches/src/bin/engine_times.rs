//! Which engine runs what, and how fast: every engine that takes a model, in turn in one process, one thread each.
//!
//! ```text
//! engine_times [--rows 1,8] [--free 64] MODEL[@BASE]…
//! ```
//!
//! prints a markdown table: medians, how many times faster than ONNX Runtime, and the largest difference of any output from
//! ONNX Runtime's answer, and from its answer for BASE (the same model in `FP32`), as a part of the largest number of that
//! output. Only outputs that both have are compared. A model is an ONNX file or a folder: with one in Hugging Face's form that
//! has a `model.onnx` too, candle stands beside the engines of ONNX, whose text networks get the form that candle's have. MB are
//! those of the largest file. Rows are those of one run; free axes are `--free` long; integers are all 1, floats are
//! multiples of 1/128 between -1 and 1, which every type of float holds.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use half::{bf16, f16};
use millrace_backend_candle::CandleBackend;
use millrace_backend_onnxruntime::OnnxRuntimeBackend;
use millrace_backend_tract::TractBackend;
use millrace_backend_trees::TreesBackend;
use millrace_benches::model_files;
use millrace_core::{
    Backend, Batch, DType, Dim, Instance, LoadErrorKind, Model, ModelFiles, ModelSource, RunContext, Tensor,
    TensorList, TensorSpec,
};
use millrace_text::TextBackend;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What other engines are compared with.
const REFERENCE: &str = "onnxruntime";

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut rows, mut free, mut models) = (vec![1, 8], 64, Vec::new());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rows" => {
                let list = arguments.next().ok_or("--rows: expected a list such as 1,8")?;
                rows = list.split(',').map(str::parse).collect::<Result<_, _>>()?;
            }
            "--free" => free = arguments.next().ok_or("--free: expected a number")?.parse()?,
            _ => models.push(argument),
        }
    }
    let engines: Vec<Box<dyn Backend>> = vec![
        Box::new(TextBackend::over(Arc::new(OnnxRuntimeBackend::default()))),
        Box::new(TreesBackend::default()),
        Box::new(TextBackend::over(Arc::new(TractBackend::default()))),
        Box::new(CandleBackend::default()),
    ];
    let mut out = io::stdout().lock();
    writeln!(out, "| model | MB | rows | engine | ms | × ONNX Runtime | differs from it | from FP32 |")?;
    writeln!(out, "|---|---|---|---|---|---|---|---|")?;
    for model in &models {
        let (path, base) = model.split_once('@').map_or((model.as_str(), None), |(path, base)| (path, Some(base)));
        let subject = Subject::read(&engines, path)?;
        let base = base.map(|base| Subject::read(&engines, base)).transpose()?;
        for &rows in &rows {
            subject.measure(rows, free, base.as_ref(), &mut out)?;
        }
    }
    Ok(())
}

/// Outputs by their names.
type Answer = BTreeMap<String, Tensor>;

/// A model on every engine that takes it.
struct Subject {
    name: String,
    megabytes: f64,
    loaded: Vec<(&'static str, Arc<dyn Model>)>,
    refused: Vec<(&'static str, String)>,
}

impl Subject {
    fn read(engines: &[Box<dyn Backend>], path: &str) -> Outcome<Self> {
        let path = Path::new(path);
        let files = model_files(path)?;
        let largest = files.list().iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
        #[expect(clippy::cast_precision_loss, reason = "a size to be read by people")]
        let megabytes = largest as f64 / 1e6;
        let source = ModelSource::new("model".parse()?, 1, Arc::new(files));
        let name = name(path);
        let mut subject = Self { name, megabytes, loaded: Vec::new(), refused: Vec::new() };
        for engine in engines {
            match engine.load(&source) {
                Ok(model) => subject.loaded.push((engine.name(), model)),
                // Another engine's business, or no library on this machine.
                Err(error) if matches!(error.kind(), LoadErrorKind::Foreign | LoadErrorKind::Missing) => {}
                Err(error) => subject.refused.push((engine.name(), error.to_string())),
            }
        }
        Ok(subject)
    }

    /// What `engine` answers to `inputs`, by the outputs' names.
    fn answer(&self, engine: &str, inputs: &TensorList, rows: usize) -> Option<Answer> {
        let (_, model) = self.loaded.iter().find(|(name, _)| *name == engine)?;
        let batch = Batch::single(fitted(inputs, &**model)?, rows);
        let outputs = model.instance().ok()?.run(&batch, &RunContext::plain()).ok()?;
        let shares = batch.split(&outputs, model.signature()).ok()?;
        let names = model.signature().outputs().iter().map(|spec| spec.name.to_string());
        names.zip(shares.into_iter().next()?).map(|(name, tensor)| Some((name, tensor?))).collect()
    }

    fn measure(&self, rows: usize, free: usize, base: Option<&Self>, out: &mut dyn Write) -> Outcome<()> {
        let Some((_, first)) = self.loaded.first() else {
            for (engine, why) in &self.refused {
                writeln!(out, "| {} | {:.1} | {rows} | {engine} | refused: {why} | | | |", self.name, self.megabytes)?;
            }
            return Ok(());
        };
        let inputs = inputs(&**first, rows, free)?;
        let reference = self.answer(REFERENCE, &inputs, rows);
        let exact = base.and_then(|base| base.answer(REFERENCE, &inputs, rows));
        let mut racers = Vec::new();
        for (engine, model) in &self.loaded {
            let admission = model.signature().check(&inputs)?;
            model.admit(&admission)?;
            model.prepare(&admission.group, admission.rows)?;
            racers.push(Racer { engine, instance: model.instance()?, times: Vec::new() });
        }
        let batch = Batch::single(inputs.clone(), rows);
        race(&mut racers, &batch)?;
        let median_of = |name: &str| racers.iter().find(|racer| racer.engine == name).map(|racer| median(&racer.times));
        for racer in &racers {
            let time = median(&racer.times);
            let ratio = median_of(REFERENCE).map_or_else(String::new, |reference| format!("{:.2}", reference / time));
            let answer = self.answer(racer.engine, &inputs, rows);
            let far = |from: &Option<Answer>| match (&answer, from) {
                (Some(answer), Some(from)) => difference(answer, from),
                _ => String::new(),
            };
            let (name, size, engine) = (&self.name, self.megabytes, racer.engine);
            let (from_reference, from_exact) = (far(&reference), far(&exact));
            let milliseconds = time * 1e3;
            writeln!(
                out,
                "| {name} | {size:.1} | {rows} | {engine} | {milliseconds:.3} | {ratio} | {from_reference} | {from_exact} |"
            )?;
        }
        for (engine, why) in &self.refused {
            let why: String = why.chars().take(90).collect();
            writeln!(out, "| {} | {:.1} | {rows} | {engine} | refused: {why} | | | |", self.name, self.megabytes)?;
        }
        Ok(())
    }
}

/// The name of a file without its ending, or of a folder; of a version's folder, that above it.
fn name(path: &Path) -> String {
    let is_version = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let mut names = path.iter().rev().map(|name| name.to_string_lossy()).skip_while(|name| is_version(name));
    names.next().map_or_else(String::new, |name| name.trim_end_matches(".onnx").to_owned())
}

struct Racer<'a> {
    engine: &'a str,
    instance: Box<dyn Instance>,
    times: Vec<f64>,
}

/// Runs all in turn until each has run often enough, or long enough.
fn race(racers: &mut [Racer<'_>], batch: &Batch) -> Outcome<()> {
    const LONG: Duration = Duration::from_secs(3);
    let context = RunContext::plain();
    for racer in &mut *racers {
        racer.instance.run(batch, &context)?;
    }
    let mut spent = Duration::ZERO;
    for round in 0..201 {
        if round >= 5 && spent > LONG {
            break;
        }
        for racer in &mut *racers {
            let (outcome, took) = timed(|| racer.instance.run(batch, &context).map(drop));
            outcome?;
            spent += took;
            racer.times.push(took.as_secs_f64());
        }
    }
    Ok(())
}

/// Inputs of `rows` rows, as `model` declares them.
fn inputs(model: &dyn Model, rows: usize, free: usize) -> Outcome<TensorList> {
    let tensor = |spec: &TensorSpec| {
        let size = |(axis, dim): (usize, &Dim)| match dim {
            _ if spec.batch_axis == Some(axis) => rows,
            Dim::Fixed(size) => *size,
            _ if axis == 0 => rows,
            _ => free,
        };
        let sizes: Vec<usize> = spec.shape.iter().enumerate().map(size).collect();
        converted(&sizes, &noise(sizes.iter().product()), spec.dtype)
    };
    model.signature().inputs().iter().map(tensor).collect()
}

/// `inputs` in the types of `model`, whose signature may be in other floats.
fn fitted(inputs: &TensorList, model: &dyn Model) -> Option<TensorList> {
    let specs = model.signature().inputs().iter();
    let fit = |(tensor, spec): (&Tensor, &TensorSpec)| match numbers(tensor) {
        Some(numbers) if tensor.dtype() != spec.dtype => converted(tensor.shape(), &numbers, spec.dtype).ok(),
        _ => Some(tensor.clone()),
    };
    inputs.iter().zip(specs).map(fit).collect()
}

fn converted(sizes: &[usize], numbers: &[f32], dtype: DType) -> Outcome<Tensor> {
    let numbers = numbers.iter().copied();
    Ok(match dtype {
        DType::Fp32 => Tensor::from_vec(sizes, numbers.collect())?,
        DType::Fp64 => Tensor::from_vec(sizes, numbers.map(f64::from).collect())?,
        DType::Fp16 => Tensor::from_vec(sizes, numbers.map(f16::from_f32).collect())?,
        DType::Bf16 => Tensor::from_vec(sizes, numbers.map(bf16::from_f32).collect())?,
        DType::Int64 => Tensor::from_vec(sizes, numbers.map(|_| 1_i64).collect())?,
        DType::Int32 => Tensor::from_vec(sizes, numbers.map(|_| 1_i32).collect())?,
        other => return Err(format!("an input is {other}").into()),
    })
}

/// The elements of a tensor of floats.
fn numbers(tensor: &Tensor) -> Option<Vec<f32>> {
    Some(match tensor.dtype() {
        DType::Fp32 => tensor.elements::<f32>().ok()?.to_vec(),
        DType::Fp16 => tensor.elements::<f16>().ok()?.iter().map(|number| number.to_f32()).collect(),
        DType::Bf16 => tensor.elements::<bf16>().ok()?.iter().map(|number| number.to_f32()).collect(),
        _ => return None,
    })
}

/// The largest difference between floats of outputs that both have, as a part of the largest number of its output; and how
/// many outputs of other types differ.
fn difference(got: &Answer, want: &Answer) -> String {
    let (mut most, mut others) = (0.0_f32, 0);
    let shared = || got.iter().filter_map(|(name, got)| want.get(name).map(|want| (got, want)));
    if shared().next().is_none() {
        return "no output in common".to_owned();
    }
    for (got, want) in shared() {
        match (numbers(got), numbers(want)) {
            (Some(got), Some(want)) => {
                let largest = want.iter().fold(f32::MIN_POSITIVE, |largest, number| largest.max(number.abs()));
                let far = got.iter().zip(&want).fold(0.0_f32, |most, (got, want)| most.max((got - want).abs()));
                most = most.max(far / largest);
            }
            _ if got.bytes() == want.bytes() => {}
            _ => others += 1,
        }
    }
    if others > 0 { format!("{most:.0e}, {others} outputs of other types differ") } else { format!("{most:.0e}") }
}

/// Multiples of 1/128 between -1 and 1, always the same ones.
fn noise(len: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        f32::from(u8::try_from(state >> 24).unwrap_or_default()) / 128.0 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

#[expect(clippy::disallowed_methods, reason = "measuring is what this program is for")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = work();
    (value, start.elapsed())
}
