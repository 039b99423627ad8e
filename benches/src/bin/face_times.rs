//! Runs the face pipeline over a folder of models, as often as it is told on its standard input: the side of `face.py`
//! that is ours.
//!
//! `face_times MODELS [THREADS]` answers each line with one of JSON; times are in microseconds.
//! - `once PHOTO`: one request alone. `total`; of that `decode`, `image` (the rest of what runs on compute threads) and each
//!   network by its name.
//! - `many CALLERS ROUNDS PHOTO`: callers at once, each asking that often. `total`, for all of them.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, BufRead, Write};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_backend_tract::TractBackend;
use millrace_batching::{ComputePool, PoolConfig};
use millrace_core::{
    Compute, InferFuture, InferRequest, Job, ModelName, ModelRef, PipelineSource, Refusal, RequestContext, Resolver,
    Servable, Signatures, Strings, Tensor,
};
use millrace_registry::{Registry, RegistryConfig};
use millrace_vision::{Limits, decode};
use parking_lot::Mutex;

const ROLES: [(&str, &str); 4] =
    [("pnet", "mtcnn_pnet"), ("rnet", "mtcnn_rnet"), ("onet", "mtcnn_onet"), ("embedding", "face_embedding")];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let models = arguments.next().ok_or("usage: face_times MODELS [THREADS]")?;
    let threads: NonZeroUsize = arguments.next().as_deref().unwrap_or("1").parse()?;
    let pool = ComputePool::new(PoolConfig { threads, ..PoolConfig::default() });
    let backends: Vec<Arc<dyn millrace_core::Backend>> = vec![Arc::new(TractBackend::default())];
    let registry = Registry::start(RegistryConfig::repository(models), backends, pool.clone())?;
    pollster::block_on(registry.settled());
    let clock = Clock::default();
    let factory = millrace_face::FacePipeline::default();
    let source = PipelineSource {
        model: "face_pipeline".parse()?,
        version: 1,
        models: ROLES
            .iter()
            .map(|(role, name)| Ok(((*role).to_owned(), name.parse()?)))
            .collect::<Result<_, Box<dyn Error>>>()?,
        options: BTreeMap::new(),
        resolver: Arc::new(TimedResolver { registry, clock: clock.clone() }),
        compute: Arc::new(TimedCompute { pool, clock: clock.clone() }),
    };
    let pipeline = millrace_core::PipelineFactory::build(&factory, source)?;

    let mut answers = io::stdout().lock();
    writeln!(answers, "{{\"ready\": 1}}")?;
    answers.flush()?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        if let Some(path) = line.strip_prefix("once ") {
            let file = read(path)?;
            clock.take();
            let started = now();
            ask(&*pipeline, &file)?;
            let total = started.elapsed();
            let mut parts = clock.take();
            let started = now();
            decode(&file, &Limits::default())?;
            let decoding = started.elapsed();
            let computed = parts.remove(COMPUTE).unwrap_or_default();
            write!(answers, "{{\"total\": {}, \"decode\": {}", micros(total), micros(decoding))?;
            write!(answers, ", \"image\": {}", micros(computed.saturating_sub(decoding)))?;
            for (name, took) in parts {
                write!(answers, ", \"{name}\": {}", micros(took))?;
            }
            writeln!(answers, "}}")?;
        } else if let Some([callers, rounds, path]) = line.strip_prefix("many ").and_then(words) {
            let (callers, rounds, file) = (callers.parse::<usize>()?, rounds.parse::<usize>()?, read(path)?);
            let started = now();
            std::thread::scope(|scope| {
                let caller = || (0..rounds).try_for_each(|_| ask(&*pipeline, &file));
                let callers: Vec<_> = (0..callers).map(|_| scope.spawn(caller)).collect();
                callers.into_iter().try_for_each(|caller| caller.join().expect("a caller does not panic"))
            })?;
            writeln!(answers, "{{\"total\": {}}}", micros(started.elapsed()))?;
        } else {
            return Err(format!("expected `once PHOTO` or `many CALLERS ROUNDS PHOTO`, got `{line}`").into());
        }
        answers.flush()?;
    }
    Ok(())
}

/// Three words; the last may hold spaces.
fn words(text: &str) -> Option<[&str; 3]> {
    let mut words = text.splitn(3, ' ');
    Some([words.next()?, words.next()?, words.next()?])
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{path}: {error}"))
}

fn ask(pipeline: &dyn Servable, file: &[u8]) -> Result<(), Refusal> {
    let strings: Strings = std::iter::once(file).collect();
    let picture = Tensor::from_strings(&[1], strings).expect("one string makes a tensor of one");
    let request = InferRequest::new(vec![picture], RequestContext::new(now()));
    pollster::block_on(pipeline.infer(request)).map(drop)
}

#[expect(clippy::disallowed_methods, reason = "measuring is what this program is for")]
fn now() -> Instant {
    Instant::now()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Time by what it was spent on.
#[derive(Debug, Clone, Default)]
struct Clock(Arc<Mutex<BTreeMap<String, Duration>>>);

/// What the clock calls work that is no network's.
const COMPUTE: &str = "compute";

impl Clock {
    fn add(&self, name: &str, took: Duration) {
        *self.0.lock().entry(name.to_owned()).or_default() += took;
    }

    fn take(&self) -> BTreeMap<String, Duration> {
        std::mem::take(&mut *self.0.lock())
    }
}

#[derive(Debug)]
struct TimedCompute {
    pool: ComputePool,
    clock: Clock,
}

impl Compute for TimedCompute {
    fn run(&self, job: Job) -> Result<(), Refusal> {
        let clock = self.clock.clone();
        self.pool.run(Box::new(move || {
            let started = now();
            // The job wakes whoever waits for it, perhaps before the clock is told: a request's last job only puts four
            // small tensors together.
            job();
            clock.add(COMPUTE, started.elapsed());
        }))
    }
}

#[derive(Debug)]
struct TimedResolver {
    registry: Registry,
    clock: Clock,
}

impl Resolver for TimedResolver {
    fn resolve(&self, model: &ModelRef<'_>, context: &RequestContext) -> Result<Arc<dyn Servable>, Refusal> {
        let servable = self.registry.resolve(model, context)?;
        Ok(Arc::new(TimedServable { servable, clock: self.clock.clone() }))
    }
}

/// A network that tells the clock how long its backend worked.
#[derive(Debug)]
struct TimedServable {
    servable: Arc<dyn Servable>,
    clock: Clock,
}

impl Servable for TimedServable {
    fn model(&self) -> &ModelName {
        self.servable.model()
    }

    fn version(&self) -> u64 {
        self.servable.version()
    }

    fn signatures(&self) -> &Signatures {
        self.servable.signatures()
    }

    fn infer(&self, request: InferRequest) -> InferFuture {
        let (answer, clock) = (self.servable.infer(request), self.clock.clone());
        let name = self.servable.model().to_string();
        InferFuture::boxed(async move {
            let answer = answer.await?;
            clock.add(&name, answer.stages.compute());
            Ok(answer)
        })
    }
}
