//! The Open Inference Protocol over gRPC with tonic: a raw tensor in, a raw tensor out.
//!
//! ```sh
//! cargo run -- serve fixtures/models
//! cargo run --example oip_grpc -- [HOST:PORT]
//! # half_plus_two, version 2: y = [3.5, 4.0, 5.5]
//! ```

use std::error::Error;

use millrace_proto::inference::ModelInferRequest;
use millrace_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use millrace_proto::inference::model_infer_request::InferInputTensor;
use tonic::transport::Endpoint;

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "localhost:8080".to_owned());
    println!("{}", ask(&address).await?);
    Ok(())
}

async fn ask(address: &str) -> Result<String, Box<dyn Error>> {
    let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
    let mut client = GrpcInferenceServiceClient::new(channel);

    let x: Vec<u8> = [1.0_f32, 2.0, 5.0].into_iter().flat_map(f32::to_le_bytes).collect();
    let input = InferInputTensor { name: "x".into(), datatype: "FP32".into(), shape: vec![3], ..Default::default() };
    let request = ModelInferRequest {
        model_name: "half_plus_two".into(),
        inputs: vec![input],
        raw_input_contents: vec![x.into()],
        ..Default::default()
    };
    let answer = client.model_infer(request).await?.into_inner();

    // One raw entry for each output, in the order of `outputs`.
    let (elements, _) = answer.raw_output_contents[0].as_chunks::<4>();
    let y: Vec<f32> = elements.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    Ok(format!("{}, version {}: {} = {y:?}", answer.model_name, answer.model_version, answer.outputs[0].name))
}

#[tokio::test]
async fn it_says_what_its_header_says() {
    let mut config = millrace_server::ServerConfig::repository(millrace_testkit::fixture("models"));
    config.listen = vec![std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()];
    config.admin = Vec::new();
    let server = millrace_server::Server::start(config).await.unwrap();
    server.ready().await;
    let answer = ask(&server.local_addr().to_string()).await.unwrap();
    assert_eq!(answer, "half_plus_two, version 2: y = [3.5, 4.0, 5.5]");
}
