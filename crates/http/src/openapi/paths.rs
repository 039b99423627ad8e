//! The paths of an OpenAPI document: those that are always there, and those of each model that is loaded.

use millrace_core::{ModelStatus, VersionStatus};
use serde_json::{Map, Value, json};

use super::schema;

/// Paths and what each method of them does.
pub(super) type Paths = Map<String, Value>;

/// What an operation is: enough to write it down.
struct Operation<'a> {
    tag: &'a str,
    summary: String,
    request: Option<Value>,
    answer: Value,
    /// The name of the schema of errors.
    error: &'static str,
    /// The parameters that the path names.
    parameters: Vec<Value>,
}

impl Operation<'_> {
    fn document(self) -> Value {
        let content = |schema: Value| json!({"application/json": {"schema": schema}});
        let mut document = json!({
            "tags": [self.tag],
            "summary": self.summary,
            "responses": {
                "200": {"description": "the answer", "content": content(self.answer)},
                "default": {
                    "description": "a refusal",
                    "content": content(json!({"$ref": format!("#/components/schemas/{}", self.error)})),
                },
            },
        });
        if let Some(request) = self.request {
            document["requestBody"] = json!({"required": true, "content": content(request)});
        }
        if !self.parameters.is_empty() {
            document["parameters"] = Value::Array(self.parameters);
        }
        document
    }
}

fn in_path(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
}

fn in_query(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "query", "required": false, "description": description, "schema": {"type": "string"}})
}

fn add(paths: &mut Paths, path: &str, method: &str, operation: Operation<'_>) {
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
        parameters: vec![],
    };
    add(paths, "/predict", "post", post("A prediction from rows of numbers", request.clone(), answer.clone()));
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
        parameters: vec![],
    };
    let mut add = |path: String, operation| add(paths, &path, "post", operation);
    if schema::is_json(signature, true) {
        let infer = schema::infer(signature);
        add(format!("/v2/models/{name}/infer"), post("open inference protocol", infer, "Error"));
    }
    if schema::is_json(signature, false) {
        add(format!("/v1/models/{name}:predict"), post("tensorflow serving", schema::predict(signature), "Error"));
        add(format!("/predictions/{name}"), post("torchserve", schema::plain(signature), "TorchServeError"));
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
            request: None,
            answer: json!({}),
            error: "TorchServeError",
            parameters: parameters.collect(),
        };
        add(paths, path, method, operation);
    }
}
