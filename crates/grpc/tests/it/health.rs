//! gRPC's health protocol, by its own messages over a real connection.

use millrace_proto::grpc::health::v1::HealthCheckRequest;
use millrace_proto::grpc::health::v1::health_check_response::ServingStatus;
use millrace_proto::grpc::health::v1::health_client::HealthClient;
use millrace_protocol::front::Roles;
use tonic::Code;

use crate::harness::{Models, TestServer};

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn the_server_and_its_services_are_checked_by_name() {
    let server = TestServer::new(Models::new().unsettled()).roles(Roles::METRICS);
    let mut client = HealthClient::new(server.connect().await);
    for service in ["", "inference.GRPCInferenceService", "tensorflow.serving.PredictionService"] {
        let status = client.check(of(service)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::NotServing, "{service}: the first scan has not settled");
    }
    server.models.settle();
    assert_eq!(client.check(of("")).await.unwrap().into_inner().status(), ServingStatus::Serving);
    assert_eq!(client.check(of("nobody")).await.unwrap_err().code(), Code::NotFound);
    server.readiness.begin_drain();
    assert_eq!(client.check(of("")).await.unwrap().into_inner().status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn a_watcher_hears_of_each_change_until_the_server_ends() {
    let server = TestServer::new(Models::new());
    let mut client = HealthClient::new(server.connect().await);
    let mut watched = client.watch(of("")).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let mut unknown = client.watch(of("nobody")).await.unwrap().into_inner();
    assert_eq!(unknown.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    server.readiness.begin_drain();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    server.readiness.refuse_new();
    assert!(watched.message().await.unwrap().is_none());
    assert!(unknown.message().await.unwrap().is_none());
}
