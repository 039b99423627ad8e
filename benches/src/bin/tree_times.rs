//! `millrace-backend-trees` beside ONNX Runtime on forests, in turn in one process, one thread each.
//!
//! ```text
//! tree_times [LIBRARY] OURS=REFERENCE.onnx…
//! ```
//!
//! `LIBRARY` is ONNX Runtime's shared library; without it the environment's `ORT_DYLIB_PATH` says where it is. Each other
//! argument is a model file for us and the ONNX file with the same trees for ONNX Runtime; `MODEL.onnx` alone stands for both.
//!
//! Both sides get the same rows, never the same ones twice in a row, in tensors that are made beforehand: ours as the
//! server makes them, ONNX Runtime's as plain inputs and once more as bound inputs and outputs. The faster of its two ways
//! counts.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_backend_trees::TreesBackend;
use millrace_core::{Backend, Batch, Dim, Instance, MemoryFiles, ModelSource, RunContext, Tensor};
use ort::environment::Environment;
use ort::session::{IoBinding, Session};
use ort::value::Tensor as OrtTensor;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_library = |argument: &String| argument.contains(".so") || argument.contains(".dylib");
    let library = match arguments.first() {
        Some(first) if is_library(first) => arguments.remove(0),
        _ => library_of_environment()
            .ok_or("where is ONNX Runtime? name its shared library first, or set ORT_DYLIB_PATH")?,
    };
    if arguments.is_empty() {
        return Err("usage: tree_times [LIBRARY] OURS=REFERENCE.onnx…".into());
    }
    let environment = ort::init_from(&library).map_err(|error| format!("{library}: {error}"))?.build()?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "| model | batch | ONNX Runtime µs (middle half) | ours µs (middle half) | times faster | greatest difference |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    for argument in &arguments {
        let (ours, reference) = argument.split_once('=').unwrap_or((argument, argument));
        for rows in [1, 8, 32, 256, 1024] {
            compare(ours, reference, rows, &environment, &mut out)?;
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the variable by which programs find the library")]
fn library_of_environment() -> Option<String> {
    std::env::var("ORT_DYLIB_PATH").ok()
}

fn compare(ours: &str, reference: &str, rows: usize, environment: &Environment, out: &mut dyn Write) -> Outcome<()> {
    let mut us = Ours::new(ours)?;
    let features = us.features;
    let mut them = Reference::new(reference, environment)?;
    let pool = if rows > 100 { 4 } else { 128 };
    let data: Vec<Vec<f32>> = (0..pool).map(|seed| noise(rows * features, seed)).collect();
    let batches = data.iter().map(|rows_of| batch(rows_of, rows, features)).collect::<Outcome<Vec<_>>>()?;
    let plain = data.iter().map(|data| Ok(OrtTensor::from_array(([rows, features], data.clone()))?));
    let plain: Vec<OrtTensor<f32>> = plain.collect::<Outcome<_>>()?;
    let mut bound = plain.iter().map(|input| them.binding(input)).collect::<Outcome<Vec<_>>>()?;
    let mut difference = 0.0_f32;
    for (batch, input) in batches.iter().zip(&plain) {
        let (got, want) = (us.run(batch)?, them.answer(input)?);
        difference = got.iter().zip(&want).map(|(got, want)| (got - want).abs()).fold(difference, f32::max);
    }
    let (mut our_times, mut plain_times, mut bound_times) = (Vec::new(), Vec::new(), Vec::new());
    let started = now();
    while started.elapsed() < Duration::from_secs(2) {
        // Several calls of one side in a row, so that none always finds the caches as the others left them.
        for batch in &batches {
            our_times.push(timed(|| us.instance.run(batch, &RunContext::plain()).map(drop))?);
        }
        for input in &plain {
            plain_times.push(timed(|| them.session.run(ort::inputs![input]).map(drop))?);
        }
        for bound in &mut bound {
            bound_times.push(timed(|| them.session.run_binding(bound).map(drop))?);
        }
    }
    let (ours_quarters, plain, bound) = (quarters(our_times), quarters(plain_times), quarters(bound_times));
    let theirs = if bound[1] < plain[1] { bound } else { plain };
    let name = Path::new(ours).file_name().unwrap_or_default().to_string_lossy();
    let written = |[low, middle, high]: [f64; 3]| format!("{middle:.2} ({low:.2}–{high:.2})");
    writeln!(
        out,
        "| {name} | {rows} | {} | {} | {:.2} | {difference:.1e} |",
        written(theirs),
        written(ours_quarters),
        theirs[1] / ours_quarters[1]
    )?;
    Ok(())
}

/// Our side.
struct Ours {
    instance: Box<dyn Instance>,
    features: usize,
    answer: usize,
}

impl Ours {
    fn new(path: &str) -> Outcome<Self> {
        let content = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
        let extension = path.rsplit('.').next().unwrap_or_default();
        let files = MemoryFiles::default().with(format!("model.{extension}"), content);
        let model = TreesBackend::default().load(&ModelSource::new("model".parse()?, 1, Arc::new(files)))?;
        let signature = model.signature();
        let features = match signature.inputs() {
            [input] => match input.shape.as_slice() {
                [_, Dim::Fixed(features)] => *features,
                _ => return Err(format!("{path}: the input is not [N, features]").into()),
            },
            _ => return Err(format!("{path}: expected one input").into()),
        };
        // Probabilities, scores or predictions: what is not the label.
        let answer = signature.outputs().len() - 1;
        Ok(Self { instance: model.instance()?, features, answer })
    }

    fn run(&mut self, batch: &Batch) -> Outcome<Vec<f32>> {
        let outputs = self.instance.run(batch, &RunContext::plain())?;
        let answer = outputs.0.get(self.answer).cloned().flatten().ok_or("an answer is missing")?;
        Ok(answer.elements::<f32>()?.into_owned())
    }
}

fn batch(data: &[f32], rows: usize, features: usize) -> Outcome<Batch> {
    let tensor = Tensor::from_vec(&[rows, features], data.to_vec())?;
    Ok(Batch::single([tensor].into_iter().collect(), rows))
}

/// The other side.
struct Reference {
    session: Session,
    outputs: Vec<String>,
}

impl Reference {
    fn new(path: &str, environment: &Environment) -> Outcome<Self> {
        let session = Session::builder(environment)?
            .with_intra_threads(1)?
            .with_inter_threads(1)?
            .commit_from_file(path)
            .map_err(|error| format!("{path}: {error}"))?;
        let outputs = session.outputs().iter().map(|output| output.name().to_owned()).collect();
        Ok(Self { session, outputs })
    }

    /// The last output: probabilities, or predictions.
    fn answer(&mut self, input: &OrtTensor<f32>) -> Outcome<Vec<f32>> {
        let outputs = self.session.run(ort::inputs![input])?;
        let last = self.outputs.last().ok_or("a model without outputs")?;
        let (_, answer) = outputs[last.as_str()].try_extract_tensor::<f32>()?;
        Ok(answer.to_vec())
    }

    /// The input, and outputs that the session fills.
    fn binding(&self, input: &OrtTensor<f32>) -> Outcome<IoBinding> {
        let mut binding = self.session.create_binding()?;
        binding.bind_input(self.session.inputs()[0].name(), input)?;
        let memory = self.session.allocator().memory_info();
        for output in &self.outputs {
            binding.bind_output_to_device(output, memory)?;
        }
        Ok(binding)
    }
}

/// Microseconds.
fn timed<E>(work: impl FnOnce() -> Result<(), E>) -> Result<f64, E> {
    let start = now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1e6)
}

#[expect(clippy::disallowed_methods, reason = "measuring is what this program is for")]
fn now() -> Instant {
    Instant::now()
}

/// The lower quarter, the median and the upper quarter.
fn quarters(mut times: Vec<f64>) -> [f64; 3] {
    times.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| times[times.len() * quarter / 4])
}

/// Numbers about as often near zero as features are that were scaled, none above 4, others for each seed.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        f32::from(u16::try_from(state >> 16).unwrap_or_default()) / 32_768.0 - 1.0
    };
    (0..count).map(|_| 1.3333 * (next() + next() + next())).collect()
}
