//! What many models cost an engine by themselves: copies of one ONNX model run in turn on plain threads, without a server,
//! beside one copy. It bounds what a server of so many models can reach: each copy's weights and plan come from memory
//! where one model's stay in the caches.
//!
//! ```text
//! many_models MODEL.onnx [--copies 50] [--threads 2] [--slices 7] [--together]
//! ```
//!
//! prints a markdown table: rows per second of one copy and of all in turn, for several rows per turn, which run one after
//! the other, or as one batch with `--together`. Either kind has slices of half a second, in turn; medians.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use millrace_backend_tract::TractBackend;
use millrace_core::{
    Backend, Batch, Dim, Instance, MemoryFiles, Model, ModelSource, Part, RunContext, Tensor, TensorList,
};

/// Rows of one turn.
const ROWS: [usize; 4] = [1, 2, 4, 8];
const SLICE: Duration = Duration::from_millis(500);
/// The size of axes that a signature leaves free.
const FREE: usize = 32;

/// What one thread has of one copy.
struct Copy {
    instance: Box<dyn Instance>,
    model: Arc<dyn Model>,
}

struct Options {
    path: String,
    copies: usize,
    threads: usize,
    slices: usize,
    is_together: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let content = std::fs::read(Path::new(&options.path)).map_err(|error| format!("{}: {error}", options.path))?;
    let files = Arc::new(MemoryFiles::default().with("model.onnx", content));
    let mut models = Vec::new();
    for number in 0..options.copies {
        let source = ModelSource::new(format!("model-{number}").parse()?, 1, Arc::clone(&files) as _);
        models.push(TractBackend::default().load(&source)?);
    }
    let mut threads = (0..options.threads).map(|_| copies(&models)).collect::<Result<Vec<_>, _>>()?;
    let mut out = io::stdout().lock();
    writeln!(out, "| rows a turn | one copy, rows/s | {} in turn | ratio |\n|---|---|---|---|", options.copies)?;
    for rows in ROWS {
        let batches = batches(&*models[0], rows, options.is_together)?;
        for copies in &mut threads {
            warm(copies, &batches)?;
        }
        let (mut one, mut all) = (Vec::new(), Vec::new());
        for _ in 0..options.slices {
            one.push(slice(&mut threads, 1, rows, &batches)?);
            all.push(slice(&mut threads, options.copies, rows, &batches)?);
        }
        let (one, all) = (median(one), median(all));
        writeln!(out, "| {rows} | {one:.0} | {all:.0} | {:.3} |", all / one)?;
        out.flush()?;
    }
    Ok(())
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options { path: String::new(), copies: 50, threads: 2, slices: 7, is_together: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|text| text.parse().ok()).filter(|number| *number > 0);
        match word.as_str() {
            "--copies" => options.copies = number().ok_or("--copies needs a number")?,
            "--threads" => options.threads = number().ok_or("--threads needs a number")?,
            "--slices" => options.slices = number().ok_or("--slices needs a number")?,
            "--together" => options.is_together = true,
            _ => options.path = word,
        }
    }
    if options.path.is_empty() {
        return Err("usage: many_models MODEL.onnx [--copies 50] [--threads 2] [--slices 7] [--together]".into());
    }
    Ok(options)
}

fn copies(models: &[Arc<dyn Model>]) -> Result<Vec<Copy>, Box<dyn Error>> {
    models.iter().map(|model| Ok(Copy { instance: model.instance()?, model: Arc::clone(model) })).collect()
}

/// The runs of one turn.
fn batches(model: &dyn Model, rows: usize, is_together: bool) -> Result<Vec<Batch>, Box<dyn Error>> {
    let part = |rows: usize| -> Result<Part, Box<dyn Error>> {
        let tensor = |dims: &[Dim]| {
            let size = |(axis, dim): (usize, &Dim)| match dim {
                Dim::Fixed(size) => *size,
                _ if axis == 0 => rows,
                _ => FREE,
            };
            let shape: Vec<usize> = dims.iter().enumerate().map(size).collect();
            let elements: Vec<f32> = (0..shape.iter().product()).map(|n: usize| (n % 29) as f32 / 16.0 - 0.9).collect();
            Tensor::from_vec(&shape, elements)
        };
        let inputs = model.signature().inputs().iter().map(|input| tensor(&input.shape));
        Ok(Part { inputs: inputs.collect::<Result<TensorList, _>>()?, rows })
    };
    if is_together {
        let parts = (0..rows).map(|_| part(1)).collect::<Result<Vec<_>, _>>()?;
        return Ok(vec![Batch::new(parts, 0)]);
    }
    (0..rows).map(|_| Ok(Batch::new(vec![part(1)?], 0))).collect()
}

/// Every copy's first runs, plans for these sizes included.
fn warm(copies: &mut [Copy], batches: &[Batch]) -> Result<(), Box<dyn Error>> {
    for copy in copies {
        for batch in batches {
            let inputs: TensorList = batch.parts().first().map(|part| part.inputs.clone()).unwrap_or_default();
            let group = copy.model.signature().check(&inputs)?.group;
            copy.model.prepare(&group, batch.rows())?;
            for _ in 0..2 {
                copy.instance.run(batch, &RunContext::plain())?;
            }
        }
    }
    Ok(())
}

/// Rows per second of all threads, each of which takes the first `count` copies in turn.
fn slice(threads: &mut [Vec<Copy>], count: usize, rows: usize, batches: &[Batch]) -> Result<f64, Box<dyn Error>> {
    let (start, n_threads) = (Barrier::new(threads.len()), threads.len());
    let work = |index: usize, copies: &mut [Copy]| -> Result<f64, String> {
        start.wait();
        let (begun, mut done) = (now(), 0);
        // Threads are at different copies, as workers of a pool are.
        for turn in (index * count / n_threads).. {
            for batch in batches {
                copies[turn % count].instance.run(batch, &RunContext::plain()).map_err(|error| error.to_string())?;
            }
            done += rows;
            if begun.elapsed() >= SLICE {
                break;
            }
        }
        Ok(done as f64 / begun.elapsed().as_secs_f64())
    };
    thread::scope(|scope| {
        let work = &work;
        let spawn = |(index, copies)| scope.spawn(move || work(index, copies));
        let running: Vec<_> = threads.iter_mut().map(|copies| &mut copies[..]).enumerate().map(spawn).collect();
        let ended = running.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?);
        Ok(ended.sum::<Result<f64, String>>()?)
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[expect(clippy::disallowed_methods, reason = "measuring is what this program is for")]
fn now() -> Instant {
    Instant::now()
}
