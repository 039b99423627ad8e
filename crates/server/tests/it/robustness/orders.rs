//! Rows 53 to 57: orders about models, files and memory, from clients that should not give them.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::Path;
use std::thread;

use millrace_proto::inference::model_repository_parameter::ParameterChoice;
use millrace_proto::inference::trace_setting_request::SettingValue as TraceValue;
use millrace_proto::inference::{
    LogSettingsRequest, ModelRepositoryParameter, RepositoryIndexRequest, RepositoryIndexResponse,
    RepositoryModelLoadRequest, RepositoryModelUnloadRequest, SystemSharedMemoryRegisterRequest, TraceSettingRequest,
    log_settings_request,
};
use millrace_proto::org::pytorch::serve::grpc::management::RegisterModelRequest;
use serde_json::json;

use super::{Doors, INFER, MODEL_INFER, good, input, request};
use crate::support::grpc::code;
use crate::support::{Client, Grpc};

const LOAD: &str = "/inference.GRPCInferenceService/RepositoryModelLoad";
const UNLOAD: &str = "/inference.GRPCInferenceService/RepositoryModelUnload";
const INDEX: &str = "/inference.GRPCInferenceService/RepositoryIndex";

fn allowed() -> Doors {
    Doors::with(&[], &["--admin-on-data-plane"])
}

fn load(name: &str) -> RepositoryModelLoadRequest {
    RepositoryModelLoadRequest { model_name: name.into(), ..Default::default() }
}

/// Every file and folder below `root`.
fn files(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(root).expect("the folder is there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            found.extend(files(&path));
        }
        found.insert(path.display().to_string());
    }
    found
}

fn index(doors: &mut Doors) -> String {
    doors.http.post("/v2/repository/index", "").text()
}

#[test]
fn orders_on_the_data_port_are_forbidden_unless_the_operator_allows_them() {
    let mut doors = Doors::open();
    for order in ["load", "unload"] {
        let path = format!("/v2/repository/models/half_plus_two/{order}");
        doors.rest_refuses_with(&path, "", "", &[403], "admin-on-data-plane");
    }
    doors.grpc.ask(LOAD, &load("half_plus_two")).refuses(7, "admin-on-data-plane");
    let unload = RepositoryModelUnloadRequest { model_name: "half_plus_two".into(), ..Default::default() };
    doors.grpc.ask(UNLOAD, &unload).refuses(7, "admin-on-data-plane");
    doors.is_well();
}

#[test]
fn row_53_orders_for_names_that_are_none_change_nothing() {
    let mut doors = allowed();
    let before = index(&mut doors);
    for name in ["nothing", "..", "%2e%2e", "..%2f..%2fetc", "half_plus_two%00", "a%0d%0ab", &"n".repeat(8 << 10)] {
        let path = format!("/v2/repository/models/{name}/load");
        doors.rest_refuses_with(&path, "", "", &[400, 404], "");
        // Unloading what is not there is done already, in Triton's eyes; a name that is none is refused.
        let reply = doors.http.post(&format!("/v2/repository/models/{name}/unload"), "");
        assert!(matches!(reply.status, 200 | 400 | 404), "{name}: {}", reply.text());
    }
    for name in ["nothing", "", "..", "../half_plus_two", "/etc", "a\0b", "a\nb", &"n".repeat(8 << 10)] {
        let ended = doors.grpc.ask(LOAD, &load(name));
        assert!(matches!(ended.code, Some(code::NOT_FOUND | code::INVALID_ARGUMENT)), "{name:?}: {ended:?}");
        assert!(ended.message.len() < 1 << 10);
        let unload = RepositoryModelUnloadRequest { model_name: name.into(), ..Default::default() };
        let ended = doors.grpc.ask(UNLOAD, &unload);
        assert!(matches!(ended.code, Some(code::OK | code::NOT_FOUND | code::INVALID_ARGUMENT)), "{name:?}: {ended:?}");
    }
    let elsewhere = RepositoryModelLoadRequest { repository_name: "other".into(), ..load("half_plus_two") };
    assert_ne!(doors.grpc.ask(LOAD, &elsewhere).code, Some(code::OK));
    assert_eq!(index(&mut doors), before);
    doors.is_well();
}

#[test]
fn row_54_models_and_settings_sent_along_are_not_supported_and_not_written() {
    let mut doors = allowed();
    let before = files(doors.repository.path());
    for parameters in [
        json!({"config": "{\"max_batch_size\": 1}"}),
        json!({"file:1/model.onnx": "b25ueA=="}),
        json!({"file:../escaped": "b25ueA=="}),
        json!({"config": "{}", "file:2/model.onnx": "b25ueA=="}),
    ] {
        let body = json!({"parameters": parameters}).to_string();
        doors.rest_refuses_with("/v2/repository/models/half_plus_two/load", "", body, &[400, 501], "not supported");
    }
    for (name, choice) in [
        ("config", ParameterChoice::StringParam("{}".into())),
        ("file:1/model.onnx", ParameterChoice::BytesParam("onnx".into())),
        ("file:../escaped", ParameterChoice::BytesParam("onnx".into())),
    ] {
        let parameter = ModelRepositoryParameter { parameter_choice: Some(choice) };
        let request =
            RepositoryModelLoadRequest { parameters: [(name.to_owned(), parameter)].into(), ..load("half_plus_two") };
        doors.grpc.ask(LOAD, &request).refuses(code::UNIMPLEMENTED, "");
    }
    assert_eq!(files(doors.repository.path()), before);
    doors.is_well();
}

#[test]
fn row_55_a_models_url_is_never_fetched() {
    let mut doors = allowed();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let target = listener.local_addr().unwrap();
    let admin = doors.process.admin.unwrap();
    let (mut http, grpc) = (Client::connect(admin), Grpc::connect(admin));
    for url in [
        format!("http://{target}/model.mar"),
        format!("https://{target}/model.mar"),
        format!("gopher://{target}/_x"),
        format!("ftp://{target}/x"),
        format!("//{target}/x"),
        "file:///etc/passwd".to_owned(),
        "/etc/passwd".to_owned(),
        "../../etc".to_owned(),
        "s3://bucket/model".to_owned(),
    ] {
        let query: String = url.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let reply = http.post(&format!("/models?url={query}&model_name=fetched"), "");
        assert!(matches!(reply.status, 400 | 404), "{url}: {}", reply.text());
        let request = RegisterModelRequest { url: url.clone(), model_name: "fetched".into(), ..Default::default() };
        let path = "/org.pytorch.serve.grpc.management.ManagementAPIsService/RegisterModel";
        let ended = grpc.ask(path, &request);
        assert!(matches!(ended.code, Some(code::INVALID_ARGUMENT | code::NOT_FOUND)), "{url}: {ended:?}");
    }
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "nobody came");
    assert!(!index(&mut doors).contains("fetched"));
    doors.is_well();
}

#[test]
fn row_56_files_and_shared_memory_are_not_for_clients() {
    let mut doors = allowed();
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("written");
    let target = path.to_str().unwrap();
    for (route, body) in [
        ("/v2/logging", json!({"log_file": target})),
        ("/v2/trace/setting", json!({"trace_file": target})),
        ("/v2/models/half_plus_two/trace/setting", json!({"trace_file": target, "trace_level": ["TIMESTAMPS"]})),
        ("/v2/systemsharedmemory/region/r/register", json!({"key": "/r", "offset": 0, "byte_size": 64})),
        (
            "/v2/cudasharedmemory/region/r/register",
            json!({"raw_handle": {"b64": "AAAA"}, "device_id": 0, "byte_size": 64}),
        ),
    ] {
        doors.rest_refuses_with(route, "", body.to_string(), &[400, 404, 501], "");
    }
    let log_file = log_settings_request::SettingValue {
        parameter_choice: Some(log_settings_request::setting_value::ParameterChoice::StringParam(target.into())),
    };
    let log = LogSettingsRequest { settings: [("log_file".to_owned(), log_file)].into() };
    doors.grpc.ask("/inference.GRPCInferenceService/LogSettings", &log).refuses(code::UNIMPLEMENTED, "");
    let trace_file = TraceValue { value: vec![target.to_owned()] };
    let trace = TraceSettingRequest { settings: [("trace_file".to_owned(), trace_file)].into(), ..Default::default() };
    doors.grpc.ask("/inference.GRPCInferenceService/TraceSetting", &trace).refuses(code::UNIMPLEMENTED, "");
    let region = SystemSharedMemoryRegisterRequest { name: "r".into(), key: "/r".into(), offset: 0, byte_size: 64 };
    doors
        .grpc
        .ask("/inference.GRPCInferenceService/SystemSharedMemoryRegister", &region)
        .refuses(code::UNIMPLEMENTED, "");
    let shared = r#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "parameters": {"shared_memory_region": "r",
        "shared_memory_byte_size": 4}}]}"#;
    doors.rest_refuses_with(INFER, "", shared, &[400, 501], "shared memory");
    assert_eq!(files(folder.path()), BTreeSet::new());
    assert!(!Path::new("/dev/shm/r").exists());
    doors.is_well();
}

#[test]
fn row_57_orders_requests_and_listings_race_by_both_doors_and_the_last_order_wins() {
    let mut doors = allowed();
    let address = doors.process.address;
    thread::scope(|scope| {
        for order in ["load", "unload", "load", "unload"] {
            scope.spawn(move || {
                let mut http = Client::connect(address);
                for _ in 0..10 {
                    let reply = http.post(&format!("/v2/repository/models/identity_fp32/{order}"), "");
                    assert!(
                        matches!(reply.status, 200 | 404 | 409 | 503),
                        "{order}: {} {}",
                        reply.status,
                        reply.text()
                    );
                }
            });
        }
        for path in [LOAD, UNLOAD] {
            scope.spawn(move || {
                let grpc = Grpc::connect(address);
                for _ in 0..10 {
                    let ended = grpc.ask(path, &load("identity_fp32"));
                    let fine = [code::OK, code::NOT_FOUND, code::UNAVAILABLE, code::FAILED_PRECONDITION, 10];
                    assert!(ended.code.is_some_and(|code| fine.contains(&code)), "{path}: {ended:?}");
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(move || {
                let mut http = Client::connect(address);
                let four = input("[1, 4]", "[1, 2, 3, 4]");
                for _ in 0..30 {
                    let reply = http.post("/v2/models/identity_fp32/infer", &four);
                    assert!(matches!(reply.status, 200 | 404 | 503), "{} {}", reply.status, reply.text());
                    assert_eq!(http.post(INFER, input("[1]", "[1]")).status, 200, "the other model is not disturbed");
                }
            });
            scope.spawn(move || {
                let grpc = Grpc::connect(address);
                for _ in 0..30 {
                    assert_eq!(grpc.ask(MODEL_INFER, &request(good())).code, Some(code::OK));
                }
            });
        }
        scope.spawn(move || {
            let mut http = Client::connect(address);
            for _ in 0..30 {
                assert_eq!(http.post("/v2/repository/index", "").status, 200);
            }
        });
        scope.spawn(move || {
            let grpc = Grpc::connect(address);
            for _ in 0..30 {
                let listed: RepositoryIndexResponse = grpc.ask(INDEX, &RepositoryIndexRequest::default()).ok();
                assert!(listed.models.iter().any(|entry| entry.name == "half_plus_two" && entry.state == "READY"));
            }
        });
    });
    assert_eq!(doors.http.post("/v2/repository/models/identity_fp32/unload", "").status, 200);
    assert_ne!(doors.http.get("/v2/models/identity_fp32/ready").status, 200);
    assert_eq!(doors.http.post("/v2/repository/models/identity_fp32/load", "").status, 200);
    assert_eq!(doors.http.get("/v2/models/identity_fp32/ready").status, 200);
    doors.is_well();
}
