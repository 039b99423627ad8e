//! TensorFlow Serving's questions about models and its order to reload them, and the calls that want examples.

use millrace_core::{
    Code as CoreCode, DType, ModelStatus, Reason, Refusal, VersionFailure, VersionState, VersionStatus,
};
use millrace_proto::tensorflow::serving::file_system_storage_path_source_config::ServableVersionPolicy;
use millrace_proto::tensorflow::serving::file_system_storage_path_source_config::servable_version_policy::{
    All, Latest, PolicyChoice, Specific,
};
use millrace_proto::tensorflow::serving::model_server_config::Config;
use millrace_proto::tensorflow::serving::model_service_client::ModelServiceClient;
use millrace_proto::tensorflow::serving::model_spec::VersionChoice;
use millrace_proto::tensorflow::serving::prediction_service_client::PredictionServiceClient;
use millrace_proto::tensorflow::serving::{
    ClassificationRequest, GetModelMetadataRequest, GetModelMetadataResponse, GetModelStatusRequest,
    GetModelStatusResponse, InferenceTask, ModelConfig, ModelConfigList, ModelServerConfig, ModelSpec,
    MultiInferenceRequest, RegressionRequest, ReloadConfigRequest, ReloadConfigResponse, SignatureDefMap,
};
use millrace_proto::tensorflow::tensor_info::Encoding;
use millrace_protocol::front::Roles;
use prost::Message as _;
use tonic::Code;

use crate::harness::{Models, TestServer, spec};
use crate::tfs::{models, spec_of};

const METADATA: &str = "/tensorflow.serving.PredictionService/GetModelMetadata";
const CLASSIFY: &str = "/tensorflow.serving.PredictionService/Classify";
const REGRESS: &str = "/tensorflow.serving.PredictionService/Regress";
const MULTI: &str = "/tensorflow.serving.PredictionService/MultiInference";
const STATUS: &str = "/tensorflow.serving.ModelService/GetModelStatus";
const RELOAD: &str = "/tensorflow.serving.ModelService/HandleReloadConfigRequest";

fn version(number: i64) -> Option<VersionChoice> {
    Some(VersionChoice::Version(number))
}

#[tokio::test]
async fn metadata_is_a_map_of_signatures_in_an_any() {
    let server = TestServer::new(models());
    let mut client = PredictionServiceClient::new(server.connect().await);
    let metadata_field = vec!["signature_def".to_owned()];
    let request = GetModelMetadataRequest { model_spec: Some(spec_of("matrix")), metadata_field };
    let answer = client.get_model_metadata(request.clone()).await.unwrap().into_inner();
    let spec = ModelSpec { version_choice: version(1), ..spec_of("matrix") };
    assert_eq!((answer.model_spec, answer.metadata.len()), (Some(spec), 1));
    let any = &answer.metadata["signature_def"];
    assert_eq!(any.type_url, "type.googleapis.com/tensorflow.serving.SignatureDefMap");
    let signature = &SignatureDefMap::decode(&*any.value).unwrap().signature_def["serving_default"];
    assert_eq!(signature.method_name, "tensorflow/serving/predict");
    let sizes = |info: &millrace_proto::tensorflow::TensorInfo| {
        info.tensor_shape.as_ref().unwrap().dim.iter().map(|dim| dim.size).collect::<Vec<_>>()
    };
    let (input, output) = (&signature.inputs["m"], &signature.outputs["m_out"]);
    assert_eq!((input.dtype, sizes(input)), (1, vec![2, 4]));
    assert_eq!((output.dtype, &output.encoding), (1, &Some(Encoding::Name("m_out".to_owned()))));

    let open = GetModelMetadataRequest { model_spec: Some(spec_of("half_plus_two")), ..request.clone() };
    let answer: GetModelMetadataResponse = server.ask(METADATA, &open).await.gives();
    assert_eq!(answer.model_spec.unwrap().version_choice, version(2));
    let map = SignatureDefMap::decode(&*answer.metadata["signature_def"].value).unwrap();
    assert_eq!(sizes(&map.signature_def["serving_default"].inputs["x"]), [-1]);

    for (request, code, words) in [
        (GetModelMetadataRequest { model_spec: None, ..request.clone() }, Code::InvalidArgument, "Missing ModelSpec"),
        (
            GetModelMetadataRequest { metadata_field: Vec::new(), ..request.clone() },
            Code::InvalidArgument,
            "GetModelMetadataRequest must specify at least one metadata_field",
        ),
        (
            GetModelMetadataRequest { metadata_field: vec!["graph".to_owned()], ..request.clone() },
            Code::InvalidArgument,
            "Metadata field graph is not supported",
        ),
        (
            GetModelMetadataRequest { model_spec: Some(spec_of("nope")), ..request },
            Code::NotFound,
            "Servable not found for request: Latest(nope)",
        ),
    ] {
        server.ask(METADATA, &request).await.refuses(code, words);
    }
}

/// A catalog of one model whose first version failed.
fn with_a_failure() -> Models {
    let mut status = ModelStatus::new("m".parse().unwrap());
    let message = "node `Conv_3`: no such operator".to_owned();
    status.versions = vec![
        VersionStatus {
            failure: Some(VersionFailure { code: CoreCode::InvalidArgument, message }),
            ..VersionStatus::new(1, VersionState::End)
        },
        VersionStatus::new(2, VersionState::Available),
        VersionStatus::new(3, VersionState::Loading),
    ];
    models().status(status)
}

#[tokio::test]
async fn the_status_shows_every_version_or_the_one_that_is_named() {
    let server = TestServer::new(with_a_failure());
    let mut client = ModelServiceClient::new(server.connect().await);
    let ask = |choice| GetModelStatusRequest { model_spec: Some(ModelSpec { version_choice: choice, ..spec_of("m") }) };
    let shown = |answer: GetModelStatusResponse| {
        let row = |row: millrace_proto::tensorflow::serving::ModelVersionStatus| {
            let status = row.status.unwrap();
            (row.version, row.state, status.error_code, status.error_message)
        };
        answer.model_version_status.into_iter().map(row).collect::<Vec<_>>()
    };
    let failed = (1, 50, 3, "node `Conv_3`: no such operator".to_owned());
    let (good, loading) = ((2, 30, 0, String::new()), (3, 20, 0, String::new()));
    let all = [failed.clone(), good.clone(), loading];
    for (choice, expected) in [
        (None, &all[..]),
        (version(1), &[failed]),
        (version(2), &[good]),
        (version(0), &all),
        (Some(VersionChoice::VersionLabel("any".to_owned())), &all),
    ] {
        assert_eq!(shown(client.get_model_status(ask(choice)).await.unwrap().into_inner()), expected);
    }
    let nobody = GetModelStatusRequest { model_spec: None };
    server.ask(STATUS, &nobody).await.refuses(Code::InvalidArgument, "Missing ModelSpec");
    server.ask(STATUS, &ask(version(7))).await.refuses(Code::NotFound, "Could not find version 7 of model m");
    let unknown = GetModelStatusRequest { model_spec: Some(spec_of("nope")) };
    server.ask(STATUS, &unknown).await.refuses(Code::NotFound, "Could not find any versions of model nope");
}

#[tokio::test]
async fn examples_are_refused_once_all_else_is_right() {
    let takes_inputs = models().identity("inputs", vec![spec("inputs", DType::Bytes, &[-1])]);
    let server = TestServer::new(takes_inputs);
    let classify = |name: &str| ClassificationRequest { model_spec: Some(spec_of(name)), ..Default::default() };
    let regress = |name: &str| RegressionRequest { model_spec: Some(spec_of(name)), ..Default::default() };
    for (name, code, words) in [
        ("half_plus_two", Code::InvalidArgument, "inputs found in SignatureDef"),
        ("sums", Code::InvalidArgument, "Expected one input Tensor."),
        ("inputs", Code::InvalidArgument, "takes tensors and not examples"),
        ("nope", Code::NotFound, "Servable not found for request: Latest(nope)"),
        ("loading", Code::NotFound, "Latest(loading)"),
        ("", Code::InvalidArgument, "ModelSpec has no name specified."),
    ] {
        server.ask(CLASSIFY, &classify(name)).await.refuses(code, words);
        server.ask(REGRESS, &regress(name)).await.refuses(code, words);
    }
    server.ask(CLASSIFY, &classify("half_plus_two")).await.refuses(Code::InvalidArgument, "classification");
    server.ask(REGRESS, &regress("half_plus_two")).await.refuses(Code::InvalidArgument, "regression");
    let nobody = ClassificationRequest::default();
    server.ask(CLASSIFY, &nobody).await.refuses(Code::InvalidArgument, "Missing ModelSpec");
    let mut other = classify("half_plus_two");
    other.model_spec.as_mut().unwrap().signature_name = "S".to_owned();
    server.ask(CLASSIFY, &other).await.refuses(Code::InvalidArgument, "No signature was found with the name: S");
}

#[tokio::test]
async fn several_inferences_at_once_are_checked_task_by_task() {
    let server = TestServer::new(models());
    let task = |name: &str, signature: &str, method: &str| InferenceTask {
        model_spec: Some(ModelSpec { signature_name: signature.to_owned(), ..spec_of(name) }),
        method_name: format!("tensorflow/serving/{method}"),
    };
    let model = "half_plus_two";
    for (tasks, code, words) in [
        (vec![], Code::InvalidArgument, "at least one task"),
        (vec![InferenceTask::default()], Code::InvalidArgument, "Missing ModelSpec"),
        (vec![task("nope", "", "classify")], Code::NotFound, "Latest(nope)"),
        (vec![task(model, "", "classify"), task("sums", "x", "regress")], Code::InvalidArgument, "same model name"),
        (
            vec![task(model, "", "classify"), task(model, "serving_default", "regress")],
            Code::InvalidArgument,
            "Duplicate evaluation of signature: serving_default",
        ),
        (vec![task(model, "S", "classify")], Code::InvalidArgument, "No signature was found with the name: S"),
        (
            vec![task(model, "", "predict")],
            Code::Unimplemented,
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        (vec![task(model, "", "regress")], Code::InvalidArgument, "inputs found in SignatureDef"),
    ] {
        let request = MultiInferenceRequest { tasks, input: None };
        server.ask(MULTI, &request).await.refuses(code, words);
    }
}

fn config(name: &str, choice: Option<PolicyChoice>) -> ModelConfig {
    ModelConfig {
        name: name.to_owned(),
        base_path: format!("/models/{name}"),
        model_platform: "tensorflow".to_owned(),
        model_version_policy: choice.map(|choice| ServableVersionPolicy { policy_choice: Some(choice) }),
        ..ModelConfig::default()
    }
}

fn reload(config: Vec<ModelConfig>) -> ReloadConfigRequest {
    let config = Some(Config::ModelConfigList(ModelConfigList { config }));
    ReloadConfigRequest { config: Some(ModelServerConfig { config }), metric_names: Vec::new() }
}

#[tokio::test]
async fn a_new_configuration_replaces_what_is_wanted_where_orders_are_taken() {
    let data = TestServer::new(models());
    let answer = data.ask(RELOAD, &reload(vec![config("m", None)])).await;
    answer.refuses(Code::PermissionDenied, "--admin-on-data-plane");
    assert!(data.models.orders().is_empty());

    let server = TestServer::new(models()).roles(Roles::ADMIN);
    let mut client = ModelServiceClient::new(server.connect().await);
    let labelled = ModelConfig {
        version_labels: [("stable".to_owned(), 42)].into(),
        ..config("a", Some(PolicyChoice::Specific(Specific { versions: vec![43, 42] })))
    };
    let list = vec![
        labelled,
        config("b", Some(PolicyChoice::Latest(Latest { num_versions: 2 }))),
        config("c", Some(PolicyChoice::All(All {}))),
        config("d", None),
    ];
    let answer = client.handle_reload_config_request(reload(list)).await.unwrap().into_inner();
    let status = answer.status.unwrap();
    assert_eq!((status.error_code, &*status.error_message), (0, ""));
    let [order] = &server.models.orders()[..] else { panic!("one order") };
    for words in [
        "Specific([42, 43])",
        "stable",
        "base_path: \"/models/b\", versions: Latest(2)",
        "base_path: \"/models/c\", versions: All",
        "base_path: \"/models/d\", versions: Latest(1)",
    ] {
        assert!(order.contains(words), "{order} has no {words}");
    }
    let nothing: ReloadConfigResponse = server.ask(RELOAD, &reload(Vec::new())).await.gives();
    assert_eq!((nothing.status.unwrap().error_code, server.models.orders().len()), (0, 2));
}

#[tokio::test]
async fn a_configuration_that_is_wrong_reaches_nobody() {
    let server = TestServer::new(models()).roles(Roles::ADMIN);
    let relative = ModelConfig { base_path: "models/m".to_owned(), ..config("m", None) };
    let no_platform = ModelConfig { model_platform: String::new(), ..config("m", None) };
    let named = |name: &str| ModelConfig { name: name.to_owned(), ..config("m", None) };
    let negative = config("m", Some(PolicyChoice::Specific(Specific { versions: vec![-1] })));
    for (config, words) in [
        (vec![config("m", None), config("m", None)], "Illegal to list model m multiple times in config list"),
        (vec![config("a", None), relative], "base_path"),
        (vec![no_platform], "model_platform"),
        (vec![named("../x")], "name"),
        (vec![named("")], "name"),
        (vec![negative], "-1"),
    ] {
        server.ask(RELOAD, &reload(config)).await.refuses(Code::InvalidArgument, words);
    }
    for config in [None, Some(ModelServerConfig { config: None })] {
        let request = ReloadConfigRequest { config, metric_names: Vec::new() };
        server.ask(RELOAD, &request).await.refuses(Code::InvalidArgument, "model_config_list");
    }
    let custom = Some(Config::CustomModelConfig(prost_types::Any::default()));
    let custom = ReloadConfigRequest { config: Some(ModelServerConfig { config: custom }), metric_names: Vec::new() };
    server.ask(RELOAD, &custom).await.refuses(Code::InvalidArgument, "model_config_list");
    assert!(server.models.orders().is_empty());
}

#[tokio::test]
async fn what_the_registry_refuses_is_the_calls_status() {
    let words = "Request to assign label to version 7 of model m, which is not currently available for inference";
    let models = models().refusing_orders(Refusal::new(Reason::Conflict, words));
    let server = TestServer::new(models).roles(Roles::ADMIN);
    server.ask(RELOAD, &reload(vec![config("m", None)])).await.refuses(Code::FailedPrecondition, words);
}

#[tokio::test]
async fn what_is_no_method_here_is_unimplemented() {
    let server = TestServer::new(models());
    for path in ["/tensorflow.serving.PredictionService/Train", "/tensorflow.serving.ModelService/Predict"] {
        server.ask(path, &GetModelStatusRequest::default()).await.refuses(Code::Unimplemented, path);
    }
    let admin = TestServer::new(models()).roles(Roles::ADMIN);
    for path in [crate::tfs::PREDICT, CLASSIFY, REGRESS, MULTI, METADATA, STATUS] {
        admin.ask(path, &crate::tfs::good()).await.refuses(Code::Unimplemented, "not served on this port");
    }
}
