//! `GET /info`: what is known of a text model, under text-embeddings-inference's keys.
//!
//! Keys whose values this server does not have are not there.

use std::collections::BTreeMap;

use millrace_core::{TextFacts, TextTask, Truncation};
use serde_json::{Value, json};

use super::answer::label;
use super::choice::Chosen;

/// The document. `workers` are the threads that cut texts into tokens, where their number is known.
pub(super) fn document(chosen: &Chosen, max_client_batch_size: usize, workers: Option<usize>) -> Value {
    let (servable, facts) = (&chosen.servable, chosen.text.facts());
    let name = servable.model().as_str();
    let mut document = json!({
        "model_id": name,
        // What tells one state of a model from another: there a commit, here a version.
        "model_sha": servable.version().to_string(),
        "model_dtype": dtype(&facts.precision),
        "served_model_name": name,
        "model_type": kind(facts),
        "max_input_length": facts.max_tokens,
        "max_client_batch_size": max_client_batch_size,
        "auto_truncate": facts.truncation != Truncation::Refuse,
        "version": env!("CARGO_PKG_VERSION"),
        "sha": null,
        "docker_label": null,
    });
    for (key, known) in [("max_batch_tokens", servable.max_batch_tokens()), ("tokenization_workers", workers)] {
        if let Some(known) = known {
            document[key] = json!(known);
        }
    }
    document
}

fn kind(facts: &TextFacts) -> Value {
    let labels = || {
        let n_labels = facts.labels.len().max(1);
        let names: BTreeMap<String, String> = (0..n_labels).map(|id| (id.to_string(), label(facts, id))).collect();
        let ids: BTreeMap<String, usize> = (0..n_labels).map(|id| (label(facts, id), id)).collect();
        json!({"id2label": names, "label2id": ids})
    };
    match facts.task {
        TextTask::Embedding if facts.pooling.is_empty() => json!({"embedding": {}}),
        TextTask::Embedding => json!({"embedding": {"pooling": facts.pooling}}),
        TextTask::Classification => json!({"classifier": labels()}),
        TextTask::Ranking => json!({"reranker": labels()}),
    }
}

/// The precision's name there.
fn dtype(precision: &str) -> &str {
    match precision {
        "FP32" => "float32",
        "FP16" => "float16",
        "BF16" => "bfloat16",
        other => other,
    }
}
