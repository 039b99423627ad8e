//! The routes of text models in an OpenAPI document: for all together, and for each that is loaded.

use millrace_core::RequestContext;
use millrace_protocol::front::now;
use serde_json::{Value, json};

use super::paths::{Operation, Paths, add, in_path, in_query};
use crate::service::Shared;
use crate::text::{Chosen, Need, known};

const TAG: &str = "text";

/// A route: its path without a model, the models that it is for, what it does, and the names of its schemas.
type Row = (&'static str, Need, &'static str, &'static str, &'static str);

const ROUTES: [Row; 7] = [
    ("/embed", Need::Embedding, "A vector for each text", "TextEmbedRequest", "TextVectors"),
    ("/embed_all", Need::Embedding, "A vector for each token of each text", "TextInputsRequest", "TextTokenVectors"),
    ("/similarity", Need::Embedding, "How similar sentences are to one", "TextSimilarityRequest", "TextNumbers"),
    ("/rerank", Need::Ranking, "Texts by how well they answer a query", "TextRerankRequest", "TextRanks"),
    ("/predict", Need::Labels, "The labels of texts and their scores", "TextPredictRequest", "TextLabels"),
    ("/tokenize", Need::Any, "The tokens of texts", "TextTokenizeRequest", "TextTokens"),
    ("/decode", Need::Any, "The texts of token ids", "TextDecodeRequest", "TextStrings"),
];

/// Adds the routes, where a text model can serve; gives whether there are any.
pub(super) fn add_routes(paths: &mut Paths, shared: &Shared) -> bool {
    let models = known(shared, &RequestContext::new(now()));
    if models.is_empty() {
        return false;
    }
    for (path, need, summary, request, answer) in ROUTES {
        if models.iter().any(|model| meets(model, need)) {
            let mut operation = post(summary.to_owned(), reference(request), reference(answer));
            operation.parameters = vec![named()];
            operation.infers = need != Need::Any;
            if path == "/predict" {
                // The general endpoint has it too, and tells the two apart by their keys.
                let either = |ours: &str, theirs: &str| json!({"oneOf": [reference(theirs), reference(ours)]});
                operation.request = Some(either(request, "PredictionRequest"));
                operation.answer = either(answer, "PredictionResponse");
            }
            add(paths, path, "post", operation);
        }
    }
    if models.iter().any(|model| meets(model, Need::Embedding)) {
        let summary = "Vectors in OpenAI's form";
        for path in ["/v1/embeddings", "/embeddings"] {
            let (request, answer) = (reference("OpenAiEmbeddingsRequest"), reference("OpenAiEmbeddings"));
            let operation = post(summary.to_owned(), request, answer);
            add(
                paths,
                path,
                "post",
                Operation { error: "OpenAiError", parameters: vec![named()], infers: true, ..operation },
            );
        }
    }
    add(paths, "/info", "get", Operation { parameters: vec![named()], ..info("What is known of a text model") });
    add(
        paths,
        "/info/{model_name}",
        "get",
        Operation { parameters: vec![in_path("model_name")], ..info("What is known of one text model") },
    );
    for model in &models {
        let name = model.servable.model();
        for (path, need, summary, request, answer) in ROUTES {
            if meets(model, need) {
                let mut operation = post(format!("{summary}, by {name}"), reference(request), reference(answer));
                operation.infers = need != Need::Any;
                add(paths, &format!("{path}/{name}"), "post", operation);
            }
        }
    }
    true
}

fn meets(model: &Chosen, need: Need) -> bool {
    need.is_met_by(model.text.facts().task)
}

fn named() -> Value {
    in_query("model", "which model, as `name`, `name:version` or `name@alias`; needed where several fit")
}

fn post(summary: String, request: Value, answer: Value) -> Operation<'static> {
    Operation { tag: TAG, summary, request: Some(request), answer, error: "TextError", ..Operation::default() }
}

fn info(summary: &str) -> Operation<'static> {
    let answer = reference("TextInfo");
    Operation { tag: TAG, summary: summary.to_owned(), answer, error: "TextError", ..Operation::default() }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// The schemas that these routes refer to, put beside the others.
pub(super) fn add_schemas(components: &mut Value) {
    let string = || json!({"type": "string"});
    let number = || json!({"type": "number", "format": "float"});
    let whole = || json!({"type": "integer", "minimum": 0});
    let list = |items: Value| json!({"type": "array", "items": items});
    let optional = |kind: &str| json!({"type": kind, "nullable": true});
    let ids = || list(whole());
    let texts = || json!({"oneOf": [string(), list(json!({"oneOf": [string(), ids()]})), ids()]});
    let direction = || json!({"enum": ["left", "right", "Left", "Right"]});
    let object = |required: &[&str], properties: &[(&str, Value)]| {
        let properties: serde_json::Map<_, _> =
            properties.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        json!({"type": "object", "required": required, "properties": properties})
    };
    // Keys that several requests have: which model, and what becomes of long texts.
    let request = |required: &[&str], own: &[(&str, Value)]| {
        let common =
            [("model", optional("string")), ("truncate", optional("boolean")), ("truncation_direction", direction())];
        object(required, &[own, &common].concat())
    };
    let prompt = || ("prompt_name", optional("string"));
    let flag = |name: &'static str| (name, optional("boolean"));
    let pairs = || {
        let row = json!({"type": "array", "items": string(), "minItems": 1, "maxItems": 2});
        json!({"oneOf": [string(), row.clone(), list(row)]})
    };
    let options = object(&[], &[("truncate", optional("boolean")), ("truncation_direction", direction()), prompt()]);
    let sentences =
        object(&["source_sentence", "sentences"], &[("source_sentence", string()), ("sentences", list(string()))]);
    let label = object(&["score", "label"], &[("score", number()), ("label", string())]);
    let token = object(
        &["id", "text", "special", "start", "stop"],
        &[
            ("id", whole()),
            ("text", string()),
            ("special", json!({"type": "boolean"})),
            ("start", optional("integer")),
            ("stop", optional("integer")),
        ],
    );
    let kinds = ["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"];
    let openai_error = object(
        &["message", "type", "param", "code"],
        &[("message", string()), ("type", string()), ("param", optional("string")), ("code", optional("string"))],
    );
    let entry = object(
        &["object", "embedding", "index"],
        &[("object", string()), ("embedding", json!({"oneOf": [list(number()), string()]})), ("index", whole())],
    );
    let usage = object(&["prompt_tokens", "total_tokens"], &[("prompt_tokens", whole()), ("total_tokens", whole())]);
    let schemas = [
        ("TextError", object(&["error", "error_type"], &[("error", string()), ("error_type", json!({"enum": kinds}))])),
        ("OpenAiError", object(&["error"], &[("error", openai_error)])),
        (
            "OpenAiEmbeddingsRequest",
            object(
                &["input"],
                &[
                    ("input", texts()),
                    ("model", optional("string")),
                    ("encoding_format", json!({"enum": ["float", "base64"]})),
                    ("dimensions", optional("integer")),
                    ("user", optional("string")),
                ],
            ),
        ),
        (
            "OpenAiEmbeddings",
            object(
                &["object", "data", "model", "usage"],
                &[("object", string()), ("data", list(entry)), ("model", string()), ("usage", usage)],
            ),
        ),
        (
            "TextEmbedRequest",
            request(
                &["inputs"],
                &[("inputs", texts()), flag("normalize"), ("dimensions", optional("integer")), prompt()],
            ),
        ),
        ("TextInputsRequest", request(&["inputs"], &[("inputs", texts()), prompt()])),
        (
            "TextSimilarityRequest",
            object(&["inputs"], &[("inputs", sentences), ("parameters", options), ("model", optional("string"))]),
        ),
        (
            "TextRerankRequest",
            request(
                &["query", "texts"],
                &[("query", string()), ("texts", list(string())), flag("raw_scores"), flag("return_text")],
            ),
        ),
        ("TextPredictRequest", request(&["inputs"], &[("inputs", pairs()), flag("raw_scores")])),
        (
            "TextTokenizeRequest",
            object(
                &["inputs"],
                &[
                    ("inputs", json!({"oneOf": [string(), list(string())]})),
                    ("model", optional("string")),
                    flag("add_special_tokens"),
                    prompt(),
                ],
            ),
        ),
        (
            "TextDecodeRequest",
            object(
                &["ids"],
                &[
                    ("ids", json!({"oneOf": [ids(), list(ids())]})),
                    ("model", optional("string")),
                    flag("skip_special_tokens"),
                ],
            ),
        ),
        ("TextNumbers", list(number())),
        ("TextVectors", list(list(number()))),
        ("TextTokenVectors", list(list(list(number())))),
        (
            "TextRanks",
            list(object(&["index", "score"], &[("index", whole()), ("text", string()), ("score", number())])),
        ),
        ("TextLabels", json!({"oneOf": [list(label.clone()), list(list(label))]})),
        ("TextTokens", list(list(token))),
        ("TextStrings", list(string())),
        (
            "TextInfo",
            object(
                &["model_id", "model_type", "max_input_length"],
                &[
                    ("model_id", string()),
                    ("model_sha", optional("string")),
                    ("model_dtype", string()),
                    ("served_model_name", string()),
                    ("model_type", json!({"type": "object"})),
                    ("max_input_length", whole()),
                    ("max_client_batch_size", whole()),
                    ("auto_truncate", json!({"type": "boolean"})),
                    ("version", string()),
                ],
            ),
        ),
    ];
    for (name, schema) in schemas {
        components["schemas"][name] = schema;
    }
}
