//! The metrics page and the log, as operators' tools read them.

use std::collections::HashMap;

use millrace_testkit::FakeBackend;

use crate::support::{Client, DOUBLE, Process, Repository, TestServer, millrace, prediction};

const GOOD: &str = r#"{"instances": [1.0]}"#;

#[test]
fn the_metrics_page_passes_a_lint() {
    let server = TestServer::double(|_| {});
    server.client().post(DOUBLE, GOOD).gives(&prediction(2.0));
    let page = server.client().get("/monitoring/prometheus/metrics");
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    let page = page.text();
    lint(&page);
    for family in [
        "millrace_request_seconds",
        "millrace_batching_queue_seconds",
        "millrace_batching_compute_seconds",
        "millrace_batching_batch_rows",
        "millrace_registry_load_seconds",
        "millrace_registry_memory_bytes",
        "millrace_server_connections",
        "millrace_server_build_info",
        "process_resident_memory_bytes",
        ":tensorflow:serving:request_count",
        ":tensorflow:serving:request_latency",
    ] {
        assert!(page.contains(&format!("# TYPE {family} ")), "no {family}");
    }
}

/// What Prometheus' own linter asks: each family typed once and before its samples, no summaries, no series twice,
/// histograms with `+Inf`, counters that end in `_total` (where the name is ours), no units but base ones.
fn lint(page: &str) {
    let mut types: HashMap<&str, &str> = HashMap::new();
    let mut series = std::collections::HashSet::new();
    let mut infinite = std::collections::HashSet::new();
    for line in page.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(types.insert(name, kind).is_none(), "{name} is typed twice");
            assert_ne!(kind, "summary", "{name} has no buckets");
            let ours = name.starts_with("millrace_");
            assert!(kind != "counter" || !ours || name.ends_with("_total"), "{name}");
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (key, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(series.insert(key), "{key} stands twice");
        let name = key.split('{').next().unwrap();
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':')), "{name}");
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .find(|family| types.get(family) == Some(&"histogram"))
            .unwrap_or(name);
        assert!(types.contains_key(family), "{name} has no type before it");
        if key.contains("le=\"+Inf\"") {
            infinite.insert(family);
        }
    }
    for (name, kind) in &types {
        assert!(*kind != "histogram" || infinite.contains(name), "{name} has no +Inf bucket");
    }
}

#[test]
fn row_81_a_name_with_a_newline_is_one_escaped_log_line() {
    let repository = Repository::new().fake("double", 1, 2.0, 0.0);
    // The binary has no engine for these files; what is asked of it here needs none.
    let mut process = Process::start(
        millrace()
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "off",
                "--log-level",
                "debug",
                "--log-format",
                "json",
            ])
            .arg(repository.path()),
    );
    let mut client = Client::connect(process.address);
    let reply = client.post("/v1/models/evil%0a%1b%5b31m:predict", GOOD);
    assert_eq!(reply.status, 404);
    assert!(!reply.text().contains('\u{1b}'));
    // The harness parses the log line by line as JSON: a line that were two would not be found.
    let event = process.logged("evil");
    assert!(!event.to_string().contains('\u{1b}'), "{event}");
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
fn the_admin_listener_gives_and_takes_orders() {
    let repository = Repository::new().fake("double", 1, 2.0, 0.0);
    let server = TestServer::fake(repository, FakeBackend::default(), |_| {});
    let mut admin = server.admin();
    let models = admin.get("/admin/models");
    assert_eq!(models.status, 200, "{}", models.text());
    assert!(models.text().contains("double"));
    assert_eq!(admin.post("/admin/models/double/unload", "").status, 200);
    assert_eq!(server.client().post(DOUBLE, GOOD).status, 404, "an unloaded version is not servable");
    assert_eq!(admin.post("/admin/models/double/load", "").status, 200);
    server.is_well();
    assert_eq!(admin.post("/admin/models/nobody/load", "").status, 404);
    // Orders belong to the admin port alone.
    assert_eq!(server.client().post("/admin/models/double/unload", "").status, 404);
}
