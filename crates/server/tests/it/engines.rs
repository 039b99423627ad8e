//! The choice among engines, from the command line to the admin port, on models that trees and tract both take.

use std::fs;
use std::process::Output;

use millrace_server::ServerConfig;
use millrace_testkit::fixture;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Client, Process, Repository, TestServer, millrace, output, serve};

/// A forest that trees and tract take, one that tract answers wrongly, and a network that only tract takes.
fn repository() -> Repository {
    Repository::new()
        .copy("extra/tree_multiclass/1", "forest", 1)
        .copy("trees/onnx/linear_classifier_one_none/1", "linear", 1)
        .copy("models/half_plus_two/1", "network", 1)
}

fn text(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A server without ONNX Runtime, whatever this machine has.
fn server(repository: &Repository, configure: impl FnOnce(&mut ServerConfig)) -> TestServer {
    TestServer::folder(repository.path(), |config| {
        config.engines.onnxruntime_library = Some("/nowhere/libonnxruntime.so".into());
        configure(config);
    })
}

/// The only version of `model` as the admin port shows it.
fn version(admin: &mut Client, model: &str) -> Value {
    admin.get(&format!("/admin/models/{model}")).json()["versions"][0].clone()
}

#[test]
fn check_says_who_serves_and_why_and_who_is_wrong() {
    let repository = repository();
    let shown = text(&output(millrace().arg("check").arg(repository.path())));
    let line = |start: &str| shown.lines().find(|line| line.starts_with(start)).map(str::to_owned);
    let forest = line("forest version 1: ").unwrap_or_else(|| panic!("{shown}"));
    assert!(
        forest.starts_with("forest version 1: trees (1 row: trees ") && forest.contains("; 64 rows: trees "),
        "{forest}"
    );
    assert!(forest.contains(" µs, tract "), "{forest}");
    let wrong = line("linear version 1: not by tract: ").unwrap_or_else(|| panic!("{shown}"));
    assert!(wrong.contains("output `y`: element [0,0] is ") && wrong.contains(", expected "), "{wrong}");
    assert!(wrong.contains("the largest difference is 1.000e0 (by trees, with 1 row)"), "{wrong}");
    assert_eq!(line("network version"), None, "{shown}");
    let row = |model: &str| line(&format!("{model} ")).unwrap();
    assert!(row("forest").contains(" trees ") && row("network").contains(" tract "), "{shown}");
}

#[test]
fn inspect_shows_times_memory_differences_and_the_weights_by_type() {
    let shown = text(&output(millrace().arg("inspect").arg(fixture("extra/tree_multiclass"))));
    for part in ["backend   trees", "weights   744 B (FP32 744 B)", "chosen    trees: 1 row: trees "] {
        assert!(shown.contains(part), "no `{part}` in\n{shown}");
    }
    let table: Vec<Vec<&str>> = shown
        .lines()
        .skip_while(|line| !line.starts_with("ENGINE"))
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    assert_eq!(table[0], ["ENGINE", "SERVES", "1 ROW", "4 ROWS", "16 ROWS", "64 ROWS", "DIFFERENCE", "MEMORY", "LOAD"]);
    assert_eq!((&table[1][..2], table[1][6]), (&["trees", "all"][..], "-"));
    assert_eq!((&table[2][..2], table[2][6]), (&["tract", "-"][..], "none"));
    assert!(table[1][2..6].iter().all(|cell| cell.ends_with("s")), "{shown}");

    // One engine alone, by flag and by model.toml.
    let alone =
        text(&output(millrace().arg("inspect").arg(fixture("extra/tree_multiclass")).args(["--backend", "tract"])));
    assert!(alone.contains("backend   tract") && !alone.contains("trees"), "{alone}");
    let repository = repository();
    fs::write(repository.path().join("forest/model.toml"), "backend = \"tract\"\n").unwrap();
    let pinned = text(&output(millrace().arg("inspect").arg(repository.path().join("forest"))));
    assert!(pinned.contains("backend   tract") && !pinned.contains("trees"), "{pinned}");
    let unknown = output(millrace().arg("inspect").arg(fixture("models/fraud")).args(["--backend", "x"]));
    assert_eq!(unknown.status.code(), Some(2));
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(said.contains("there is no backend `x`; expected one of auto, "), "{said}");
}

#[test]
fn a_model_is_held_against_its_original() {
    let against = |model: &str, original: &str| {
        output(millrace().arg("inspect").arg(fixture(model)).arg("--against").arg(fixture(original)))
    };
    let shown = text(&against("models/identity_fp16", "models/identity_fp32"));
    for part in [
        "model     identity_fp16 version 1 by tract",
        "against   identity_fp32 version 1 by tract",
        "64 invented requests through both:",
        "OUTPUT  RANGE ",
        "64 of 64",
        "ROWS  TIME PER ROW  AGAINST",
    ] {
        assert!(shown.contains(part), "no `{part}` in\n{shown}");
    }
    // Rounding to FP16 takes away up to one part in 2048, and of numbers below 4 no more than 2^-10.
    let gap = shown.lines().find(|line| line.starts_with("y  ")).unwrap();
    let largest: f64 = gap
        .split("  ")
        .map(str::trim)
        .filter(|cell| !cell.is_empty())
        .nth(2)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1e-4..1e-3).contains(&largest), "{gap}");
    // A quantised model against itself differs in nothing.
    let same = text(&against("extra/quantized", "extra/quantized"));
    assert!(same.contains("0.00e0 (0.000 %)") && same.contains("1.00 times smaller"), "{same}");
    let other = against("models/fraud", "models/iris");
    assert_eq!(other.status.code(), Some(1));
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(said.contains("their inputs differ: transaction FP32[N,10] against "), "{said}");
}

#[test]
fn the_admin_port_and_the_metrics_show_the_choice() {
    let repository = repository();
    let server = server(&repository, |_| {});
    let shown = version(&mut server.admin(), "forest");
    assert_eq!(shown["backend"], "trees");
    let engines = &shown["engines"];
    assert_eq!(engines["ranges"], json!([{"rows_from": 1, "engine": "trees"}]));
    assert_eq!(engines["remembered"], false);
    assert!(engines["trial_seconds"].as_f64().unwrap() > 0.0);
    let tried: Vec<_> =
        engines["tried"].as_array().unwrap().iter().map(|tried| (&tried["engine"], &tried["outcome"])).collect();
    assert_eq!(tried, [(&json!("trees"), &json!("chosen")), (&json!("tract"), &json!("slower"))]);
    assert!(engines["tried"][1]["run_seconds"]["1"].as_f64().unwrap() > 0.0, "{engines}");
    assert_eq!(engines["tried"][1]["difference"]["largest"], 0.0);
    let wrong = version(&mut server.admin(), "linear");
    let dropped = wrong["engines"]["tried"][1]["dropped"].as_str().unwrap();
    assert!(dropped.starts_with("output `y`"), "{dropped}");
    let chosen = |model: &str, engine: &str| {
        server.metric(&format!(
            "millrace_registry_engine_chosen{{model=\"{model}\",version=\"1\",engine=\"{engine}\",rows_from=\"1\"}}"
        ))
    };
    assert!((chosen("forest", "trees") - 1.0).abs() < f64::EPSILON);
    assert!((chosen("network", "tract") - 1.0).abs() < f64::EPSILON);
    assert!(server.metric("millrace_registry_engine_trial_seconds{model=\"forest\",version=\"1\"}") > 0.0);
    assert_eq!(server.admin().post("/admin/models/forest/unload", "").status, 200);
    server.until_metric("millrace_registry_engine_chosen{model=\"forest\"", |value| value == 0.0);
}

#[test]
fn a_model_that_names_its_engine_is_served_by_it() {
    let repository = repository();
    fs::write(repository.path().join("forest/model.toml"), "backend = \"tract\"\n").unwrap();
    fs::write(repository.path().join("linear/model.toml"), "[options.tract]\nnonsense = 1\n").unwrap();
    let server = server(&repository, |_| {});
    let forest = version(&mut server.admin(), "forest");
    assert_eq!((&forest["backend"], &forest["engines"]), (&json!("tract"), &Value::Null));
    // One engine's options are no other's.
    let linear = version(&mut server.admin(), "linear");
    assert_eq!(linear["backend"], "trees");
    let dropped = linear["engines"]["tried"][1]["dropped"].as_str().unwrap();
    assert!(dropped.contains("nonsense"), "{dropped}");
}

#[test]
fn what_was_measured_is_remembered_until_something_changes() {
    let (repository, state) = (repository(), TempDir::new().unwrap());
    let remembered = |remember: bool| {
        let server = server(&repository, |config| {
            config.registry.state_dir = Some(state.path().to_owned());
            config.engines.remember = remember;
        });
        let shown = version(&mut server.admin(), "forest");
        assert_eq!(shown["backend"], "trees");
        shown["engines"]["remembered"].as_bool().unwrap()
    };
    assert!(!remembered(true));
    assert!(remembered(true));
    assert!(!remembered(false));
    let file = state.path().join("engines/forest-1.json");
    fs::write(&file, "damaged").unwrap();
    assert!(!remembered(true));
    assert!(remembered(true));
    // What has no rival is not worth a file.
    assert!(!state.path().join("engines/network-1.json").exists());
}

/// `check` and `serve` of one repository share what they measured.
#[test]
fn a_check_saves_the_server_its_trials() {
    let (repository, home) = (repository(), TempDir::new().unwrap());
    text(&output(millrace().arg("check").arg(repository.path()).env("XDG_STATE_HOME", home.path())));
    let again = text(&output(millrace().arg("check").arg(repository.path()).env("XDG_STATE_HOME", home.path())));
    assert!(again.contains(", measured before)"), "{again}");
    let process = Process::start(serve(repository.path()).env("XDG_STATE_HOME", home.path()));
    process.logged("ready");
    let events = process.log_so_far();
    let forest = events.iter().find(|event| event["model"] == "forest" && event["backend"].is_string()).unwrap();
    assert_eq!(forest["backend"], "trees");
    assert!(forest["why"].as_str().unwrap().starts_with("1 row: trees "), "{forest}");
    let mut admin = Client::connect(process.admin.unwrap());
    assert_eq!(version(&mut admin, "forest")["engines"]["remembered"], true);
}

#[test]
fn files_of_training_libraries_are_models_like_any_other() {
    let repository = Repository::new()
        .copy("trees/xgboost/binary_ubj", "boosted", 1)
        .copy("trees/lightgbm/multiclass", "light", 1)
        .copy("trees/lightgbm/regression", "triton", 1);
    fs::write(repository.path().join("triton/config.pbtxt"), "backend: \"fil\"\n").unwrap();
    let server = server(&repository, |_| {});
    for model in ["boosted", "light", "triton"] {
        let shown = version(&mut server.admin(), model);
        assert_eq!((&shown["state"], &shown["backend"]), (&json!("AVAILABLE"), &json!("trees")), "{shown}");
        let answer =
            server.client().post(&format!("/v1/models/{model}:predict"), r#"{"instances": [[0.5, 1, 2, 3, 1]]}"#);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    for file in [
        "trees/xgboost/binary_ubj/model.ubj",
        "trees/xgboost/binary_json/model.json",
        "trees/lightgbm/multiclass/model.txt",
    ] {
        let shown = text(&output(millrace().arg("inspect").arg(fixture(file))));
        assert!(shown.contains("backend   trees") && shown.contains("input FP32[N,5]"), "{shown}");
    }
}

#[test]
fn the_configuration_of_engines_is_read_and_refused_like_any_other() {
    let repository = repository();
    let check = |name: &str, value: &str| output(millrace().arg("check").arg(repository.path()).env(name, value));
    let wrong = check("MILLRACE_ENGINES__BUDGT", "1s");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("did you mean `MILLRACE_ENGINES__BUDGET`"), "{wrong:?}");
    let quick = text(&check("MILLRACE_ENGINES__BUDGET", "0s"));
    // Without a budget answers are compared all the same.
    assert!(quick.contains("linear version 1: not by tract: output `y`"), "{quick}");
    if cfg!(feature = "onnxruntime") {
        let absent = text(&check("MILLRACE_ENGINES__ONNXRUNTIME_LIBRARY", "/nowhere/libonnxruntime.so"));
        assert!(absent.contains("onnxruntime: ") && absent.contains("/nowhere"), "{absent}");
    } else {
        let absent = text(&check("MILLRACE_ENGINES__ONNXRUNTIME_LIBRARY", "/nowhere/libonnxruntime.so"));
        assert!(absent.contains("was built without the feature `onnxruntime`"), "{absent}");
    }
}

/// ONNX Runtime goes before the others in trust, and takes what it is fastest at.
#[cfg(feature = "onnxruntime")]
#[test]
fn onnxruntime_is_one_of_the_engines_where_its_library_is() {
    use millrace_backend_onnxruntime::{Availability, OnnxRuntimeBackend};

    let (Availability::Found { library } | Availability::Loaded { library, .. }) =
        OnnxRuntimeBackend::default().availability()
    else {
        eprintln!("SKIPPED: no ONNX Runtime library on this machine; set ORT_DYLIB_PATH");
        return;
    };
    let repository = repository();
    let (home, name) = (TempDir::new().unwrap(), "MILLRACE_ENGINES__ONNXRUNTIME_LIBRARY");
    let mut command = serve(repository.path());
    let process = Process::start(command.env("XDG_STATE_HOME", home.path()).env(name, library));
    process.logged("ready");
    let mut admin = Client::connect(process.admin.unwrap());
    let tried = |version: &Value| {
        let tried = version["engines"]["tried"].as_array().unwrap().clone();
        tried.iter().map(|tried| tried["engine"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let forest = version(&mut admin, "forest");
    assert_eq!(tried(&forest), ["onnxruntime", "trees", "tract"]);
    assert!(forest["engines"]["tried"][1]["difference"]["largest"].as_f64().unwrap() <= 1e-6, "{forest}");
    let network = version(&mut admin, "network");
    assert_eq!(tried(&network), ["onnxruntime", "tract"]);
    assert_ne!(network["engines"]["tried"][1]["outcome"], "dropped", "{network}");
    let linear = version(&mut admin, "linear");
    assert_ne!(linear["engines"]["tried"][1]["outcome"], "dropped", "{linear}");
    assert_eq!(linear["engines"]["tried"][2]["outcome"], "dropped");
}
