//! A small pipeline with a real contract: it asks two models, one after the other.

use std::collections::BTreeMap;
use std::panic::panic_any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use millrace_core::{
    DType, Dim, InferFuture, InferRequest, InferResult, LoadError, LoadErrorKind, ModelName, OwnedModelRef,
    PipelineFactory, PipelineSource, RequestContext, Resolver, Servable, Signature, Signatures, TensorSpec, Wanted,
    contained, on_compute,
};

use crate::{Gate, Misbehaviour};

/// Makes pipelines of the name `fake`: `y = second(first(x))`, where `first` and `second` are models such as
/// [`FakeModel`](crate::FakeModel), and `x` and `y` are FP32 `[N]`.
///
/// | option | meaning |
/// |---|---|
/// | `fail` | making it fails with this text |
/// | `panic` | making it panics with this text |
///
/// Any other option, a missing role and a further one are refused. A request whose first value is that of
/// [`Misbehaviour::Panic`] makes the pipeline itself panic, on the caller's thread.
#[derive(Debug, Clone)]
pub struct FakePipelineFactory {
    gate: Gate,
    attempts: Arc<AtomicUsize>,
}

impl Default for FakePipelineFactory {
    fn default() -> Self {
        Self { gate: Gate::opened(), attempts: Arc::default() }
    }
}

impl FakePipelineFactory {
    /// Every request passes `gate` on a compute thread before the first model is asked.
    #[must_use]
    pub fn gate(mut self, gate: Gate) -> Self {
        self.gate = gate;
        self
    }

    /// How many pipelines this factory and its clones were asked to make.
    pub fn attempts(&self) -> usize {
        self.attempts.load(Ordering::SeqCst)
    }
}

impl PipelineFactory for FakePipelineFactory {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn build(&self, source: PipelineSource) -> Result<Arc<dyn Servable>, LoadError> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        let PipelineSource { model, version, models, options, resolver, compute } = source;
        match options.into_iter().next() {
            None => {}
            Some((key, value)) if key == "fail" => return Err(LoadError::new(LoadErrorKind::Unsupported, value)),
            Some((key, value)) if key == "panic" => panic_any(value),
            Some((key, value)) => {
                return Err(LoadError::new(LoadErrorKind::Invalid, format!("unknown option {key} = {value}")));
            }
        }
        let [first, second] = roles(models)?;
        for inner in [&first, &second] {
            #[expect(clippy::disallowed_methods, reason = "a request carries when it was received")]
            let context = RequestContext::new(std::time::Instant::now());
            resolver.resolve(&inner.borrowed(), &context).map_err(|refusal| {
                let text = format!("the model `{inner}` does not serve: {}", refusal.message());
                LoadError::new(LoadErrorKind::Missing, text)
            })?;
        }
        let spec = |name| TensorSpec::new(name, DType::Fp32, vec![Dim::symbol("N")]);
        let signature = Signature::new(vec![spec("x")], vec![spec("y")])
            .map_err(|error| LoadError::new(LoadErrorKind::Engine, error.to_string()))?;
        let signatures = Signatures::single(signature);
        let asks = Asks { resolver, first, second, gate: self.gate.clone(), compute };
        Ok(Arc::new(FakePipeline { model, version, signatures, asks: Arc::new(asks) }))
    }
}

fn roles(mut models: BTreeMap<String, OwnedModelRef>) -> Result<[OwnedModelRef; 2], LoadError> {
    let wrong = |text: String| LoadError::new(LoadErrorKind::Invalid, text);
    let mut take = |role: &str| models.remove(role).ok_or_else(|| wrong(format!("[models] lacks the role `{role}`")));
    let roles = [take("first")?, take("second")?];
    match models.keys().next() {
        Some(role) => Err(wrong(format!("[models] has a role `{role}` too many"))),
        None => Ok(roles),
    }
}

#[derive(Debug)]
struct FakePipeline {
    model: ModelName,
    version: u64,
    signatures: Signatures,
    asks: Arc<Asks>,
}

/// What a request needs after the call is over.
#[derive(Debug)]
struct Asks {
    resolver: Arc<dyn Resolver>,
    compute: Arc<dyn millrace_core::Compute>,
    first: OwnedModelRef,
    second: OwnedModelRef,
    gate: Gate,
}

impl Servable for FakePipeline {
    fn model(&self) -> &ModelName {
        &self.model
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signatures(&self) -> &Signatures {
        &self.signatures
    }

    fn infer(&self, request: InferRequest) -> InferFuture {
        let checked = self.signatures.get(0).map(|signature| signature.check(&request.inputs));
        if let Some(Err(error)) = checked {
            return InferFuture::refused(error.refusal(&self.model));
        }
        let values = request.inputs.first().and_then(|input| input.elements::<f32>().ok());
        if values.is_some_and(|values| values.first() == Some(&Misbehaviour::Panic.value())) {
            panic_any("the fake pipeline panics, as the test asked");
        }
        let asks = Arc::clone(&self.asks);
        InferFuture::boxed(async move { asks.answer(request).await })
    }
}

impl Asks {
    async fn answer(&self, request: InferRequest) -> InferResult {
        let gate = self.gate.clone();
        on_compute(&*self.compute, move || gate.pass()).await?;
        let context = request.context.nested()?;
        let between = self.ask(&self.first, InferRequest { wanted: Wanted::All, context, ..request }).await?;
        self.ask(&self.second, InferRequest::new(between.outputs, context)).await
    }

    async fn ask(&self, model: &OwnedModelRef, request: InferRequest) -> InferResult {
        let servable = self.resolver.resolve(&model.borrowed(), &request.context)?;
        contained(|| servable.infer(request))?.await
    }
}
