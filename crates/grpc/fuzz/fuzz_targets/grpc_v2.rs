//! Any bytes as the body of a call by the Open Inference Protocol, whole or in two pieces, to a model of any dtype: no
//! panic, an answer of messages and a status, and tensors no larger than what was sent could hold.

#![no_main]

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use libfuzzer_sys::fuzz_target;
use millrace_core::{
    Catalog, Compute, DType, Dim, InferFuture, InferRequest, InferResponse, Job, ModelName, ModelRef, ModelStatus,
    Refusal, RequestContext, Resolver, Servable, Signature, Signatures, Stages, Tensor, TensorSpec,
};
use millrace_grpc::{GrpcConfig, GrpcParts, grpc_service};
use millrace_protocol::front::{ConnectionContext, Front, Readiness};
use tokio::runtime::{Builder, Runtime};

const METHODS: [&str; 6] = [
    "/inference.GRPCInferenceService/ModelInfer",
    "/inference.GRPCInferenceService/ModelStreamInfer",
    "/inference.GRPCInferenceService/ModelMetadata",
    "/inference.GRPCInferenceService/RepositoryModelLoad",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
];

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

fuzz_target!(|input: (u8, u8, bool, &[u8])| {
    let (method, which, is_framed, body) = input;
    let dtype = DType::ALL[usize::from(which) % DType::ALL.len()];
    let spec = |name: &str| TensorSpec::new(name, dtype, [Dim::symbol("N")]);
    let signature = Signature::new(vec![spec("a"), spec("b")], vec![spec("c"), spec("d")]);
    let signatures = Signatures::single(signature.expect("names differ and the symbol is bound"));
    // A byte of the wire may be a number of eight, or a string with two offsets.
    let echo = Arc::new(Echo { name: "m".parse().expect("a name"), signatures, most: 16 * body.len() });
    let one = Arc::new(One(echo));
    let service = grpc_service(GrpcParts {
        resolver: one.clone(),
        catalog: one,
        control: None,
        compute: Arc::new(Inline),
        readiness: Readiness::default(),
        front: Front::default(),
        config: GrpcConfig { max_message_bytes: 1 << 20, ..GrpcConfig::default() },
    });
    let body = if is_framed {
        let length = u32::try_from(body.len()).expect("inputs are small").to_be_bytes();
        [&[0], &length[..], body].concat()
    } else {
        body.to_vec()
    };
    let request = Request::post(METHODS[usize::from(method) % METHODS.len()]);
    let request = request.header("content-type", "application/grpc").body(Full::new(Bytes::from(body)));
    let request = request.expect("the parts fit");
    RUNTIME.with_borrow(|runtime| {
        runtime.block_on(async {
            let answer = service.answer(request, ConnectionContext::default()).await;
            let headers = answer.headers().clone();
            let body = answer.into_body().collect().await.expect("bodies do not fail");
            let ended = body.trailers().unwrap_or(&headers);
            assert!(ended.contains_key("grpc-status"), "an answer without a status");
        });
    });
});
