//! The picture of the crates in ARCHITECTURE.md, as a check: lower never knows higher, and some things are absent.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Every crate of the product and its level. A normal dependency must lead to a strictly lower level.
const LEVELS: &[(&str, u8)] = &[
    ("millrace-core", 0),
    ("millrace-huggingface", 0),
    ("millrace-onnx", 0),
    ("millrace-proto", 0),
    ("millrace-threads", 0),
    ("millrace-batching", 1),
    ("millrace-backend-auto", 1),
    ("millrace-backend-candle", 1),
    ("millrace-backend-onnxruntime", 1),
    ("millrace-backend-tract", 1),
    ("millrace-backend-trees", 1),
    ("millrace-protocol", 1),
    ("millrace-json", 1),
    ("millrace-text", 1),
    ("millrace-vision", 1),
    ("millrace-registry", 2),
    ("millrace-face", 2),
    ("millrace-http", 3),
    ("millrace-grpc", 3),
    ("millrace-server", 4),
];

/// Crates that help development: products may use them in tests only.
const HELPERS: &[&str] = &[
    "millrace-testkit",
    "millrace-examples",
    "millrace-benches",
    "millrace-gpu-bench",
    "millrace-simulation",
    "millrace-traffic",
    "xtask",
];

/// What a crate must never reach, however indirectly.
const ABSENT: &[(&str, &[&str])] = &[
    ("millrace-core", &["tokio", "hyper", "tonic", "serde", "tracing", "metrics"]),
    ("millrace-batching", &["tokio", "hyper", "tonic", "serde"]),
    ("millrace-backend-tract", &["tokio", "hyper", "tonic", "millrace-registry", "millrace-batching", "millrace-http"]),
    ("millrace-backend-auto", &["tokio", "hyper", "tonic", "millrace-registry", "millrace-batching", "millrace-http"]),
    (
        "millrace-backend-onnxruntime",
        &["tokio", "hyper", "tonic", "millrace-registry", "millrace-batching", "tract-onnx"],
    ),
    ("millrace-backend-trees", &["tokio", "hyper", "tonic", "millrace-registry", "millrace-batching", "tract-onnx"]),
    ("millrace-huggingface", &["millrace-core", "tokio", "candle-core", "tokenizers"]),
    ("millrace-threads", &["millrace-core", "tokio"]),
    ("millrace-backend-candle", &["tokio", "hyper", "tonic", "millrace-registry", "millrace-batching"]),
    ("millrace-text", &["tokio", "hyper", "tonic", "millrace-registry", "millrace-batching", "candle-core"]),
    ("millrace-protocol", &["hyper", "tonic", "prost", "serde_json"]),
    ("millrace-json", &["tokio", "hyper", "tonic", "serde_json"]),
    ("millrace-vision", &["tokio", "hyper", "tonic", "millrace-registry", "millrace-batching"]),
    ("millrace-registry", &["tokio", "hyper", "tonic"]),
    ("millrace-face", &["tokio", "hyper", "tonic", "millrace-registry", "millrace-batching", "tract-onnx"]),
    (
        "millrace-http",
        &["millrace-registry", "millrace-batching", "millrace-backend-tract", "tract-onnx", "millrace-grpc", "prost"],
    ),
    (
        "millrace-grpc",
        &["millrace-registry", "millrace-batching", "millrace-backend-tract", "tract-onnx", "millrace-http"],
    ),
];

/// Checks levels and absences.
pub(crate) fn check() -> Result<(), String> {
    // This platform's crates are there once the workspace was built; those of others were perhaps never downloaded.
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", "host-tuple"])
        .output()
        .map_err(|error| format!("cannot run `cargo metadata`: {error}"))?;
    if !output.status.success() {
        return Err(format!("`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let metadata = serde_json::from_slice(&output.stdout).map_err(|error| format!("`cargo metadata`: {error}"))?;
    let faults = faults(&Graph::read(&metadata));
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// Normal dependencies, by package id; names for messages.
struct Graph {
    names: BTreeMap<String, String>,
    members: BTreeSet<String>,
    edges: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read(metadata: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let names =
            list(&metadata["packages"]).iter().map(|package| (text(&package["id"]), text(&package["name"]))).collect();
        let members = list(&metadata["workspace_members"]).iter().map(text).collect();
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in list(&metadata["resolve"]["nodes"]) {
            let normal = |dependency: &&Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            let dependencies = list(&node["deps"]);
            let targets = dependencies.iter().filter(normal).map(|dependency| text(&dependency["pkg"]));
            edges.entry(text(&node["id"])).or_default().extend(targets);
        }
        Self { names, members, edges }
    }

    fn name(&self, id: &str) -> &str {
        self.names.get(id).map_or("?", String::as_str)
    }

    fn reachable(&self, from: &str) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let mut open = vec![from];
        while let Some(id) = open.pop() {
            for next in self.edges.get(id).into_iter().flatten() {
                if seen.insert(next.as_str()) {
                    open.push(next);
                }
            }
        }
        seen
    }
}

fn faults(graph: &Graph) -> Vec<String> {
    let level = |name: &str| LEVELS.iter().find(|(known, _)| *known == name).map(|(_, level)| *level);
    let mut faults = Vec::new();
    for id in &graph.members {
        let name = graph.name(id);
        if HELPERS.contains(&name) {
            continue;
        }
        let Some(own) = level(name) else {
            faults.push(format!("{name} has no level: add it to LEVELS in xtask/src/layers.rs"));
            continue;
        };
        for target in graph.edges.get(id).into_iter().flatten().map(|target| graph.name(target)) {
            if HELPERS.contains(&target) {
                faults.push(format!("{name} depends on {target}, which is for tests only"));
            } else if level(target).is_some_and(|other| other >= own) {
                faults.push(format!("{name} (level {own}) depends on {target}, which is not lower"));
            }
        }
        let absent = ABSENT.iter().find(|(known, _)| *known == name).map_or(&[][..], |(_, absent)| absent);
        for reached in graph.reachable(id).into_iter().map(|target| graph.name(target)) {
            if absent.contains(&reached) {
                faults.push(format!("{name} reaches {reached}: see `cargo tree -p {name} -i {reached}`"));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Graph, faults};

    fn graph(edges: &[(&str, &str)]) -> Graph {
        let mut ids: Vec<&str> = edges.iter().flat_map(|&(from, to)| [from, to]).collect();
        ids.sort_unstable();
        ids.dedup();
        let packages: Vec<_> = ids.iter().map(|id| json!({"id": id, "name": id})).collect();
        let members: Vec<_> = ids.iter().filter(|id| id.starts_with("millrace")).collect();
        let nodes: Vec<_> = edges
            .iter()
            .map(|(from, to)| json!({"id": from, "deps": [{"pkg": to, "dep_kinds": [{"kind": null}]}]}))
            .collect();
        Graph::read(&json!({"packages": packages, "workspace_members": members, "resolve": {"nodes": nodes}}))
    }

    #[test]
    fn arrows_down_pass() {
        assert!(faults(&graph(&[("millrace-server", "millrace-http"), ("millrace-http", "millrace-core")])).is_empty());
    }

    #[test]
    fn an_arrow_up_or_sideways_is_a_fault() {
        assert_eq!(faults(&graph(&[("millrace-core", "millrace-http")])).len(), 1);
        assert_eq!(faults(&graph(&[("millrace-batching", "millrace-protocol")])).len(), 1);
    }

    #[test]
    fn what_must_be_absent_is_found_through_others() {
        let found = faults(&graph(&[("millrace-core", "bytes"), ("bytes", "serde")]));
        assert_eq!(found, ["millrace-core reaches serde: see `cargo tree -p millrace-core -i serde`"]);
    }

    #[test]
    fn test_helpers_stay_out_of_products() {
        assert_eq!(faults(&graph(&[("millrace-http", "millrace-testkit")])).len(), 1);
    }

    #[test]
    fn a_crate_without_a_level_is_a_fault() {
        assert_eq!(faults(&graph(&[("millrace-new", "millrace-core")])).len(), 1);
    }

    #[test]
    fn the_workspace_itself_holds() {
        super::check().unwrap();
    }
}
