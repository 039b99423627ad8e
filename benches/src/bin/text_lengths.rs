//! Texts of mixed lengths: batches as they come, padded to the longest, beside what the queue makes of them.
//!
//! `text_lengths FOLDER [ENGINE]` with `candle` (default), `tract` or `onnxruntime`: FOLDER holds config.json and tokenizer.json beside
//! model.safetensors or model.onnx. One thread. Tokens are drawn; their number is even between 8 and 512.
//! First come, first served takes 16 texts at a time and computes every padded position, as an engine does that is given
//! rectangles; the queue is asked for all of them at once. Both in turn, several times; the medians of tokens per second.

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use millrace_backend_candle::CandleBackend;
use millrace_backend_onnxruntime::OnnxRuntimeBackend;
use millrace_backend_tract::TractBackend;
use millrace_batching::{BatchConfig, BatchQueue, ComputePool, PoolConfig};
use millrace_benches::model_files;
use millrace_core::{
    Backend, Batch, InferFuture, InferRequest, Model, ModelSource, RequestContext, RunContext, Tensor, TensorList,
    Wanted,
};
use millrace_text::TextBackend;

type Outcome<T> = Result<T, Box<dyn Error>>;

const TEXTS: usize = 48;
const AT_ONCE: usize = 16;
const SHORTEST: usize = 8;
const LONGEST: usize = 512;
const ROUNDS: usize = 3;
/// Any id that every vocabulary has.
const IDS: usize = 100;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = arguments.first().ok_or("usage: text_lengths FOLDER [ENGINE]")?;
    let engine = arguments.get(1).map_or("candle", String::as_str);
    let source = ModelSource::new("texts".parse()?, 1, Arc::new(model_files(Path::new(folder))?));
    let plain = backend(engine)?;
    let (padded, queued): (Arc<dyn Model>, Arc<dyn Model>) = match engine {
        "candle" => {
            let model = plain.load(&source)?;
            (Arc::clone(&model), model)
        }
        _ => (plain.load(&source)?, TextBackend::over(plain).load(&source)?),
    };
    let lengths = lengths();
    let tokens: usize = lengths.iter().sum();
    // An engine that packs computes what the mask says: there, padding counts as tokens.
    let is_masked = engine != "candle";
    let (mut first_come, mut ours) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let padded = rectangles(&*padded, &lengths, is_masked)?;
        let queue = through_the_queue(&queued, &lengths)?;
        // The first round is to warm up.
        if round > 0 {
            first_come.push(tokens as f64 / padded);
            ours.push(tokens as f64 / queue);
        }
    }
    let ratios: Vec<f64> = ours.iter().zip(&first_come).map(|(ours, other)| ours / other).collect();
    println(&format!(
        "{engine}: {TEXTS} texts, {tokens} tokens; first come, first served {:.0} tokens/s, the queue {:.0}; ratio {:.2} ({:.2} to {:.2})",
        median(&first_come),
        median(&ours),
        median(&ratios),
        ratios.iter().copied().fold(f64::INFINITY, f64::min),
        ratios.iter().copied().fold(0.0, f64::max),
    ));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a bench prints its figures")]
fn println(line: &str) {
    println!("{line}");
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the real clock")]
fn now() -> Instant {
    Instant::now()
}

fn backend(engine: &str) -> Outcome<Arc<dyn Backend>> {
    Ok(match engine {
        "candle" => Arc::new(CandleBackend::default()),
        "tract" => Arc::new(TractBackend::default()),
        "onnxruntime" => Arc::new(OnnxRuntimeBackend::default()),
        _ => return Err("the engine must be candle, tract or onnxruntime".into()),
    })
}

/// The same every time: a walk that visits all lengths evenly and never two alike in a row.
fn lengths() -> Vec<usize> {
    (0..TEXTS).map(|text| SHORTEST + (text * 193 + 57) % (LONGEST - SHORTEST + 1)).collect()
}

/// The inputs of rows of these lengths, padded to the longest.
fn inputs(model: &dyn Model, lengths: &[usize], is_masked: bool) -> Outcome<TensorList> {
    let longest = lengths.iter().copied().max().unwrap_or(1);
    let sizes = [lengths.len(), longest];
    let row = |length: usize, token: fn(usize) -> i64| {
        (0..longest).map(move |column| if column < length { token(column) } else { 0 })
    };
    let ids = |column: usize| i64::try_from(1 + (column * 31) % IDS).unwrap_or(1);
    let make = |name: &str| -> Outcome<Tensor> {
        let values: Vec<i64> = match name {
            "input_ids" => lengths.iter().flat_map(|&length| row(length, ids)).collect(),
            "attention_mask" if is_masked => lengths.iter().flat_map(|&length| row(length, |_| 1)).collect(),
            "attention_mask" => vec![1; lengths.len() * longest],
            _ => vec![0; lengths.len() * longest],
        };
        Ok(Tensor::from_vec(&sizes, values)?)
    };
    model.signature().inputs().iter().map(|spec| make(&spec.name)).collect()
}

/// Seconds for all texts in batches of [`AT_ONCE`] as they come.
fn rectangles(model: &dyn Model, lengths: &[usize], is_masked: bool) -> Outcome<f64> {
    let mut instance = model.instance()?;
    let wanted = Wanted::Only([0].as_slice().into());
    let started = now();
    for batch in lengths.chunks(AT_ONCE) {
        let inputs = inputs(model, batch, is_masked)?;
        instance.run(&Batch::single(inputs, batch.len()), &RunContext { wanted: &wanted, ..RunContext::plain() })?;
    }
    Ok(started.elapsed().as_secs_f64())
}

/// Seconds for all texts, each a request of its own, all asked at once.
fn through_the_queue(model: &Arc<dyn Model>, lengths: &[usize]) -> Outcome<f64> {
    let pool = ComputePool::new(PoolConfig { threads: NonZeroUsize::MIN, ..PoolConfig::default() });
    let config = BatchConfig { max_queue_time: std::time::Duration::from_secs(3600), ..BatchConfig::default() };
    let queue = BatchQueue::new(Arc::clone(model), "texts".parse()?, 1, config, &pool)?;
    let requests = lengths.iter().map(|&length| {
        let inputs = inputs(&**model, &[length], true)?;
        let request = InferRequest::new(inputs, RequestContext::new(now()));
        Ok(InferRequest { wanted: Wanted::Only([0].as_slice().into()), ..request })
    });
    let requests: Vec<InferRequest> = requests.collect::<Outcome<_>>()?;
    let started = now();
    let answers: Vec<InferFuture> = requests.into_iter().map(|request| queue.infer(request)).collect();
    for answer in answers {
        pollster::block_on(answer).map_err(|refusal| refusal.message().to_owned())?;
    }
    Ok(started.elapsed().as_secs_f64())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}
