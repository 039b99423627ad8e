//! What `millrace-backend-onnxruntime` adds to the engine that it stands on: its instances beside plain `ort` sessions of
//! the same settings, in turn in one process.
//!
//! ```text
//! onnxruntime_times times MODEL.onnx…            # one run: rows 1 and 8, threads 1 and 2
//! onnxruntime_times together MODEL.onnx…         # runs per second of two threads
//! onnxruntime_times memory MODEL.onnx…           # resident memory by the number of instances and of sessions
//! onnxruntime_times loop MODEL.onnx THREADS      # plain sessions alone, for `engine_load.py`
//! ```
//!
//! `loop` drives one session on each thread for as many seconds as each line of its standard input says, and answers with
//! the runs per second and the processor seconds of one run.
//!
//! Free axes are 128 long; integers are all 1, floats lie between -1 and 1.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, BufRead as _, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use millrace_backend_onnxruntime::OnnxRuntimeBackend;
use millrace_core::{
    Backend, Batch, DType, Dim, MemoryFiles, Model, ModelSource, Part, RunContext, Tensor, TensorList,
};
use ort::environment::Environment;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Tensor as OrtTensor};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (verb, models) = arguments.split_first().ok_or("usage: onnxruntime_times times|together|memory|loop MODEL…")?;
    let backend = OnnxRuntimeBackend::default();
    let environment = backend.environment()?;
    let mut out = io::stdout().lock();
    if verb == "loop" {
        let [path, threads] = models else {
            return Err("usage: loop MODEL THREADS, and seconds on standard input".into());
        };
        return loops(&Subject::new(&backend, path)?, &environment, threads.parse()?, &mut out);
    }
    for path in models {
        match verb.as_str() {
            "times" => times(&Subject::new(&backend, path)?, &environment, &mut out)?,
            "together" => together(&Subject::new(&backend, path)?, &environment, &mut out)?,
            "memory" => memory(&backend, path, &environment, &mut out)?,
            _ => return Err(format!("unknown: {verb}").into()),
        }
    }
    Ok(())
}

/// A model as both sides have it.
struct Subject {
    name: String,
    content: Vec<u8>,
    model: Arc<dyn Model>,
}

impl Subject {
    fn new(backend: &OnnxRuntimeBackend, path: &str) -> Outcome<Self> {
        let content = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
        let files = MemoryFiles::default().with("model.onnx", content.clone());
        let model = backend.load(&ModelSource::new("model".parse()?, 1, Arc::new(files)))?;
        let name = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".onnx").to_owned();
        Ok(Self { name, content, model })
    }

    /// Plain sessions of one thread, as a program that wants the most of its cores makes them.
    fn sessions(&self, environment: &Environment, count: usize) -> Outcome<Vec<Session>> {
        Ok((0..count).map(|_| self.session(environment, 1)).collect::<Result<_, _>>()?)
    }

    fn session(&self, environment: &Environment, threads: usize) -> Result<Session, ort::Error> {
        Session::builder(environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(threads)?
            .with_inter_threads(1)?
            .with_config_entry("session.intra_op.allow_spinning", "0")?
            .commit_from_memory(&self.content)
    }

    /// Inputs of `rows` rows.
    fn inputs(&self, rows: usize) -> Outcome<TensorList> {
        let inputs = self.model.signature().inputs();
        let tensor = |spec: &millrace_core::TensorSpec| {
            let size = |(axis, dim): (usize, &Dim)| match dim {
                Dim::Fixed(size) => *size,
                _ if axis == 0 => rows,
                _ => 128,
            };
            let sizes: Vec<usize> = spec.shape.iter().enumerate().map(size).collect();
            let count: usize = sizes.iter().product();
            match spec.dtype {
                DType::Fp32 => Ok(Tensor::from_vec(&sizes, noise(count))?),
                DType::Int64 => Ok(Tensor::from_vec(&sizes, vec![1_i64; count])?),
                other => Err(format!("{}: an input is {other}", self.name).into()),
            }
        };
        inputs.iter().map(tensor).collect()
    }
}

/// The same inputs as values of the engine.
fn values(inputs: &TensorList) -> Outcome<Vec<DynValue>> {
    let value = |tensor: &Tensor| {
        let sizes: Vec<usize> = tensor.shape().to_vec();
        Ok(match tensor.dtype() {
            DType::Fp32 => OrtTensor::from_array((sizes, tensor.elements::<f32>()?.into_owned()))?.into_dyn(),
            _ => OrtTensor::from_array((sizes, tensor.elements::<i64>()?.into_owned()))?.into_dyn(),
        })
    };
    inputs.iter().map(value).collect()
}

fn run(session: &mut Session, inputs: &[DynValue]) -> Outcome<()> {
    let inputs: Vec<SessionInputValue<'_>> = inputs.iter().map(SessionInputValue::from).collect();
    drop(session.run(inputs.as_slice())?);
    Ok(())
}

fn times(subject: &Subject, environment: &Environment, out: &mut dyn Write) -> Outcome<()> {
    for threads in [1, 2] {
        let mut session = subject.session(environment, threads)?;
        let mut instance = subject.model.instance()?;
        let context = RunContext { threads, ..RunContext::plain() };
        for rows in [1, 8] {
            let inputs = subject.inputs(rows)?;
            let plain = values(&inputs)?;
            let lone = Batch::single(inputs, rows);
            let one = subject.inputs(1)?;
            let apart = Batch::new((0..rows).map(|_| Part { inputs: one.clone(), rows: 1 }).collect(), 0);
            // Until what is made for more threads is there.
            for _ in 0..3 {
                run(&mut session, &plain)?;
                instance.run(&lone, &context)?;
                instance.run(&apart, &context)?;
            }
            if threads > 1 && rows == 1 {
                let is_made = || subject.model.facts().properties.contains_key("threads of a lone row");
                let (mut spent, limit) = (Duration::ZERO, Duration::from_secs(20));
                while !is_made() && spent < limit {
                    spent += timed(|| instance.run(&lone, &context)).1;
                }
            }
            let (mut bare, mut ours, mut joined) = (Vec::new(), Vec::new(), Vec::new());
            let started = now();
            while started.elapsed() < Duration::from_secs(3) || bare.len() < 7 {
                let (outcome, took) = timed(|| run(&mut session, &plain));
                outcome?;
                bare.push(took.as_secs_f64());
                let (outcome, took) = timed(|| instance.run(&lone, &context).map(drop));
                outcome?;
                ours.push(took.as_secs_f64());
                let (outcome, took) = timed(|| instance.run(&apart, &context).map(drop));
                outcome?;
                joined.push(took.as_secs_f64());
            }
            let ratio = |other: &[f64]| median(bare.iter().zip(other).map(|(bare, other)| bare / other).collect());
            writeln!(
                out,
                "{:<14} threads {threads} rows {rows}: plain {:9.3} ms, ours {:9.3} ms ({:.3}), {rows} callers {:9.3} ms ({:.3})",
                subject.name,
                median(bare.clone()) * 1e3,
                median(ours.clone()) * 1e3,
                ratio(&ours),
                median(joined.clone()) * 1e3,
                ratio(&joined),
            )?;
        }
    }
    Ok(())
}

fn together(subject: &Subject, environment: &Environment, out: &mut dyn Write) -> Outcome<()> {
    const THREADS: usize = 2;
    let turn = Duration::from_millis(1500);
    let mut sessions = subject.sessions(environment, THREADS)?;
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        bare.push(rate_of_sessions(&mut sessions, subject, turn)?);
        ours.push(rate_of_instances(subject, THREADS, turn)?);
    }
    let ratio = median(ours.iter().zip(&bare).map(|(ours, bare)| ours / bare).collect());
    let (ours, bare) = (median(ours), median(bare));
    let name = &subject.name;
    writeln!(out, "{name:<14} two threads: plain {bare:.2} runs/s, ours {ours:.2} runs/s ({ratio:.3})")?;
    Ok(())
}

fn loops(subject: &Subject, environment: &Environment, threads: usize, out: &mut dyn Write) -> Outcome<()> {
    let mut sessions = subject.sessions(environment, threads)?;
    // Ready.
    writeln!(out, "0 0")?;
    out.flush()?;
    for line in io::stdin().lock().lines() {
        let seconds: f64 = line?.trim().parse()?;
        let before = processor_seconds()?;
        let rate = rate_of_sessions(&mut sessions, subject, Duration::from_secs_f64(seconds))?;
        let spent = processor_seconds()? - before;
        // One run of each session is not counted: the first.
        let runs = rate.mul_add(seconds, f64::from(u32::try_from(threads)?));
        writeln!(out, "{rate:.3} {:.6}", spent / runs)?;
        out.flush()?;
    }
    Ok(())
}

fn rate_of_sessions(sessions: &mut [Session], subject: &Subject, turn: Duration) -> Outcome<f64> {
    let worker = |session| {
        let inputs = values(&subject.inputs(1)?)?;
        let session: &mut Session = session;
        run(session, &inputs)?;
        Ok(move || run(session, &inputs))
    };
    rate(sessions.iter_mut().map(worker).collect::<Outcome<Vec<_>>>()?, turn)
}

fn rate_of_instances(subject: &Subject, threads: usize, turn: Duration) -> Outcome<f64> {
    let worker = |_| {
        let (mut instance, batch) = (subject.model.instance()?, Batch::single(subject.inputs(1)?, 1));
        instance.run(&batch, &RunContext::plain())?;
        Ok(move || -> Outcome<()> {
            instance.run(&batch, &RunContext::plain())?;
            Ok(())
        })
    };
    rate((0..threads).map(worker).collect::<Outcome<Vec<_>>>()?, turn)
}

/// Runs per second of all workers together.
fn rate<W: FnMut() -> Outcome<()> + Send>(workers: Vec<W>, turn: Duration) -> Outcome<f64> {
    let started = now();
    thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .map(|mut work| {
                scope.spawn(move || {
                    let mut runs = 0_u32;
                    let mut spent = 0.0;
                    while spent < turn.as_secs_f64() {
                        work()?;
                        runs += 1;
                        spent = started.elapsed().as_secs_f64();
                    }
                    // Each by its own last run, which ends after the others'.
                    Outcome::Ok(f64::from(runs) / spent)
                })
            })
            .collect();
        let rates = threads.into_iter().map(|thread| thread.join().map_err(|_| "a worker panicked")?);
        rates.sum()
    })
}

fn memory(backend: &OnnxRuntimeBackend, path: &str, environment: &Environment, out: &mut dyn Write) -> Outcome<()> {
    let before = resident()?;
    let subject = Subject::new(backend, path)?;
    let name = &subject.name;
    let loaded = resident()? - before - subject.content.len() as f64 / MIB * 2.0;
    let said = subject.model.memory_bytes() as f64 / MIB;
    writeln!(out, "{name}: loaded {loaded:.0} MiB; it says {said:.0} MiB, for two sessions")?;
    for count in [1, 2, 4] {
        rate_of_instances(&subject, count, Duration::from_millis(500))?;
        writeln!(out, "  {count} instances at once: {:+.0} MiB", resident()? - before)?;
    }
    let mut sessions = Vec::new();
    for count in 1..=4 {
        let start = resident()?;
        let mut session = subject.session(environment, 1)?;
        run(&mut session, &values(&subject.inputs(1)?)?)?;
        sessions.push(session);
        writeln!(out, "  plain session {count}: {:+.0} MiB more", resident()? - start)?;
    }
    Ok(())
}

/// Processor time of this process, all threads together.
fn processor_seconds() -> Outcome<f64> {
    const TICK: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / TICK)
}

const MIB: f64 = 1024.0 * 1024.0;

/// Resident memory of this process in MiB.
fn resident() -> Outcome<f64> {
    let pages = std::fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = pages.split_whitespace().nth(1).ok_or("no statm")?.parse()?;
    Ok(pages * 4096.0 / MIB)
}

#[expect(clippy::disallowed_methods, reason = "measuring is what this program is for")]
fn now() -> Instant {
    Instant::now()
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = now();
    let value = work();
    (value, start.elapsed())
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Numbers between -1 and 1, always the same ones.
fn noise(count: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        f32::from(u16::try_from(state >> 16).unwrap_or_default()) / 32_768.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}
