use std::num::NonZeroUsize;
use std::time::Duration;

use super::{ModelConfig, VersionPolicy};

fn size(rows: usize) -> NonZeroUsize {
    NonZeroUsize::new(rows).unwrap()
}

/// Checks that `text` is refused at `line:column` with a message that contains `part`.
fn refused(text: &str, line: usize, column: usize, part: &str) {
    let error = ModelConfig::parse(text).unwrap_err();
    assert!(error.message.contains(part), "{error}");
    assert_eq!((error.line, error.column), (line, column), "{error}");
}

#[test]
fn an_empty_file_is_all_defaults() {
    let config = ModelConfig::parse("").unwrap();
    assert_eq!(config, ModelConfig::default());
    assert_eq!(config.warmup.rows, [size(1), size(8)]);
}

#[test]
fn every_key_is_read() {
    let config = ModelConfig::parse(
        r#"
        kind = "model"
        backend = "tract"
        versions = { latest = 2 }
        [aliases]
        stable = 1
        default = 2
        [batching]
        enabled = true
        max_batch_size = 32
        max_batch_tokens = 4096
        max_enqueued_batches = 100
        num_batch_threads = 8
        allowed_batch_sizes = [8, 32]
        latency_goal = "5ms"
        enable_large_batch_splitting = true
        [warmup]
        enabled = false
        rows = [4]
        runs = 3
        [limits]
        memory = "512MiB"
        [options]
        threads = 2
        fast = true
        mode = "x"
        [options.onnxruntime]
        execution_providers = ["cuda", "cpu"]
        "#,
    )
    .unwrap();
    assert_eq!(config.backend.as_deref(), Some("tract"));
    assert_eq!(config.versions, Some(VersionPolicy::Latest(size(2))));
    assert_eq!(config.aliases.values().copied().collect::<Vec<_>>(), [2, 1]);
    assert_eq!(config.batching.max_batch_size, Some(size(32)));
    assert_eq!(config.batching.max_batch_tokens, Some(size(4096)));
    assert_eq!(config.batching.latency_goal, Some(Duration::from_millis(5)));
    assert_eq!(config.batching.enable_large_batch_splitting, Some(true));
    assert_eq!((config.warmup.enabled, config.warmup.runs), (false, size(3)));
    assert_eq!(config.memory_limit, Some(512 << 20));
    let options: Vec<_> = config.options.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let providers = r#"onnxruntime.execution_providers=["cuda", "cpu"]"#;
    assert_eq!(options, ["fast=true", "mode=x", providers, "threads=2"]);
}

#[test]
fn every_form_of_versions_is_read() {
    let policy = |text: &str| ModelConfig::parse(text).unwrap().versions.unwrap();
    assert_eq!(policy("versions = \"all\""), VersionPolicy::All);
    assert_eq!(policy("versions = [1, 3]"), VersionPolicy::Specific(vec![1, 3]));
    assert_eq!(policy("[versions]\nlatest = 3"), VersionPolicy::Latest(size(3)));
}

#[test]
fn auto_is_no_choice() {
    assert_eq!(ModelConfig::parse("backend = \"auto\"").unwrap().backend, None);
}

#[test]
fn unknown_keys_are_errors_with_place_and_suggestion() {
    refused("\nverisons = \"all\"", 2, 1, "unknown key `verisons`; did you mean `versions`?");
    refused("[batching]\n  max_batchsize = 3", 2, 3, "in [batching]; did you mean `max_batch_size`?");
    refused("[limits]\nquux = 3", 2, 1, "expected one of memory");
    refused("[sparkling]", 1, 2, "expected one of kind, backend");
    refused(&format!("{} = 1", "k".repeat(100_000)), 1, 1, "expected one of kind");
}

#[test]
fn wrong_values_say_what_would_be_right() {
    refused("kind = \"modell\"", 1, 8, "expected \"model\" or \"pipeline\"");
    refused("[inputs.x]\nsize = 8", 1, 1, "`kind` is missing");
    refused("[inputs.x]\nkind = 8", 2, 8, "expected a string");
    refused("[inputs.x]\nkind = \"image\"\nsize = { h = 8 }", 3, 8, "a list");
    refused("inputs = [1]", 1, 10, "expected a table");
    refused("kind = \"model\"\n[models]\na = \"b\"", 2, 2, "`kind = \"pipeline\"`");
    refused("pipeline = \"face\"", 1, 1, "`kind = \"pipeline\"`");
    refused("versions = \"newest\"", 1, 12, "{ latest = 2 }");
    refused("versions = { latest = 0 }", 1, 23, "above zero");
    refused("versions = [-1]", 1, 13, "zero or more");
    refused("[aliases]\nlatest = 3", 2, 10, "reserved");
    refused("[aliases]\n\"../x\" = 3", 2, 10, "not usable");
    refused("[batching]\nlatency_goal = \"5\"", 2, 16, "\"20ms\"");
    refused("[batching]\nbatch_timeout_micros = 1\nlatency_goal = \"5ms\"", 1, 1, "keep one");
    refused("[warmup]\nenabled = 1", 2, 11, "expected true or false, got a number");
    refused("[limits]\nmemory = \"lots\"", 2, 10, "\"512MiB\"");
    refused("backend = [", 1, 12, "");
    refused("[options]\na = 2026-01-01", 2, 5, "expected a string");
}

#[test]
fn a_pipeline_names_itself_its_models_and_its_options() {
    let config = ModelConfig::parse(
        r#"
        kind = "pipeline"
        pipeline = "face"
        versions = "all"
        [aliases]
        stable = 1
        [models]
        small = "pnet"
        large = "onet:3"
        last = "embedding@stable"
        [options]
        sizes = [20, 1.5]
        mode = "fast"
        deep = true
        "#,
    )
    .unwrap();
    let pipeline = config.pipeline.unwrap();
    assert_eq!(pipeline.name, "face");
    let models: Vec<_> = pipeline.models.iter().map(|(role, model)| format!("{role}={model}")).collect();
    assert_eq!(models, ["large=onet:3", "last=embedding@stable", "small=pnet"]);
    let options: Vec<_> = config.options.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(options, ["deep=true", "mode=fast", "sizes=[20, 1.5]"]);
    assert_eq!((config.versions, config.aliases.len()), (Some(VersionPolicy::All), 1));
}

#[test]
fn what_a_pipeline_cannot_have_is_refused_where_it_stands() {
    let head = "kind = \"pipeline\"\npipeline = \"p\"\n";
    for key in ["backend = \"tract\"", "[batching]", "[warmup]", "[limits]", "[inputs.x]\nkind = \"image\""] {
        let column = if key.starts_with('[') { 2 } else { 1 };
        refused(&format!("{head}{key}"), 3, column, "a pipeline has no network of its own");
    }
    refused("kind = \"pipeline\"", 1, 8, "`pipeline = \"…\"` is missing");
    refused("kind = \"pipeline\"\npipline = \"p\"", 2, 1, "did you mean `pipeline`?");
    refused(&format!("{head}[models]\na = \"b:x\""), 4, 5, "expected a number, as in `fraud:3`");
    refused(&format!("{head}[models]\na = \"../b\""), 4, 5, "not usable");
    refused(&format!("{head}[models]\na = 3"), 4, 5, "expected a string");
    refused(&format!("{head}[options]\na = {{ b = 1 }}"), 4, 5, "or a list");
    let triton = ModelConfig { model_file: Some("model.onnx".to_owned()), ..ModelConfig::default() };
    let error = ModelConfig::parse_over(triton, head).unwrap_err();
    assert!(error.message.contains("config.pbtxt"), "{error}");
}

#[test]
fn inputs_keep_their_options_as_they_are_written() {
    let text = "[inputs.image]\nkind = \"image\"\nsize = [8, 8]\nscale = 0.5\nlayout = \"nchw\"";
    let config = ModelConfig::parse(text).unwrap();
    let input = &config.inputs["image"];
    assert_eq!(input.kind, "image");
    let options: Vec<_> = input.options.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(options, ["layout=nchw", "scale=0.5", "size=[8, 8]"]);
}

#[test]
fn options_of_one_engine_stand_under_its_name() {
    let config = ModelConfig::parse("[options]\ndepth = 3\n[options.tract]\ncheck_rows = false\n").unwrap();
    let options: Vec<_> = config.options.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(options, ["depth=3", "tract.check_rows=false"]);
    refused("[options.tract]\na = 2026-01-01", 2, 5, "expected a string");
}

#[test]
fn text_has_a_switch_and_options_of_whoever_cuts_it() {
    let config = ModelConfig::parse("[text]\nenabled = true\nmax_tokens = 128\ntruncation = \"right\"\n").unwrap();
    assert_eq!(config.text.enabled, Some(true));
    let options: Vec<String> = config.text.options.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(options, ["max_tokens=128", "truncation=right"]);
    assert_eq!(ModelConfig::parse("").unwrap().text, super::TextConfig::default());
    refused("[text]\nenabled = \"yes\"\n", 2, 11, "expected true or false");
    let both = "[inputs.x]\nkind = \"image\"\n[text]\nmax_tokens = 3\n";
    refused(both, 3, 1, "declared by [inputs] already");
    ModelConfig::parse("[inputs.x]\nkind = \"image\"\n[text]\nenabled = false\n").unwrap();
    refused("kind = \"pipeline\"\npipeline = \"p\"\n[text]\n", 3, 2, "a pipeline has no network");
}
