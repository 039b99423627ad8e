//! Runs one ONNX model through `millrace-backend-tract`, as often as it is told on its standard input: the side of
//! `face_networks.py` that is ours.
//!
//! `model_times MODEL.onnx` answers each line of sizes, such as `8 3 24 24` for the model's one `FP32` input, with the
//! microseconds that one run took. `prepare 8 3 24 24` makes a plan for exactly these sizes first and answers with the
//! time of that; `threads 2` lends runs from then on a second thread, and answers nothing.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_backend_tract::TractBackend;
use millrace_core::{Backend, Batch, MemoryFiles, ModelSource, Part, RunContext, Tensor, TensorList};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: model_times MODEL.onnx")?;
    let content = std::fs::read(Path::new(&path)).map_err(|error| format!("{path}: {error}"))?;
    let files = MemoryFiles::default().with("model.onnx", content);
    let source = ModelSource::new("model".parse()?, 1, Arc::new(files));
    let (model, took) = timed(|| TractBackend::default().load(&source));
    let model = model?;
    let mut answers = io::stdout().lock();
    writeln!(answers, "{}", micros(took))?;
    answers.flush()?;
    let mut instance = model.instance()?;
    let mut context = RunContext::plain();
    for line in io::stdin().lock().lines() {
        let line = line?;
        if let Some(threads) = line.strip_prefix("threads ") {
            context.threads = threads.parse()?;
            continue;
        }
        let (prepare, sizes) = line.strip_prefix("prepare ").map_or((false, line.as_str()), |sizes| (true, sizes));
        let sizes = sizes.split_whitespace().map(str::parse).collect::<Result<Vec<usize>, _>>()?;
        let inputs: TensorList = [noise(&sizes)?].into_iter().collect();
        let admission = model.signature().check(&inputs)?;
        model.admit(&admission)?;
        let took = if prepare {
            let (outcome, took) = timed(|| model.prepare(&admission.group, admission.rows));
            outcome?;
            took
        } else {
            let batch = Batch::new(vec![Part { inputs, rows: admission.rows }], 0);
            let (outcome, took) = timed(|| instance.run(&batch, &context));
            outcome?;
            took
        };
        writeln!(answers, "{}", micros(took))?;
        answers.flush()?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "measuring is what this program is for")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = work();
    (value, start.elapsed())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Numbers between -1 and 1, always the same ones.
fn noise(sizes: &[usize]) -> Result<Tensor, Box<dyn Error>> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        f32::from(u16::try_from(state >> 16).unwrap_or_default()) / 32_768.0 - 1.0
    };
    let elements: Vec<f32> = (0..sizes.iter().product()).map(|_| next()).collect();
    Ok(Tensor::from_vec(sizes, elements)?)
}
