//! A service in memory with one model that gives its inputs back, and a way to call it.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use millrace_core::{
    Catalog, Compute, DType, Dim, InferFuture, InferRequest, InferResponse, Job, ModelName, ModelRef, ModelStatus,
    Refusal, RequestContext, Resolver, Servable, Signature, Signatures, Stages, Tensor, TensorSpec,
};
use millrace_grpc::{GrpcConfig, GrpcParts, grpc_service};
use millrace_protocol::front::{ConnectionContext, Front, Readiness};
use tokio::runtime::{Builder, Runtime};

/// Bytes of the largest message.
pub const MAX_MESSAGE: usize = 1 << 20;

thread_local! {
    static RUNTIME: RefCell<Runtime> =
        RefCell::new(Builder::new_current_thread().enable_time().build().expect("a runtime"));
}

/// A model of two inputs that gives them back.
#[derive(Debug)]
struct Echo {
    name: ModelName,
    signatures: Signatures,
    most: usize,
}

impl Servable for Echo {
    fn model(&self) -> &ModelName {
        &self.name
    }

    fn version(&self) -> u64 {
        1
    }

    fn signatures(&self) -> &Signatures {
        &self.signatures
    }

    fn infer(&self, request: InferRequest) -> InferFuture {
        let n_bytes: usize = request.inputs.iter().map(Tensor::n_bytes).sum();
        assert!(n_bytes <= self.most, "{n_bytes} bytes of tensors, at most {}", self.most);
        let stages = Stages::immediate(request.context.received);
        InferFuture::ready(Ok(InferResponse { outputs: request.inputs, stages }))
    }
}

/// The one model, whatever name is asked for.
#[derive(Debug)]
struct One(Arc<Echo>);

impl Resolver for One {
    fn resolve(&self, _model: &ModelRef<'_>, _context: &RequestContext) -> Result<Arc<dyn Servable>, Refusal> {
        Ok(Arc::clone(&self.0) as Arc<dyn Servable>)
    }
}

impl Catalog for One {
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

/// Calls `method` with `body`, a message without its prefix if it is to be framed, on a model whose two inputs have
/// `dtype`. Its tensors must have no more than `most` bytes together, and the answer a status.
pub fn call(method: &str, dtype: DType, most: usize, is_framed: bool, body: &[u8]) {
    let spec = |name: &str| TensorSpec::new(name, dtype, [Dim::symbol("N")]);
    let signature = Signature::new(vec![spec("a"), spec("b")], vec![spec("c"), spec("d")]);
    let signatures = Signatures::single(signature.expect("names differ and the symbol is bound"));
    let one = Arc::new(One(Arc::new(Echo { name: "m".parse().expect("a name"), signatures, most })));
    let service = grpc_service(GrpcParts {
        resolver: one.clone(),
        catalog: one,
        control: None,
        compute: Arc::new(Inline),
        readiness: Readiness::default(),
        front: Front::default(),
        config: GrpcConfig { max_message_bytes: MAX_MESSAGE, ..GrpcConfig::default() },
    });
    let body = if is_framed {
        let length = u32::try_from(body.len()).expect("inputs are small").to_be_bytes();
        [&[0], &length[..], body].concat()
    } else {
        body.to_vec()
    };
    let request = Request::post(method).header("content-type", "application/grpc");
    let request = request.body(Full::new(Bytes::from(body))).expect("the parts fit");
    RUNTIME.with_borrow(|runtime| {
        runtime.block_on(async {
            let answer = service.answer(request, ConnectionContext::default()).await;
            let headers = answer.headers().clone();
            let body = answer.into_body().collect().await.expect("bodies do not fail");
            let ended = body.trailers().unwrap_or(&headers);
            assert!(ended.contains_key("grpc-status"), "an answer without a status");
        });
    });
}
