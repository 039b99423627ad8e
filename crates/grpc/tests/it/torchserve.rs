//! TorchServe's services through their generated clients.

use std::sync::Arc;

use bytes::Bytes;
use millrace_core::{DType, InferFuture, Reason, Refusal, Slot, VersionState};
use millrace_proto::org::pytorch::serve::grpc::inference::inference_ap_is_service_client::InferenceApIsServiceClient;
use millrace_proto::org::pytorch::serve::grpc::inference::{PredictionResponse, PredictionsRequest};
use millrace_proto::org::pytorch::serve::grpc::management::management_ap_is_service_client::ManagementApIsServiceClient;
use millrace_proto::org::pytorch::serve::grpc::management::{
    DescribeModelRequest, ListModelsRequest, ManagementResponse, RegisterModelRequest, ScaleWorkerRequest,
    SetDefaultRequest, UnregisterModelRequest,
};
use millrace_protocol::front::Roles;
use parking_lot::Mutex;
use prost::Message as _;
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::harness::{Models, TestServer, framed, spec};

pub(crate) const PREDICT: &str = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions";
const MANAGE: &str = "/org.pytorch.serve.grpc.management.ManagementAPIsService";

fn models() -> Models {
    Models::new()
        .affine("affine", 1, 0.5, 2.0)
        .affine("affine", 2, 0.5, 3.0)
        .alias("affine", "stable", 1)
        .identity("two", vec![spec("a", DType::Int32, &[-1]), spec("b", DType::Fp32, &[-1, 2])])
        .identity("image", vec![spec("image", DType::Bytes, &[-1])])
        .refusing("full", Refusal::new(Reason::QueueFull, "the queue is full"))
        .unavailable("loading", VersionState::Loading, Refusal::new(Reason::Loading, "still loading"))
}

fn request(model: &str, parts: &[(&str, &[u8])]) -> PredictionsRequest {
    let part = |(name, bytes): &(&str, &[u8])| ((*name).to_owned(), Bytes::copy_from_slice(bytes));
    PredictionsRequest { model_name: model.to_owned(), input: parts.iter().map(part).collect(), ..Default::default() }
}

fn of_version(version: &str) -> PredictionsRequest {
    PredictionsRequest { model_version: version.to_owned(), ..request("affine", &[("data", b"[1, 2, 5]")]) }
}

#[tokio::test]
async fn a_ping_says_what_the_rest_api_says() {
    let server = TestServer::new(models().unsettled());
    let mut client = InferenceApIsServiceClient::new(server.connect().await);
    assert_eq!(client.ping(()).await.unwrap().into_inner().health, "{\n  \"status\": \"Unhealthy\"\n}\n");
    server.models.settle();
    assert_eq!(client.ping(()).await.unwrap().into_inner().health, "{\n  \"status\": \"Healthy\"\n}\n");
}

#[tokio::test]
async fn predictions_take_json_in_parts_and_give_json() {
    let server = TestServer::new(models());
    let mut client = InferenceApIsServiceClient::new(server.connect().await);
    let sequence = PredictionsRequest { sequence_id: Some("s".to_owned()), ..of_version("") };
    for (request, expected) in [
        (of_version(""), "[3.5,4.0,5.5]"),
        (of_version("1.0"), "[2.5,3.0,4.5]"),
        (of_version("2"), "[3.5,4.0,5.5]"),
        (of_version("stable"), "[2.5,3.0,4.5]"),
        (request("affine", &[("body", b"[1, 2, 5]")]), "[3.5,4.0,5.5]"),
        (request("affine", &[("data", b"{\"instances\": [1, 2, 5]}")]), "[3.5,4.0,5.5]"),
        (request("two", &[("data", b"{\"a\": [1], \"b\": [[1, 2]]}")]), "{\"a_out\":[1],\"b_out\":[[1.0,2.0]]}"),
        (request("two", &[("a", b"[1]"), ("b", b"[[1, 2]]")]), "{\"a_out\":[1],\"b_out\":[[1.0,2.0]]}"),
        (request("image", &[("data", b"not json")]), "[\"not json\"]"),
        (sequence, "[3.5,4.0,5.5]"),
    ] {
        let sequence_id = request.sequence_id.clone();
        let answer = client.predictions(request).await.unwrap().into_inner();
        assert_eq!(answer.prediction, expected);
        assert_eq!((answer.sequence_id, answer.status), (sequence_id, None));
    }
}

#[tokio::test]
async fn what_cannot_be_predicted_is_refused_in_torchserves_words() {
    let server = TestServer::new(models());
    for (request, code, words) in [
        (request("", &[]), Code::InvalidArgument, "Parameter model_name is required."),
        (request("nope", &[]), Code::NotFound, "Model not found: nope"),
        (of_version("9.0"), Code::NotFound, "Model version: 9.0 does not exist for model: affine"),
        (of_version("canary"), Code::NotFound, "Model version: canary does not exist for model: affine"),
        (request("loading", &[("data", b"[1]")]), Code::Unavailable, "has no worker to serve inference request"),
        (request("full", &[("data", b"[1]")]), Code::ResourceExhausted, "the queue is full"),
        (request("affine", &[]), Code::InvalidArgument, "x"),
        (request("affine", &[("data", b"[1,")]), Code::InvalidArgument, "affine"),
        (request("affine", &[("data", b"\xff\xd8\xff")]), Code::InvalidArgument, "affine"),
        (request("affine", &[("data", b"[[1]]")]), Code::InvalidArgument, "expected shape [N], got [1,1]"),
        (request("affine", &[("data", b"[\"a\"]")]), Code::InvalidArgument, "affine"),
        (request("affine", &[("other", b"[1]")]), Code::InvalidArgument, "other"),
        (request("two", &[("a", b"[1]")]), Code::InvalidArgument, "b"),
        (request("affine", &[("data", &b"[".repeat(100_000))]), Code::InvalidArgument, "64"),
    ] {
        server.ask(PREDICT, &request).await.refuses(code, words);
    }
    for message in [&[0xff; 40][..], &[0x0b; 100_000], &[0x1a, 0x7f], &[0x0a, 1, 0xff]] {
        server.send(PREDICT, &[], [framed(message)]).await.refuses(Code::InvalidArgument, "decode");
    }
    let answer: PredictionResponse = server.ask(PREDICT, &of_version("")).await.gives();
    assert_eq!(answer.prediction, "[3.5,4.0,5.5]");
}

#[tokio::test]
async fn long_inputs_are_read_on_a_compute_thread() {
    let server = TestServer::new(models());
    let body = format!("[{}1]", "1,".repeat(100_000));
    let answer: PredictionResponse =
        server.ask(PREDICT, &request("affine", &[("data", body.as_bytes())])).await.gives();
    assert_eq!(answer.prediction, format!("[{}3.5]", "3.5,".repeat(100_000)));
    assert_eq!(server.compute.jobs(), 2);
}

#[tokio::test]
async fn a_stream_of_one_request_has_one_answer() {
    let server = TestServer::new(models());
    let mut client = InferenceApIsServiceClient::new(server.connect().await);
    let answers = client.stream_predictions(of_version("1.0")).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(|answer| answer.unwrap().prediction).collect().await;
    assert_eq!(answers, ["[2.5,3.0,4.5]"]);
    let refused = client.stream_predictions(request("nope", &[])).await;
    assert_eq!(refused.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_stream_of_many_is_answered_in_order_and_outlives_what_fails() {
    let server = TestServer::new(models());
    let mut client = InferenceApIsServiceClient::new(server.connect().await);
    let requests: Vec<_> = (0..100)
        .map(|number: usize| match number {
            50 => request("nope", &[]),
            _ => PredictionsRequest {
                sequence_id: Some("s".to_owned()),
                ..request("affine", &[("data", format!("[{number}]").as_bytes())])
            },
        })
        .collect();
    let answers = client.stream_predictions2(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(Result::unwrap).collect().await;
    assert_eq!(answers.len(), 100);
    for (number, answer) in (0_u8..).zip(answers) {
        if number == 50 {
            let status = answer.status.unwrap();
            assert_eq!((status.code, &*status.message), (5, "Model not found: nope"));
            assert!(answer.prediction.is_empty());
            continue;
        }
        assert_eq!((answer.sequence_id.as_deref(), answer.status), (Some("s"), None));
        let value: f32 = std::str::from_utf8(&answer.prediction).unwrap().trim_matches(['[', ']']).parse().unwrap();
        assert_eq!(value.to_bits(), (f32::from(number) * 0.5 + 3.0).to_bits());
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_call_and_a_stream() {
    let slots: Arc<Mutex<Vec<Slot>>> = Arc::default();
    let waiting = Arc::clone(&slots);
    let models = models().scalar("slow", move |_| {
        let (slot, future) = InferFuture::slot();
        waiting.lock().push(slot);
        future
    });
    let server = TestServer::new(models);
    let message = framed(&request("slow", &[("data", b"[1]")]).encode_to_vec());
    for method in ["", "2"] {
        let path = format!("/org.pytorch.serve.grpc.inference.InferenceAPIsService/StreamPredictions{method}");
        let answer = server.send(&path, &[("grpc-timeout", "200m")], [message.clone()]).await;
        answer.refuses(Code::DeadlineExceeded, "200 ms");
    }
    while !slots.lock().iter().all(Slot::is_cancelled) {
        tokio::task::yield_now().await;
    }
    assert_eq!(slots.lock().len(), 2);
}

#[tokio::test]
async fn models_are_managed_where_orders_are_taken_and_nowhere_else() {
    let data = TestServer::new(models());
    for method in ["DescribeModel", "ListModels", "RegisterModel", "ScaleWorker", "SetDefault", "UnregisterModel"] {
        let answer = data.ask(&format!("{MANAGE}/{method}"), &ListModelsRequest::default()).await;
        answer.refuses(Code::PermissionDenied, "admin port");
    }
    assert!(data.models.orders().is_empty());
    // The orders that clients of other protocols may give on this port are not these.
    let loads = TestServer::new(models()).roles(Roles { repository: true, ..Roles::DATA });
    let answer = loads.ask(&format!("{MANAGE}/ListModels"), &ListModelsRequest::default()).await;
    answer.refuses(Code::PermissionDenied, "admin port");
    let admin = TestServer::new(models()).roles(Roles::ADMIN);
    admin.ask(&format!("{MANAGE}/Train"), &ListModelsRequest::default()).await.refuses(Code::Unimplemented, "Train");
    admin.ask(PREDICT, &of_version("")).await.refuses(Code::Unimplemented, "not served on this port");
}

#[tokio::test]
async fn models_are_listed_and_described() {
    let server = TestServer::new(models()).roles(Roles::ADMIN);
    let mut client = ManagementApIsServiceClient::new(server.connect().await);
    let list = client.list_models(ListModelsRequest { limit: 2, next_page_token: 0 }).await.unwrap().into_inner().msg;
    let expected = "{\n  \"nextPageToken\": \"2\",\n  \"models\": [\n    {\n      \"modelName\": \"affine\",\n";
    assert!(list.starts_with(expected), "{list}");
    let all = client.list_models(ListModelsRequest::default()).await.unwrap().into_inner().msg;
    assert_eq!(all.matches("modelName").count(), 5, "a limit that is not set is no limit of 0: {all}");

    let describe = |version: &str| DescribeModelRequest {
        model_name: "affine".to_owned(),
        model_version: version.to_owned(),
        customized: false,
    };
    for (version, shown) in [("", &["2.0"][..]), ("1.0", &["1.0"]), ("all", &["1.0", "2.0"])] {
        let text = client.describe_model(describe(version)).await.unwrap().into_inner().msg;
        let versions: Vec<_> =
            text.lines().filter_map(|line| line.trim().strip_prefix("\"modelVersion\": \"")).collect();
        assert_eq!(versions, shown.iter().map(|version| format!("{version}\",")).collect::<Vec<_>>(), "{text}");
    }
    let unknown = client.describe_model(describe("9.0")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert_eq!(unknown.message(), "Model version: 9.0 does not exist for model: affine");
    let nobody = client.describe_model(DescribeModelRequest::default()).await.unwrap_err();
    assert_eq!(nobody.code(), Code::NotFound);
}

/// The text of an order's answer.
async fn ordered(server: &TestServer, method: &str, request: &impl prost::Message) -> String {
    server.ask(&format!("{MANAGE}/{method}"), request).await.gives::<ManagementResponse>().msg
}

#[tokio::test]
async fn models_are_registered_scaled_made_the_default_and_unregistered() {
    let server = TestServer::new(models()).roles(Roles::ADMIN);
    let register = RegisterModelRequest {
        url: "new".to_owned(),
        model_name: "mine".to_owned(),
        batch_size: 4,
        max_batch_delay: 50,
        initial_workers: 2,
        synchronous: true,
        ..RegisterModelRequest::default()
    };
    let text = ordered(&server, "RegisterModel", &register).await;
    assert!(text.contains("Model \\\"mine\\\" Version: 1.0 registered with 2 initial workers"), "{text}");
    let bare = RegisterModelRequest { url: "new".to_owned(), ..RegisterModelRequest::default() };
    let text = ordered(&server, "RegisterModel", &bare).await;
    assert!(text.contains("registered with 0 initial workers. Use scale workers API"), "{text}");
    let orders = server.models.orders();
    for words in
        ["path: \"new\"", "mine", "executors: Some(2)", "max_batch_size: Some(4)", "50ms", "keep_default: true"]
    {
        assert!(orders[0].contains(words), "{} has no {words}", orders[0]);
    }
    for words in ["name: None", "executors: Some(0)", "max_batch_size: None", "batch_delay: None"] {
        assert!(orders[1].contains(words), "{} has no {words}", orders[1]);
    }

    let scale = |min_worker, max_worker, synchronous| ScaleWorkerRequest {
        model_name: "affine".to_owned(),
        min_worker,
        max_worker,
        synchronous,
        ..ScaleWorkerRequest::default()
    };
    assert!(
        ordered(&server, "ScaleWorker", &scale(2, 3, true)).await.contains("Workers scaled to 2 for model: affine")
    );
    assert!(ordered(&server, "ScaleWorker", &scale(0, 0, false)).await.contains("Processing worker updates..."));
    let default = SetDefaultRequest { model_name: "affine".to_owned(), model_version: "1.0".to_owned() };
    let text = ordered(&server, "SetDefault", &default).await;
    assert!(text.contains("Default version successfully updated for model \\\"affine\\\" to \\\"1.0\\\""), "{text}");
    let unregister =
        |version: &str| UnregisterModelRequest { model_name: "affine".to_owned(), model_version: version.to_owned() };
    assert!(
        ordered(&server, "UnregisterModel", &unregister("1.0")).await.contains("Model \\\"affine\\\" unregistered")
    );
    let orders = &server.models.orders()[2..];
    assert_eq!(
        orders,
        ["scale affine Some(2) 3", "scale affine Some(2) 1", "alias affine default 1", "unload affine Some(1)"]
    );

    let scale_path = format!("{MANAGE}/ScaleWorker");
    let answer = server.ask(&scale_path, &scale(3, 2, true)).await;
    answer.refuses(Code::InvalidArgument, "max_worker cannot be less than min_worker.");
    server.ask(&scale_path, &scale(-1, 2, true)).await.refuses(Code::InvalidArgument, "min_worker");
    let answer = server.ask(&format!("{MANAGE}/UnregisterModel"), &unregister("")).await;
    answer.refuses(Code::FailedPrecondition, "Cannot remove default version for model affine");
    let answer = server.ask(&format!("{MANAGE}/RegisterModel"), &RegisterModelRequest::default()).await;
    answer.refuses(Code::InvalidArgument, "Parameter url is required.");
    let negative = RegisterModelRequest { batch_size: -1, ..bare };
    server.ask(&format!("{MANAGE}/RegisterModel"), &negative).await.refuses(Code::InvalidArgument, "batch_size");
    assert_eq!(server.models.orders().len(), 6, "nothing that is wrong reaches the registry");
}

#[tokio::test]
async fn rows_53_and_55_what_the_registry_refuses_keeps_its_code() {
    for (reason, code) in [
        (Reason::ModelUnknown, Code::NotFound),
        (Reason::Exists, Code::AlreadyExists),
        (Reason::InvalidInput, Code::InvalidArgument),
    ] {
        let server = TestServer::new(models().refusing_orders(Refusal::new(reason, "because"))).roles(Roles::ADMIN);
        for url in ["gone", "../x", "/etc", "http://127.0.0.1/m.mar", "file:///etc/passwd"] {
            let order = RegisterModelRequest {
                url: url.to_owned(),
                model_name: "m".to_owned(),
                ..RegisterModelRequest::default()
            };
            server.ask(&format!("{MANAGE}/RegisterModel"), &order).await.refuses(code, "");
        }
        assert_eq!(server.models.orders().len(), 5);
    }
}
