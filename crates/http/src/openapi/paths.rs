//! The paths of an OpenAPI document: those that are always there, and those of each model that is loaded.

use millrace_core::{ModelStatus, VersionStatus};
use serde_json::{Map, Value, json};

use super::schema;
use crate::config::HttpConfig;

/// Paths and what each method of them does.
pub(super) type Paths = Map<String, Value>;

/// What an operation is: enough to write it down.
#[derive(Default)]
pub(super) struct Operation<'a> {
    pub(super) tag: &'a str,
    pub(super) summary: String,
    pub(super) request: Option<Value>,
    pub(super) answer: Value,
    /// The name of the schema of errors.
    pub(super) error: &'static str,
    /// The parameters that the path names.
    pub(super) parameters: Vec<Value>,
    /// Whether the request may have no body.
    pub(super) may_be_empty: bool,
    /// Whether the answer is text and no JSON.
    pub(super) is_text: bool,
    /// Whether the request may be a picture, or whatever bytes the model takes, in place of JSON.
    pub(super) takes_raw: bool,
    /// Whether a model answers, so that the request can be told about itself.
    pub(super) infers: bool,
}

impl Operation<'_> {
    fn document(self) -> Value {
        let content = |schema: Value| json!({"application/json": {"schema": schema}});
        let answer =
            if self.is_text { json!({"text/plain": {"schema": {"type": "string"}}}) } else { content(self.answer) };
        let mut document = json!({
            "tags": [self.tag],
            "summary": self.summary,
            "responses": {
                "200": {"description": "the answer", "content": answer},
                "default": {
                    "description": "a refusal",
                    "content": content(json!({"$ref": format!("#/components/schemas/{}", self.error)})),
                },
            },
        });
        if let Some(request) = self.request {
            let mut content = content(request);
            if self.takes_raw {
                for kind in ["application/octet-stream", "image/*"] {
                    content[kind] = json!({"schema": {"type": "string", "format": "binary"}});
                }
            }
            document["requestBody"] = json!({"required": !self.may_be_empty, "content": content});
        }
        let mut parameters = self.parameters;
        if self.infers {
            parameters.push(in_query(
                "explain",
                "1: `X-Millrace-Explain` tells where the time went and why the batch closed",
            ));
        }
        if !parameters.is_empty() {
            document["parameters"] = Value::Array(parameters);
        }
        document
    }
}

pub(super) fn in_path(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
}

pub(super) fn in_query(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "query", "required": false, "description": description, "schema": {"type": "string"}})
}

pub(super) fn add(paths: &mut Paths, path: &str, method: &str, operation: Operation<'_>) {
    let methods = paths.entry(path).or_insert_with(|| json!({}));
    methods[method] = operation.document();
}

/// What every server has.
pub(super) fn common(paths: &mut Paths) {
    let object = || json!({"type": "object"});
    let strings = || json!({"type": "array", "items": {"type": "string"}});
    let get = |tag: &'static str, summary: &str, answer: Value, error, parameters| Operation {
        tag,
        summary: summary.to_owned(),
        request: None,
        answer,
        error,
        parameters,
        ..Operation::default()
    };
    let health = json!({"type": "object", "required": ["status", "timestamp"], "properties": {
        "status": {"type": "string"}, "timestamp": {"type": "number"}}});
    add(paths, "/health", "get", get("general", "Whether the server is well", health, "Detail", vec![]));
    let models = json!({"type": "object", "additionalProperties": strings()});
    add(paths, "/models", "get", get("general", "Models and their versions", models, "Detail", vec![]));
    let version = in_query("version", "by default the default version");
    let operation = get("general", "What a model has done", object(), "Detail", vec![in_path("model_name"), version]);
    add(paths, "/models/{model_name}/metrics", "get", operation);
    let request = json!({"$ref": "#/components/schemas/PredictionRequest"});
    let answer = json!({"$ref": "#/components/schemas/PredictionResponse"});
    let post = |summary: &str, request: Value, answer: Value| Operation {
        tag: "general",
        summary: summary.to_owned(),
        request: Some(request),
        answer,
        error: "Detail",
        ..Operation::default()
    };
    let predict = post("A prediction from rows of numbers", request.clone(), answer.clone());
    add(paths, "/predict", "post", Operation { infers: true, ..predict });
    let list = |items: Value| json!({"type": "array", "items": items});
    add(
        paths,
        "/batch_predict",
        "post",
        post("Several predictions; those that fail are left out", list(request), list(answer)),
    );

    let names = json!({"type": "object", "properties": {"models": strings()}});
    add(paths, "/v1/models", "get", get("tensorflow serving", "The names of the models", names, "Error", vec![]));
    let model = || vec![in_path("model_name")];
    add(
        paths,
        "/v1/models/{model_name}",
        "get",
        get("tensorflow serving", "The state of a model's versions", object(), "Error", model()),
    );
    add(
        paths,
        "/v1/models/{model_name}/metadata",
        "get",
        get("tensorflow serving", "What a model takes and gives", object(), "Error", model()),
    );
    add(paths, "/v2", "get", get("open inference protocol", "What this server is", object(), "Error", vec![]));
    add(
        paths,
        "/v2/health/live",
        "get",
        get("open inference protocol", "Whether the server lives", object(), "Error", vec![]),
    );
    add(
        paths,
        "/v2/health/ready",
        "get",
        get("open inference protocol", "Whether the server is ready", object(), "Error", vec![]),
    );
    add(
        paths,
        "/v2/models/{model_name}",
        "get",
        get("open inference protocol", "What a model takes and gives", object(), "Error", model()),
    );
    add(
        paths,
        "/v2/models/{model_name}/ready",
        "get",
        get("open inference protocol", "Whether a model is ready", object(), "Error", model()),
    );
    add(paths, "/ping", "get", get("torchserve", "Whether the server is well", object(), "TorchServeError", vec![]));
}

/// What is done by a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Get,
    Post,
    Delete,
    /// A POST that a model answers, so that it can be told about itself.
    Infer,
}

/// A path, its verb and what it does.
type Row<'a> = (&'a str, Verb, &'static str);

/// TensorFlow Serving's routes of one version or label.
const TFS: [Row<'_>; 6] = [
    ("/v1/models/{model_name}/versions/{version}", Verb::Get, "The state of a version"),
    ("/v1/models/{model_name}/versions/{version}/metadata", Verb::Get, "What a version takes and gives"),
    ("/v1/models/{model_name}/versions/{version}:predict", Verb::Infer, "A prediction of a version"),
    ("/v1/models/{model_name}/labels/{label}", Verb::Get, "The state of the version with a label"),
    ("/v1/models/{model_name}/labels/{label}/metadata", Verb::Get, "What the version with a label takes and gives"),
    ("/v1/models/{model_name}/labels/{label}:predict", Verb::Infer, "A prediction of the version with a label"),
];

/// The Open Inference Protocol's routes that need no schema of their own.
const OIP: [Row<'_>; 12] = [
    ("/v2/models", Verb::Get, "The models"),
    ("/v2/models/stats", Verb::Get, "What all models have done"),
    ("/v2/models/{model_name}/config", Verb::Get, "The configuration of a model"),
    ("/v2/models/{model_name}/stats", Verb::Get, "What a model has done"),
    ("/v2/models/{model_name}/versions/{version}", Verb::Get, "What a version takes and gives"),
    ("/v2/models/{model_name}/versions/{version}/ready", Verb::Get, "Whether a version is ready"),
    ("/v2/models/{model_name}/versions/{version}/config", Verb::Get, "The configuration of a version"),
    ("/v2/models/{model_name}/versions/{version}/stats", Verb::Get, "What a version has done"),
    ("/v2/models/{model_name}/versions/{version}/infer", Verb::Infer, "A prediction of a version"),
    ("/v2/logging", Verb::Get, "The log settings"),
    ("/v2/trace/setting", Verb::Get, "The trace settings"),
    ("/v2/models/{model_name}/trace/setting", Verb::Get, "The trace settings of a model"),
];

/// Its routes that take a document or nothing.
const OIP_ORDERS: [Row<'_>; 4] = [
    ("/v2/repository/index", Verb::Post, "Every version that is known, or those that are ready"),
    ("/v2/logging", Verb::Post, "Changes log settings; only to what they are"),
    ("/v2/trace/setting", Verb::Post, "Changes trace settings; only to what they are"),
    ("/v2/models/{model_name}/trace/setting", Verb::Post, "Changes trace settings; only to what they are"),
];

const TORCHSERVE: [Row<'_>; 2] = [
    ("/predictions/{model_name}/{model_version}", Verb::Infer, "A prediction of a version"),
    ("/api-description", Verb::Get, "A description of the inference API"),
];

const GENERAL: [Row<'_>; 1] = [("/", Verb::Get, "Whether anybody is there")];

const METRICS: [Row<'_>; 2] =
    [("/metrics", Verb::Get, "Metrics"), ("/monitoring/prometheus/metrics", Verb::Get, "Metrics")];

/// SageMaker's routes, where it is configured.
const SAGEMAKER: [Row<'_>; 6] = [
    ("/invocations", Verb::Infer, "A prediction of the one model, or of the one that the query names"),
    ("/models", Verb::Get, "The models that are loaded"),
    ("/models", Verb::Post, "Loads a model"),
    ("/models/{model_name}", Verb::Get, "Describes a model"),
    ("/models/{model_name}", Verb::Delete, "Unloads a model"),
    ("/models/{model_name}/invoke", Verb::Infer, "A prediction of a model"),
];

/// The routes that one line says enough about. Requests and answers may be anything.
pub(super) fn plain(paths: &mut Paths) {
    rows(paths, ("tensorflow serving", "Error"), &TFS, |_| {});
    rows(paths, ("open inference protocol", "Error"), &OIP, |_| {});
    rows(paths, ("open inference protocol", "Error"), &OIP_ORDERS, |operation| operation.may_be_empty = true);
    rows(paths, ("torchserve", "TorchServeError"), &TORCHSERVE, |_| {});
    rows(paths, ("general", "Detail"), &GENERAL, |_| {});
    rows(paths, ("general", "Detail"), &METRICS, |operation| operation.is_text = true);
}

/// The routes of the platforms that are configured, in place of others of the same path.
pub(super) fn platforms(paths: &mut Paths, config: &HttpConfig) {
    if config.sagemaker.is_some() {
        for (path, ..) in SAGEMAKER {
            paths.remove(path);
        }
        rows(paths, ("sagemaker", "Error"), &SAGEMAKER, |_| {});
    }
    // Where both routes are one path, it is that of health checks.
    if let Some(vertex) = &config.vertex {
        let predict = (&*vertex.predict_route, Verb::Infer, "A prediction of the one model");
        let health = (&*vertex.health_route, Verb::Get, "Whether the server is ready");
        for row in [predict, health] {
            paths.remove(row.0);
            rows(paths, ("vertex ai", "Error"), &[row], |_| {});
        }
    }
}

/// Adds `list` under a tag and with a schema of errors; `change` has the last word on each.
fn rows(paths: &mut Paths, (tag, error): (&str, &'static str), list: &[Row<'_>], change: impl Fn(&mut Operation<'_>)) {
    for (path, verb, summary) in list {
        let named = |name: &&str| path.contains(&format!("{{{name}}}"));
        let parameters = ["model_name", "model_version", "version", "label"].into_iter().filter(named);
        let parameters = parameters.map(|name| {
            let mut parameter = in_path(name);
            if name == "version" {
                parameter["schema"] = json!({"type": "integer", "minimum": 0});
            }
            parameter
        });
        let mut operation = Operation {
            tag,
            summary: (*summary).to_owned(),
            request: matches!(verb, Verb::Post | Verb::Infer).then(|| json!({})),
            answer: json!({}),
            error,
            parameters: parameters.collect(),
            infers: *verb == Verb::Infer,
            ..Operation::default()
        };
        change(&mut operation);
        let method = match verb {
            Verb::Get => "get",
            Verb::Post | Verb::Infer => "post",
            Verb::Delete => "delete",
        };
        add(paths, path, method, operation);
    }
}

/// What a model that is loaded adds: a route in each protocol whose JSON holds what its default version takes and gives.
pub(super) fn model(paths: &mut Paths, model: &ModelStatus) {
    let default = |version: &&VersionStatus| Some(version.version) == model.default_version;
    let signatures = model.versions.iter().find(default).and_then(|version| version.signatures.as_ref());
    let Some(signature) = signatures.and_then(|signatures| signatures.get(0)) else { return };
    let name = &model.name;
    let post = |tag: &'static str, (request, answer): (Value, Value), error| Operation {
        tag,
        summary: format!("A prediction of {name}"),
        request: Some(request),
        answer,
        error,
        infers: true,
        ..Operation::default()
    };
    let mut add = |path: String, operation| add(paths, &path, "post", operation);
    if schema::is_json(signature, true) {
        let infer = schema::infer(signature);
        add(format!("/v2/models/{name}/infer"), post("open inference protocol", infer, "Error"));
    }
    if schema::is_json(signature, false) {
        add(format!("/v1/models/{name}:predict"), post("tensorflow serving", schema::predict(signature), "Error"));
        let plain = post("torchserve", schema::plain(signature), "TorchServeError");
        add(format!("/predictions/{name}"), Operation { takes_raw: schema::takes_raw(signature), ..plain });
        if let Some(rows) = schema::rows(signature) {
            add(format!("/predict/{name}"), post("general", rows, "Detail"));
        }
    }
}

/// The schemas that paths refer to.
pub(super) fn components() -> Value {
    let string = || json!({"type": "string"});
    let nullable = || json!({"type": "string", "nullable": true});
    let rows = || json!({"type": "array", "items": {"type": "array", "items": {"type": "number"}}});
    let request = json!({"type": "object", "required": ["model_name", "input_data"], "properties": {
        "model_name": string(), "model_version": nullable(), "input_data": rows(), "batch_id": nullable(),
    }});
    let required = ["predictions", "model_name", "model_version", "inference_time_ms", "batch_id"];
    json!({"schemas": {
        "Error": {"type": "object", "required": ["error"], "properties": {"error": string()}},
        "TorchServeError": {"type": "object", "required": ["code", "type", "message"], "properties": {
            "code": {"type": "integer"}, "type": string(), "message": string(),
        }},
        "Detail": {"type": "object", "required": ["detail"], "properties": {"detail": {"oneOf": [
            string(), {"type": "array", "items": {"type": "object"}},
        ]}}},
        "PredictionRequest": request,
        "PredictionResponse": {"type": "object", "required": required, "properties": {
            "predictions": rows(), "model_name": string(), "model_version": string(),
            "inference_time_ms": {"type": "number"}, "batch_id": nullable(),
        }},
    }})
}

/// TorchServe's own paths, by the names that its document has them under.
pub(super) fn torchserve(paths: &mut Paths, list: &[(&'static str, &'static str, &'static str)]) {
    for (path, method, summary) in list {
        let parameters = ["model_name", "model_version"]
            .into_iter()
            .filter(|name| path.contains(&format!("{{{name}}}")))
            .map(in_path);
        let operation = Operation {
            tag: "torchserve",
            summary: (*summary).to_owned(),
            answer: json!({}),
            error: "TorchServeError",
            parameters: parameters.collect(),
            ..Operation::default()
        };
        add(paths, path, method, operation);
    }
}
