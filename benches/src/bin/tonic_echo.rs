//! A bare tonic service that gives every inference request's raw tensors back: what gRPC alone costs, with no model
//! behind it.
//!
//! It answers `inference.GRPCInferenceService/ModelInfer` without looking at the tensors. `tonic_echo ADDRESS` runs until
//! it is killed.

#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::error::Error;
use std::future::{Ready, ready};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use millrace_proto::inference::model_infer_response::InferOutputTensor;
use millrace_proto::inference::{ModelInferRequest, ModelInferResponse};
use tokio::net::TcpListener;
use tokio::runtime;
use tonic::Status;
use tonic::server::{Grpc, UnaryService};
use tonic_prost::ProstCodec;

/// No tensor of the benches is larger.
const LARGEST: usize = 64 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: tonic_echo ADDRESS")?;
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(&address))
}

async fn serve(address: &str) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.adaptive_window(true);
        tokio::spawn(builder.serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<tonic::body::Body>, Infallible> {
    let codec = ProstCodec::<ModelInferResponse, ModelInferRequest>::default();
    Ok(Grpc::new(codec).max_decoding_message_size(LARGEST).unary(Echo, request).await)
}

struct Echo;

impl UnaryService<ModelInferRequest> for Echo {
    type Response = ModelInferResponse;
    type Future = Ready<Result<tonic::Response<ModelInferResponse>, Status>>;

    fn call(&mut self, request: tonic::Request<ModelInferRequest>) -> Self::Future {
        let asked = request.into_inner();
        let output = |input: millrace_proto::inference::model_infer_request::InferInputTensor| InferOutputTensor {
            name: input.name,
            datatype: input.datatype,
            shape: input.shape,
            ..InferOutputTensor::default()
        };
        ready(Ok(tonic::Response::new(ModelInferResponse {
            model_name: asked.model_name,
            model_version: asked.model_version,
            id: asked.id,
            outputs: asked.inputs.into_iter().map(output).collect(),
            raw_output_contents: asked.raw_input_contents,
            ..ModelInferResponse::default()
        })))
    }
}
