//! JSON text as TorchServe writes it: two spaces of indent and a final newline. Only what its answers need.

use std::fmt::Write;

use super::view::{ModelPage, VersionView, Worker};
use crate::time::rfc3339;

/// A JSON value about to be written.
enum Value<'a> {
    Text(&'a str),
    Owned(String),
    Number(u128),
    Bool(bool),
    List(Vec<Self>),
    Object(Vec<(&'static str, Self)>),
}

/// `{"status": …}`.
pub fn status_text(status: &str) -> String {
    document(&Value::Object(vec![("status", Value::Text(status))]))
}

/// `{"code": …, "type": …, "message": …}`.
pub fn error_text(code: u16, kind: &str, message: &str) -> String {
    document(&Value::Object(vec![
        ("code", Value::Number(code.into())),
        ("type", Value::Text(kind)),
        ("message", Value::Text(message)),
    ]))
}

/// The answer to a list order.
pub fn list_text(page: &ModelPage) -> String {
    let token = page.next_page_token.map(|token| ("nextPageToken", Value::Owned(token.to_string())));
    let models = page.models.iter().map(|model| {
        Value::Object(vec![("modelName", Value::Text(&model.model_name)), ("modelUrl", Value::Text(&model.model_url))])
    });
    document(&Value::Object(token.into_iter().chain([("models", Value::List(models.collect()))]).collect()))
}

/// The answer to a describe order: always a list.
pub fn describe_text(versions: &[VersionView]) -> String {
    document(&Value::List(versions.iter().map(version).collect()))
}

fn version(view: &VersionView) -> Value<'_> {
    let engine = view.engine.as_deref().map(|engine| ("engine", Value::Text(engine)));
    let n_workers = || Value::Number(view.workers.len() as u128);
    let queue = vec![
        ("remainingCapacity", Value::Number(view.remaining_capacity as u128)),
        ("pendingRequests", Value::Number(view.pending_requests as u128)),
    ];
    let mut keys = vec![
        ("modelName", Value::Text(&view.model_name)),
        ("modelVersion", Value::Text(&view.model_version)),
        ("modelUrl", Value::Text(&view.model_url)),
    ];
    keys.extend(engine);
    keys.extend([
        ("runtime", Value::Text("millrace")),
        ("minWorkers", n_workers()),
        ("maxWorkers", n_workers()),
        ("batchSize", Value::Number(view.batch_size as u128)),
        ("maxBatchDelay", Value::Number(view.max_batch_delay)),
        ("deviceType", Value::Text("cpu")),
        ("loadedAtStartup", Value::Bool(view.loaded_at_startup)),
        ("workers", Value::List(view.workers.iter().map(worker).collect())),
        ("jobQueueStatus", Value::Object(queue)),
    ]);
    Value::Object(keys)
}

fn worker(worker: &Worker) -> Value<'_> {
    Value::Object(vec![
        ("id", Value::Text(&worker.id)),
        ("startTime", worker.started.map_or(Value::Text(""), |started| Value::Owned(rfc3339(started)))),
        ("status", Value::Text(if worker.is_ready { "READY" } else { "UNLOADING" })),
        ("memoryUsage", Value::Number(worker.memory_bytes.into())),
        ("pid", Value::Number(std::process::id().into())),
        ("gpu", Value::Bool(false)),
        ("gpuUsage", Value::Text("N/A")),
    ])
}

fn document(value: &Value<'_>) -> String {
    let mut text = String::new();
    value.write(&mut text, 0);
    text.push('\n');
    text
}

impl Value<'_> {
    /// As deep as the answers above, which no client makes deeper.
    fn write(&self, text: &mut String, indent: usize) {
        match self {
            Self::Text(value) => string(text, value),
            Self::Owned(value) => string(text, value),
            Self::Number(value) => text.push_str(&value.to_string()),
            Self::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
            Self::List(items) => {
                enclosed(text, ['[', ']'], indent, items, |text, item| item.write(text, indent + 1));
            }
            Self::Object(keys) => {
                enclosed(text, ['{', '}'], indent, keys, |text, (key, value)| {
                    string(text, key);
                    text.push_str(": ");
                    value.write(text, indent + 1);
                });
            }
        }
    }
}

fn enclosed<T>(
    text: &mut String,
    [open, close]: [char; 2],
    indent: usize,
    items: &[T],
    write: impl Fn(&mut String, &T),
) {
    text.push(open);
    for (index, item) in items.iter().enumerate() {
        text.push_str(if index > 0 { ",\n" } else { "\n" });
        text.push_str(&"  ".repeat(indent + 1));
        write(text, item);
    }
    if !items.is_empty() {
        text.push('\n');
        text.push_str(&"  ".repeat(indent));
    }
    text.push(close);
}

/// A quoted and escaped string.
fn string(text: &mut String, value: &str) {
    text.push('"');
    for character in value.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\0'..='\u{1f}' => {
                // Writing to a string cannot fail.
                let _infallible = write!(text, "\\u{:04x}", u32::from(character));
            }
            _ => text.push(character),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::{error_text, list_text, status_text};
    use crate::torchserve::{ModelEntry, ModelPage};

    #[test]
    fn texts_are_json_whatever_they_hold() {
        assert_eq!(status_text("a \"b\"\n\\"), "{\n  \"status\": \"a \\\"b\\\"\\u000a\\\\\"\n}\n");
        let error = error_text(404, "ModelNotFoundException", "Model not found: m");
        let expected =
            "{\n  \"code\": 404,\n  \"type\": \"ModelNotFoundException\",\n  \"message\": \"Model not found: m\"\n}\n";
        assert_eq!(error, expected);
    }

    #[test]
    fn a_list_has_a_token_only_where_more_follows() {
        let entry = ModelEntry { model_name: "m".to_owned(), model_url: "m".to_owned() };
        let page = ModelPage { next_page_token: Some(1), models: vec![entry] };
        let expected = concat!(
            "{\n  \"nextPageToken\": \"1\",\n  \"models\": [\n    {\n      \"modelName\": \"m\",\n",
            "      \"modelUrl\": \"m\"\n    }\n  ]\n}\n"
        );
        assert_eq!(list_text(&page), expected);
        assert_eq!(list_text(&ModelPage { next_page_token: None, models: vec![] }), "{\n  \"models\": []\n}\n");
    }
}
