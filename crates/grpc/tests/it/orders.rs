//! Orders, settings and shared memory: what may be asked where, and what may be asked nowhere.

use millrace_core::{Reason, Refusal};
use millrace_proto::inference::{
    CudaSharedMemoryRegisterRequest, CudaSharedMemoryStatusRequest, LogSettingsRequest, ModelRepositoryParameter,
    RepositoryIndexRequest, RepositoryModelLoadRequest, RepositoryModelLoadResponse, RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse, ServerLiveRequest, ServerLiveResponse, SystemSharedMemoryRegisterRequest,
    SystemSharedMemoryStatusRequest, TraceSettingRequest,
    grpc_inference_service_client::GrpcInferenceServiceClient as Client, log_settings_request, log_settings_response,
    model_repository_parameter, trace_setting_request,
};
use millrace_protocol::front::Roles;
use tonic::Code;

use crate::harness::TestServer;
use crate::oip::models;

const LOAD: &str = "/inference.GRPCInferenceService/RepositoryModelLoad";
const UNLOAD: &str = "/inference.GRPCInferenceService/RepositoryModelUnload";

fn load(name: &str) -> RepositoryModelLoadRequest {
    RepositoryModelLoadRequest { model_name: name.to_owned(), ..Default::default() }
}

fn unload(name: &str) -> RepositoryModelUnloadRequest {
    RepositoryModelUnloadRequest { model_name: name.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn orders_are_taken_only_where_the_listener_says_so() {
    let data = TestServer::new(models());
    data.ask(LOAD, &load("m")).await.refuses(Code::PermissionDenied, "--admin-on-data-plane");
    data.ask(UNLOAD, &unload("m")).await.refuses(Code::PermissionDenied, "--admin-on-data-plane");
    assert!(data.models.orders().is_empty());
    let admin = TestServer::new(models()).roles(Roles::ADMIN);
    let _loaded: RepositoryModelLoadResponse = admin.ask(LOAD, &load("m")).await.gives();
    let _unloaded: RepositoryModelUnloadResponse = admin.ask(UNLOAD, &unload("m")).await.gives();
    assert_eq!(admin.models.orders(), ["load m None", "unload m None"]);
    let answer = admin.ask(crate::oip::INFER, &crate::oip::request(&[1.0])).await;
    answer.refuses(Code::Unimplemented, "not served on this port");
    let metrics = TestServer::new(models()).roles(Roles::METRICS);
    let index =
        metrics.ask("/inference.GRPCInferenceService/RepositoryIndex", &RepositoryIndexRequest::default()).await;
    index.refuses(Code::Unimplemented, "not served on this port");
    let live = metrics.ask("/inference.GRPCInferenceService/ServerLive", &ServerLiveRequest {}).await;
    assert!(live.gives::<ServerLiveResponse>().live);
}

#[tokio::test]
async fn row_53_unknown_and_traversing_names() {
    let models = models().refusing_orders(Refusal::new(Reason::ModelUnknown, "model `m` is unknown"));
    let server = TestServer::new(models).roles(Roles::ADMIN);
    server.ask(LOAD, &load("m")).await.refuses(Code::NotFound, "m");
    let _unknown_is_unloaded: RepositoryModelUnloadResponse = server.ask(UNLOAD, &unload("m")).await.gives();
    assert_eq!(server.models.orders().len(), 2);
    for name in ["..", "../etc/passwd", "a/b", "", "a\0b", ".hidden"] {
        server.ask(LOAD, &load(name)).await.refuses(Code::InvalidArgument, "");
        server.ask(UNLOAD, &unload(name)).await.refuses(Code::InvalidArgument, "");
    }
    assert_eq!(server.models.orders().len(), 2, "no such name reaches the registry");
}

#[tokio::test]
async fn row_54_nothing_takes_the_place_of_the_repositorys_files() {
    let server = TestServer::new(models()).roles(Roles::ADMIN);
    for name in ["config", "file:1/model.onnx", "file:../../x"] {
        let value = model_repository_parameter::ParameterChoice::BytesParam(b"x"[..].into());
        let value = ModelRepositoryParameter { parameter_choice: Some(value) };
        let request = RepositoryModelLoadRequest { parameters: [(name.to_owned(), value)].into(), ..load("m") };
        server.ask(LOAD, &request).await.refuses(Code::Unimplemented, "not supported");
    }
    let elsewhere = RepositoryModelLoadRequest { repository_name: "http://x/".to_owned(), ..load("m") };
    server.ask(LOAD, &elsewhere).await.refuses(Code::Unimplemented, "repository");
    assert!(server.models.orders().is_empty());
}

#[tokio::test]
async fn row_56_no_file_is_named_and_no_memory_mapped() {
    let server = TestServer::new(models());
    let mut client = Client::new(server.connect().await);
    let system =
        SystemSharedMemoryRegisterRequest { name: "r".to_owned(), key: "/k".to_owned(), offset: 0, byte_size: 8 };
    assert_eq!(client.system_shared_memory_register(system).await.unwrap_err().code(), Code::Unimplemented);
    let cuda = CudaSharedMemoryRegisterRequest { name: "r".to_owned(), ..Default::default() };
    assert_eq!(client.cuda_shared_memory_register(cuda).await.unwrap_err().code(), Code::Unimplemented);
    let status = client.system_shared_memory_status(SystemSharedMemoryStatusRequest::default()).await.unwrap();
    assert!(status.into_inner().regions.is_empty());
    let status = client.cuda_shared_memory_status(CudaSharedMemoryStatusRequest::default()).await.unwrap();
    assert!(status.into_inner().regions.is_empty());

    let trace = client.trace_setting(TraceSettingRequest::default()).await.unwrap().into_inner();
    assert_eq!(trace.settings["trace_level"].value, ["OFF"]);
    let file = trace_setting_request::SettingValue { value: vec!["/tmp/x".to_owned()] };
    let settings = [("trace_file".to_owned(), file)].into();
    let change = client.trace_setting(TraceSettingRequest { settings, model_name: String::new() }).await;
    assert_eq!(change.unwrap_err().code(), Code::Unimplemented);

    let log = client.log_settings(LogSettingsRequest::default()).await.unwrap().into_inner();
    let level = &log.settings["log_verbose_level"].parameter_choice;
    assert!(matches!(level, Some(log_settings_response::setting_value::ParameterChoice::Uint32Param(_))));
    let file = log_settings_request::setting_value::ParameterChoice::StringParam("/tmp/x".to_owned());
    let file = log_settings_request::SettingValue { parameter_choice: Some(file) };
    let settings = [("log_file".to_owned(), file)].into();
    let change = client.log_settings(LogSettingsRequest { settings }).await;
    assert_eq!(change.unwrap_err().code(), Code::Unimplemented);
}
