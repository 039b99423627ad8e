//! Reflection through the generated clients of both its names.

use millrace_proto::grpc::reflection::v1::ServerReflectionRequest;
use millrace_proto::grpc::reflection::v1::server_reflection_client::ServerReflectionClient;
use millrace_proto::grpc::reflection::v1::server_reflection_request::MessageRequest;
use millrace_proto::grpc::reflection::v1::server_reflection_response::MessageResponse;
use millrace_proto::grpc::reflection::v1alpha;
use prost::Message;
use prost_types::FileDescriptorProto;

use crate::harness::{Models, TestServer};

#[tokio::test]
async fn a_client_that_knows_nothing_finds_a_method_and_its_messages() {
    let server = TestServer::new(Models::new());
    let mut client = ServerReflectionClient::new(server.connect().await);
    let ask = |request| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let questions = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("inference.GRPCInferenceService".to_owned())),
    ];
    let mut answers = client.server_reflection_info(tokio_stream::iter(questions)).await.unwrap().into_inner();
    let mut next = async || answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(services) = next().await else { panic!("no list") };
    assert!(services.service.iter().any(|service| service.name == "inference.GRPCInferenceService"));
    let MessageResponse::FileDescriptorResponse(files) = next().await else { panic!("no file") };
    let file = FileDescriptorProto::decode(files.file_descriptor_proto[0].clone()).unwrap();
    assert_eq!((file.name(), file.package()), ("grpc_service.proto", "inference"));
}

#[tokio::test]
async fn the_older_name_gives_the_same() {
    use v1alpha::server_reflection_client::ServerReflectionClient;
    use v1alpha::server_reflection_request::MessageRequest;
    use v1alpha::server_reflection_response::MessageResponse;
    let server = TestServer::new(Models::new());
    let mut client = ServerReflectionClient::new(server.connect().await);
    let request = MessageRequest::FileByFilename("nothing.proto".to_owned());
    let question = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let mut answers = client.server_reflection_info(tokio_stream::once(question)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    assert!(matches!(answer, MessageResponse::ErrorResponse(error) if error.error_code == 5));
    assert!(answers.message().await.unwrap().is_none());
}
