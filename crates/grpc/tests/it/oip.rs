//! The Open Inference Protocol through its generated client: every method, every datatype, every form of data.

use millrace_core::{DType, InferFuture, Reason, Refusal, VersionState};
use millrace_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient as Client;
use millrace_proto::inference::infer_parameter::ParameterChoice;
use millrace_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use millrace_proto::inference::{
    InferParameter, InferTensorContents, ModelConfigRequest, ModelInferRequest, ModelInferResponse,
    ModelMetadataRequest, ModelReadyRequest, ModelStatisticsRequest, RepositoryIndexRequest, ServerLiveRequest,
    ServerMetadataRequest, ServerReadyRequest,
};
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;

use crate::harness::{Models, TestServer, spec};

/// Path of the method.
pub(crate) const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// One model of each kind that the tests ask.
pub(crate) fn models() -> Models {
    Models::new()
        .affine("half_plus_two", 1, 0.5, 2.0)
        .affine("half_plus_two", 2, 0.5, 3.0)
        .alias("half_plus_two", "stable", 1)
        .identity("two", vec![spec("a", DType::Int32, &[-1, 2]), spec("b", DType::Bytes, &[-1])])
        .identity("scores", vec![spec("s", DType::Fp32, &[-1, 3])])
        .refusing("full", Refusal::new(Reason::QueueFull, "the queue is full"))
        .unavailable("loading", VersionState::Loading, Refusal::new(Reason::Loading, "still loading"))
}

pub(crate) fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    }
}

/// A request to `half_plus_two` with raw data.
pub(crate) fn request(x: &[f32]) -> ModelInferRequest {
    let raw: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
    ModelInferRequest {
        model_name: "half_plus_two".to_owned(),
        inputs: vec![input("x", "FP32", &[i64::try_from(x.len()).unwrap()])],
        raw_input_contents: vec![raw.into()],
        ..ModelInferRequest::default()
    }
}

pub(crate) fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

pub(crate) fn floats(raw: &[u8]) -> Vec<f32> {
    raw.chunks_exact(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect()
}

pub(crate) async fn client(server: &TestServer) -> Client<Channel> {
    Client::new(server.connect().await).max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX)
}

#[tokio::test]
async fn raw_data_goes_in_and_raw_data_comes_out() {
    let server = TestServer::new(models());
    let mut client = client(&server).await;
    let asked = ModelInferRequest { id: "seven".to_owned(), ..request(&[1.0, 2.0, 5.0]) };
    let answer = client.model_infer(asked).await.unwrap().into_inner();
    assert_eq!(
        (answer.model_name.as_str(), answer.model_version.as_str(), answer.id.as_str()),
        ("half_plus_two", "2", "seven")
    );
    let output = &answer.outputs[0];
    assert_eq!((output.name.as_str(), output.datatype.as_str(), &output.shape[..]), ("y", "FP32", &[3][..]));
    assert!(output.contents.is_none());
    assert_eq!(floats(&answer.raw_output_contents[0]), [3.5, 4.0, 5.5]);
}

#[tokio::test]
async fn typed_contents_are_taken_and_raw_still_comes_out() {
    let server = TestServer::new(models());
    let mut client = client(&server).await;
    let mut asked = request(&[1.0, 2.0]);
    asked.raw_input_contents.clear();
    asked.inputs[0].contents = Some(InferTensorContents { fp32_contents: vec![1.0, 2.0], ..Default::default() });
    asked.model_version = "1".to_owned();
    let answer = client.model_infer(asked).await.unwrap().into_inner();
    assert_eq!(floats(&answer.raw_output_contents[0]), [2.5, 3.0]);
    assert_eq!(answer.model_version, "1");
}

#[tokio::test]
async fn several_tensors_keep_their_order_and_outputs_come_as_listed() {
    let server = TestServer::new(models());
    let mut client = client(&server).await;
    let mut asked = ModelInferRequest {
        model_name: "two".to_owned(),
        inputs: vec![input("b", "BYTES", &[2]), input("a", "INT32", &[2, 2])],
        raw_input_contents: vec![
            b"\x02\0\0\0ab\0\0\0\0"[..].into(),
            [1_i32, -2, 3, -4].iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into(),
        ],
        ..ModelInferRequest::default()
    };
    let all = client.model_infer(asked.clone()).await.unwrap().into_inner();
    let names =
        |answer: &ModelInferResponse| answer.outputs.iter().map(|output| output.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&all), ["a_out", "b_out"]);
    assert_eq!(all.raw_output_contents[1], b"\x02\0\0\0ab\0\0\0\0"[..]);
    let listed = |name: &str| InferRequestedOutputTensor { name: name.to_owned(), ..Default::default() };
    asked.outputs = vec![listed("b_out"), listed("a_out")];
    let both = client.model_infer(asked.clone()).await.unwrap().into_inner();
    assert_eq!(names(&both), ["b_out", "a_out"]);
    assert_eq!(both.raw_output_contents[1], all.raw_output_contents[0]);
    asked.outputs.truncate(1);
    let one = client.model_infer(asked).await.unwrap().into_inner();
    assert_eq!((names(&one), one.raw_output_contents.len()), (vec!["b_out".to_owned()], 1));
}

#[tokio::test]
async fn the_best_classes_come_as_text() {
    let server = TestServer::new(models());
    let mut client = client(&server).await;
    let raw: Vec<u8> = [0.1_f32, 0.7, 0.2].iter().flat_map(|x| x.to_le_bytes()).collect();
    let classification = ("classification".to_owned(), parameter(ParameterChoice::Int64Param(2)));
    let asked = ModelInferRequest {
        model_name: "scores".to_owned(),
        inputs: vec![input("s", "FP32", &[1, 3])],
        raw_input_contents: vec![raw.into()],
        outputs: vec![InferRequestedOutputTensor {
            name: "s_out".to_owned(),
            parameters: [classification].into_iter().collect(),
        }],
        ..ModelInferRequest::default()
    };
    let answer = client.model_infer(asked).await.unwrap().into_inner();
    assert_eq!((answer.outputs[0].datatype.as_str(), &answer.outputs[0].shape[..]), ("BYTES", &[1, 2][..]));
    assert_eq!(answer.raw_output_contents[0], b"\x0a\0\0\x000.700000:1\x0a\0\0\x000.200000:2"[..]);
}

#[tokio::test]
async fn refusals_have_tritons_codes() {
    let server = TestServer::new(models());
    let mut client = client(&server).await;
    for (name, version, code, words) in [
        ("nobody", "", Code::NotFound, "'nobody'"),
        ("half_plus_two", "9", Code::NotFound, "version 9"),
        ("half_plus_two", "abc", Code::InvalidArgument, "abc"),
        // Aliases are not this protocol's.
        ("half_plus_two", "stable", Code::InvalidArgument, "stable"),
        ("half_plus_two", "-1", Code::InvalidArgument, "-1"),
        ("full", "", Code::Unavailable, "the queue is full"),
        ("loading", "", Code::Unavailable, "'loading'"),
    ] {
        let mut asked = request(&[1.0]);
        (asked.model_name, asked.model_version) = (name.to_owned(), version.to_owned());
        let status = client.model_infer(asked).await.unwrap_err();
        assert_eq!(status.code(), code, "{name} {version}: {status}");
        assert!(status.message().contains(words), "{status}");
    }
}

#[tokio::test]
async fn eight_mebibytes_pass_either_way_and_compressed() {
    let server = TestServer::new(models());
    let plain = client(&server).await;
    let x: Vec<f32> = (0_u16..=u16::MAX).cycle().take(2 << 20).map(f32::from).collect();
    for coding in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Deflate)] {
        let mut client = plain.clone();
        if let Some(coding) = coding {
            client = client.send_compressed(coding).accept_compressed(coding);
        }
        let answer = client.model_infer(request(&x)).await.unwrap().into_inner();
        assert_eq!(answer.raw_output_contents[0].len(), 8 << 20);
        assert!((floats(&answer.raw_output_contents[0])[5] - 5.5).abs() < f32::EPSILON);
    }
    assert!(server.compute.jobs() >= 2, "unpacking is done on compute threads");
}

#[tokio::test]
async fn an_answer_is_compressed_only_for_a_client_that_compresses() {
    let server = TestServer::new(models());
    let x = vec![0.0; 64 << 10];
    let message = prost::Message::encode_to_vec(&request(&x));
    let accepts = ("grpc-accept-encoding", "identity,deflate,gzip");
    let plain = server.send(INFER, &[accepts], [crate::harness::framed(&message)]).await;
    assert!(!plain.compressed && !plain.headers.contains_key("grpc-encoding"));
    let headers = [accepts, ("grpc-encoding", "gzip")];
    let packed = server.send(INFER, &headers, [crate::harness::framed(&message)]).await;
    assert!(packed.compressed);
    assert_eq!(packed.headers["grpc-encoding"], "gzip");
    let small = prost::Message::encode_to_vec(&request(&[1.0]));
    assert!(!server.send(INFER, &headers, [crate::harness::framed(&small)]).await.compressed);
}

#[tokio::test]
async fn the_server_says_what_it_is_and_whether_it_serves() {
    let server = TestServer::new(models());
    let mut client = client(&server).await;
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let metadata = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(metadata.name, "millrace");
    assert!(metadata.extensions.iter().any(|name| name == "binary_tensor_data"));
    let ready = |name: &str, version: &str| ModelReadyRequest { name: name.to_owned(), version: version.to_owned() };
    assert!(client.model_ready(ready("half_plus_two", "")).await.unwrap().into_inner().ready);
    assert!(client.model_ready(ready("half_plus_two", "1")).await.unwrap().into_inner().ready);
    assert!(!client.model_ready(ready("loading", "")).await.unwrap().into_inner().ready);
    assert_eq!(client.model_ready(ready("nobody", "")).await.unwrap_err().code(), Code::NotFound);
    server.readiness.begin_drain();
    assert!(!client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    assert!(client.model_infer(request(&[1.0])).await.is_ok(), "requests are answered while draining");
    server.readiness.refuse_new();
    assert_eq!(client.model_infer(request(&[1.0])).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn metadata_configuration_and_statistics_tell_what_is_loaded() {
    let server = TestServer::new(models());
    let mut client = client(&server).await;
    let asked = ModelMetadataRequest { name: "two".to_owned(), version: String::new() };
    let metadata = client.model_metadata(asked).await.unwrap().into_inner();
    assert_eq!((metadata.versions, metadata.platform.as_str()), (vec!["1".to_owned()], "fake"));
    assert_eq!((metadata.inputs[0].datatype.as_str(), &metadata.inputs[0].shape[..]), ("INT32", &[-1, 2][..]));
    assert_eq!((metadata.outputs[1].name.as_str(), metadata.outputs[1].datatype.as_str()), ("b_out", "BYTES"));

    let asked = ModelConfigRequest { name: "two".to_owned(), version: "1".to_owned() };
    let config = client.model_config(asked).await.unwrap().into_inner().config.unwrap();
    assert_eq!((config.name.as_str(), config.backend.as_str(), config.max_batch_size), ("two", "fake", 8));
    assert_eq!((config.input[0].data_type, &config.input[0].dims[..]), (8, &[2][..]));

    let asked = ModelStatisticsRequest { name: "half_plus_two".to_owned(), version: "2".to_owned() };
    let statistics = client.model_statistics(asked).await.unwrap().into_inner();
    assert_eq!(statistics.model_stats.len(), 1);
    assert_eq!(statistics.model_stats[0].version, "2");
    assert_eq!(statistics.model_stats[0].memory_usage[0].byte_size, 17);
    let all = client.model_statistics(ModelStatisticsRequest::default()).await.unwrap().into_inner();
    assert_eq!(all.model_stats.len(), 5, "every version that can serve");

    let index = client.repository_index(RepositoryIndexRequest::default()).await.unwrap().into_inner();
    assert!(index.models.iter().any(|model| model.name == "loading" && model.state == "LOADING"));
    let ready = RepositoryIndexRequest { ready: true, ..Default::default() };
    let index = client.repository_index(ready).await.unwrap().into_inner();
    assert!(index.models.iter().all(|model| model.state == "READY"));
}

#[tokio::test]
async fn priorities_and_timeouts_reach_the_model() {
    let models = Models::new().scalar("echo", |request| {
        let context = request.context;
        let deadline = context.deadline.unwrap().saturating_duration_since(context.received).as_micros();
        InferFuture::refused(Refusal::new(
            Reason::BackendFailed,
            format!("priority {} deadline {deadline} protocol {}", context.priority.0, context.protocol.name()),
        ))
    });
    let server = TestServer::new(models);
    let mut asked = request(&[1.0]);
    asked.model_name = "echo".to_owned();
    asked.parameters = [
        ("priority".to_owned(), parameter(ParameterChoice::Uint64Param(1))),
        ("timeout".to_owned(), parameter(ParameterChoice::Int64Param(1_000_000))),
    ]
    .into_iter()
    .collect();
    let answer = server.ask(INFER, &asked).await;
    answer.refuses(Code::Internal, "priority 1 deadline 1000000 protocol oip_grpc");
    asked.parameters.insert("triton_x".to_owned(), parameter(ParameterChoice::BoolParam(true)));
    server.ask(INFER, &asked).await.refuses(Code::InvalidArgument, "triton_x");
}
