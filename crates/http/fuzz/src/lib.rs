//! The service over models that give their inputs back, for targets that send it any bytes.

use std::cell::LazyCell;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use millrace_core::{
    Catalog, Compute, DType, Dim, InferFuture, InferRequest, InferResponse, Job, ModelName, ModelRef, ModelStatus,
    Reason, Refusal, RequestContext, Resolver, Servable, Signature, Signatures, Stages, TensorList, TensorSpec, Wanted,
};
use millrace_http::{ConnectionContext, Front, HttpConfig, HttpParts, HttpService, MetricsText, Readiness, http_service};
use tokio::runtime::{Builder, Runtime};

/// Gives inputs `a` and `b` back as outputs `c` and `d`. `a` is `[N,2]`, `b` is strings.
#[derive(Debug)]
struct Identity {
    model: ModelName,
    signatures: Signatures,
}

impl Servable for Identity {
    fn model(&self) -> &ModelName {
        &self.model
    }

    fn version(&self) -> u64 {
        1
    }

    fn signatures(&self) -> &Signatures {
        &self.signatures
    }

    fn infer(&self, request: InferRequest) -> InferFuture {
        let signature = self.signatures.get(request.signature).expect("there is one");
        if let Err(error) = signature.check(&request.inputs) {
            return InferFuture::refused(error.refusal(&self.model));
        }
        let outputs: TensorList = match &request.wanted {
            Wanted::All => request.inputs.clone(),
            Wanted::Only(indices) => indices.iter().map(|&index| request.inputs[index].clone()).collect(),
        };
        let stages = Stages::immediate(request.context.received);
        InferFuture::ready(Ok(InferResponse { outputs, stages }))
    }
}

/// A model for each dtype, called as the dtype is.
#[derive(Debug)]
struct Models;

impl Resolver for Models {
    fn resolve(&self, model: &ModelRef<'_>, _context: &RequestContext) -> Result<Arc<dyn Servable>, Refusal> {
        let dtype: DType =
            model.name.parse().map_err(|_| Refusal::new(Reason::ModelUnknown, "there is a model for each dtype"))?;
        let wide = |name| TensorSpec::new(name, dtype, [Dim::symbol("N"), Dim::Fixed(2)]);
        let texts = |name| TensorSpec::new(name, DType::Bytes, [Dim::symbol("N")]);
        let signature = Signature::new(vec![wide("a"), texts("b")], vec![wide("c"), texts("d")]);
        let signatures = Signatures::single(signature.expect("names differ and the symbol is bound"));
        Ok(Arc::new(Identity { model: dtype.name().parse().expect("a dtype's name is a model's"), signatures }))
    }
}

impl Catalog for Models {
    fn models(&self) -> Vec<ModelStatus> {
        Vec::new()
    }

    fn model(&self, _name: &str) -> Option<ModelStatus> {
        None
    }

    fn is_ready(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Inline;

impl Compute for Inline {
    fn run(&self, job: Job) -> Result<(), Refusal> {
        job();
        Ok(())
    }
}

thread_local! {
    static RUNTIME: LazyCell<(Runtime, HttpService)> = LazyCell::new(|| {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        let parts = HttpParts {
            resolver: Arc::new(Models),
            catalog: Arc::new(Models),
            control: None,
            compute: Arc::new(Inline),
            readiness: Readiness::default(),
            metrics_text: MetricsText::new(String::new),
            front: Front::default(),
            config: HttpConfig::default(),
        };
        let service = runtime.block_on(async { http_service(parts) });
        (runtime, service)
    });
}

/// The answer to `body` as an inference request to the model of `dtype`. A panic in the service is a status of 500.
pub fn infer(dtype: DType, header_length: Option<&str>, body: &[u8]) -> (StatusCode, HeaderMap, Bytes) {
    let header = header_length.map(|length| ("inference-header-content-length", length));
    ask(&format!("/v2/models/{dtype}/infer"), header, body)
}

/// The answer to `body` sent to `path`. A panic in the service is a status of 500.
pub fn ask(path: &str, header: Option<(&str, &str)>, body: &[u8]) -> (StatusCode, HeaderMap, Bytes) {
    let mut request = Request::builder().method(Method::POST).uri(path);
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body))).expect("a request");
    RUNTIME.with(|both| {
        let (runtime, service) = &**both;
        runtime.block_on(async {
            let answer = service.answer(request, ConnectionContext::default()).await;
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.expect("bodies do not fail").to_bytes();
            (parts.status, parts.headers, body)
        })
    })
}
