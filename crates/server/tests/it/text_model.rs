//! Text models from end to end: Hugging Face folders in a repository, text in by every protocol, vectors and scores out.

use std::fs;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::process::{Output, Stdio};
use std::thread;
use std::time::Duration;

use millrace_batching::Waiting;
use millrace_core::{Strings, Tensor};
use millrace_proto::inference::ModelInferRequest;
use millrace_proto::inference::model_infer_request::InferInputTensor;
use millrace_server::ServerConfig;
use millrace_testkit::{Case, fixture};
use serde_json::{Value, json};

use crate::protocols::ask_by_every_protocol;
use crate::support::grpc::code;
use crate::support::json::{self as text_json, Text};
use crate::support::{Client, Grpc, Repository, TestServer, millrace, output};

/// A server without ONNX Runtime, whatever this machine has.
fn server(repository: &Repository, configure: impl FnOnce(&mut ServerConfig)) -> TestServer {
    TestServer::folder(repository.path(), |config| {
        config.engines.onnxruntime_library = Some("/nowhere/libonnxruntime.so".into());
        configure(config);
    })
}

/// An embedding of texts as long as the network takes them, labels, and scores of pairs.
fn repository() -> Repository {
    Repository::new()
        .copy("text-models/bert_mean/1", "bert_mean", 1)
        .described("bert_mean", "[text]\nmax_tokens = 64\n")
        .copy("text-models/roberta_labels/1", "roberta_labels", 1)
        .copy("text-models/xlm_roberta_ranker/1", "xlm_roberta_ranker", 1)
}

/// The golden cases of `model`, and the texts that their ids are of, where they are of texts alone.
fn cases(model: &str) -> Vec<(Case, Option<Vec<Value>>)> {
    let file = fs::read_to_string(fixture(&format!("cases/text/{model}.json"))).unwrap();
    let file: Value = serde_json::from_str(&file).unwrap();
    let texts = file["cases"].as_array().unwrap().iter().map(|case| {
        // Nobody fills up on the left who is given a text.
        let is_left = case["note"].as_str().unwrap().contains("left");
        case["texts"].as_array().filter(|_| !is_left).cloned()
    });
    Case::folder("cases/text").into_iter().filter(|case| case.model == model).zip(texts).collect()
}

/// The same question in texts: `query` and `text` for a ranker.
fn in_texts(case: &Case, texts: &[Value]) -> Option<Case> {
    let column = |name: &str, pick: &dyn Fn(&Value) -> Option<String>| {
        let texts: Vec<String> = texts.iter().map(pick).collect::<Option<_>>()?;
        let strings: Strings = texts.iter().map(String::as_bytes).collect();
        Some((name.to_owned(), Tensor::from_strings(&[texts.len()], strings).unwrap()))
    };
    let single = |text: &Value| text.as_str().map(str::to_owned);
    let half = |index: usize| move |pair: &Value| pair[index].as_str().map(str::to_owned);
    let inputs = if case.model.contains("ranker") {
        vec![column("query", &half(0))?, column("text", &half(1))?]
    } else {
        vec![column("text", &single)?]
    };
    let outputs = case.outputs.iter().filter(|(name, _)| name == "sentence_embedding" || name == "logits");
    Some(Case { inputs, outputs: outputs.cloned().collect(), ..case.clone() })
}

#[test]
fn texts_give_what_the_author_s_library_gives_by_every_protocol() {
    let repository = repository();
    // Equal bits can only be asked of equal runs.
    let server = server(&repository, |config| config.registry.batching.enabled = false);
    for model in ["bert_mean", "roberta_labels", "xlm_roberta_ranker"] {
        let mut asked = 0;
        for (case, texts) in cases(model) {
            let Some(case) = texts.and_then(|texts| in_texts(&case, &texts)) else { continue };
            let protocols = ask_by_every_protocol(&server, &case);
            for needed in ["OIP gRPC, raw", "OIP REST, JSON", "TFS gRPC, typed", "TFS REST, rows"] {
                assert!(protocols.contains(&needed), "{model} was not asked by {needed}");
            }
            asked += 1;
        }
        assert!(asked > 0, "{model}");
    }
}

/// The body of a request by token ids.
fn ids(case: &Case) -> String {
    let inputs =
        case.inputs.iter().map(|(name, tensor)| format!("\"{name}\": {}", text_json::nested(tensor, Text::Plain)));
    let inputs: Vec<String> = inputs.collect();
    format!("{{\"signature_name\": \"tensors\", \"inputs\": {{{}}}}}", inputs.join(", "))
}

#[test]
fn token_ids_go_by_the_signature_of_tensors() {
    let repository = repository();
    let server = server(&repository, |_| {});
    let mut client = server.client();
    for model in ["bert_mean", "roberta_labels", "xlm_roberta_ranker"] {
        for (case, _) in cases(model) {
            let reply = client.post(&format!("/v1/models/{model}:predict"), ids(&case));
            assert_eq!(reply.status, 200, "{}", reply.text());
            let outputs = &reply.json()["outputs"];
            let got: Vec<(String, Tensor)> = case
                .outputs
                .iter()
                .map(|(name, want)| {
                    let value = if case.outputs.len() == 1 { outputs } else { &outputs[name] };
                    (name.clone(), text_json::tensor(value, want))
                })
                .collect();
            case.check(got.iter().map(|(name, tensor)| (name.as_str(), tensor)));
        }
    }
}

#[test]
fn what_cannot_be_asked_is_refused_by_name_before_anything_runs() {
    // Metrics are the process's: no other test has a model of this name.
    let repository = Repository::new()
        .copy("text-models/bert_mean/1", "refusing", 1)
        .described("refusing", "[text]\nmax_tokens = 64\n");
    let server = server(&repository, |_| {});
    let (mut client, grpc) = (server.client(), Grpc::connect(server.address()));
    let path = "/v1/models/refusing:predict";
    let tensors = |ids: Value, mask: Value| {
        let types: Value = mask
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row.as_array().unwrap().iter().map(|_| 0).collect::<Value>())
            .collect();
        let inputs = json!({"input_ids": ids, "attention_mask": mask, "token_type_ids": types});
        json!({"signature_name": "tensors", "inputs": inputs}).to_string()
    };
    for wrong in [261, -1, 1_i64 << 40] {
        let reply = client.post(path, tensors(json!([[2, 81, 3], [2, wrong, 3]]), json!([[1, 1, 1], [1, 1, 1]])));
        let words = format!("input `input_ids`, instance 1: column 1 is {wrong}; the vocabulary has ids from 0 to 260");
        reply.refuses(400, &words);
    }
    client.post(path, tensors(json!([[2, 81, 3]]), json!([[1, 2, 1]]))).refuses(400, "input `attention_mask`");
    client.post(path, tensors(json!([[2, 81, 3]]), json!([[0, 0, 0]]))).refuses(400, "attention_mask");
    let long: Vec<i64> = vec![81; 65];
    client.post(path, tensors(json!([long]), json!([vec![1; 65]]))).refuses(400, "64");
    let wordy = "wheel ".repeat(80);
    client.post(path, json!({"instances": ["short", wordy]}).to_string()).refuses(400, "input `text`, instance 1: ");
    client.post(path, json!({"instances": [1.5]}).to_string()).refuses(400, "text");
    let unreadable = ModelInferRequest {
        model_name: "refusing".to_owned(),
        inputs: vec![InferInputTensor {
            name: "text".to_owned(),
            datatype: "BYTES".to_owned(),
            shape: vec![1],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![b"\x02\0\0\0\xff\xfe"[..].into()],
        ..ModelInferRequest::default()
    };
    let ended = grpc.ask("/inference.GRPCInferenceService/ModelInfer", &unreadable);
    ended.refuses(code::INVALID_ARGUMENT, "input `text`, instance 0: ");
    assert_eq!(server.metric(&tokens("refusing")), 0.0);
    // And it is well.
    assert_eq!(client.post(path, json!({"instances": ["The wheel turns."]}).to_string()).status, 200);
    server.until_metric(&tokens("refusing"), |tokens| tokens == 6.0);
}

fn tokens(model: &str) -> String {
    format!("millrace_batching_tokens_total{{model=\"{model}\"")
}

fn padding(model: &str) -> String {
    format!("millrace_batching_padding_tokens_total{{model=\"{model}\"")
}

/// Asks for the vectors of `texts` in a connection of its own.
fn embed(server: &TestServer, model: &str, texts: &[&str]) -> thread::JoinHandle<Vec<Value>> {
    let (address, body) = (server.address(), json!({"instances": texts}).to_string());
    let path = format!("/v1/models/{model}:predict");
    thread::spawn(move || {
        let reply = Client::connect(address).post(&path, body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["predictions"].as_array().unwrap().clone()
    })
}

#[track_caller]
fn same(got: &Value, want: &Value) {
    let floats = |value: &Value| serde_json::from_value::<Vec<f32>>(value.clone()).unwrap();
    let (got, want) = (floats(got), floats(want));
    assert_eq!(got.len(), want.len());
    assert!(got.iter().zip(&want).all(|(got, want)| (got - want).abs() < 1e-5), "{got:?} is not {want:?}");
}

const SHORT: &str = "The wheel turns.";
const LONG: &str = "How much water does the mill need in autumn, when the river is slow?";

/// The vector of each of the two when it is alone.
fn alone(server: &TestServer, model: &str) -> [Value; 2] {
    [SHORT, LONG].map(|text| embed(server, model, &[text]).join().unwrap().remove(0))
}

#[test]
fn texts_of_different_lengths_ride_in_one_batch() {
    let repository = Repository::new()
        .copy("text-models/bert_two_forms/1", "packed", 1)
        .copy("text-models/bert_two_forms/1", "padded", 1)
        .described("packed", "backend = \"candle\"\n")
        .described("padded", "backend = \"tract\"\n");
    let lone = server(&repository, |_| {});
    let expected = ["packed", "padded"].map(|model| alone(&lone, model));
    let runs = |model: &str| format!("millrace_batching_batch_rows_count{{model=\"{model}\"");
    ["packed", "padded"].iter().for_each(|model| lone.until_metric(&runs(model), |runs| runs == 2.0));
    // A batch leaves when both have come, and not before: 6 tokens and 30.
    let both = server(&repository, |config| {
        config.registry.batching.max_batch_tokens = NonZeroUsize::new(36).unwrap();
        config.registry.batching.waiting = Waiting::Fixed(Duration::from_secs(600));
    });
    for (model, expected) in ["packed", "padded"].into_iter().zip(expected) {
        let runs = runs(model);
        let count = || [&runs, &tokens(model), &padding(model)].map(|name| both.metric(name));
        let before = count();
        let asked = [SHORT, LONG].map(|text| embed(&both, model, &[text]));
        for (asked, expected) in asked.into_iter().zip(expected) {
            same(&asked.join().unwrap()[0], &expected);
        }
        both.until_metric(&tokens(model), |all| all >= before[1] + 36.0);
        assert_eq!(both.metric(&runs), before[0] + 1.0);
        // An engine that packs them computes no others.
        let [_, all, filled] = count();
        let (all, filled) = (all - before[1], filled - before[2]);
        assert_eq!(all - filled, 36.0, "{model}: {all} tokens, {filled} of them padding");
        assert!(model == "padded" || filled == 0.0, "{filled}");
    }
    let exposed = both.client().get("/metrics").text();
    assert!(exposed.contains(&padding("packed")) && exposed.contains(&padding("padded")), "{exposed}");
}

#[test]
fn a_run_holds_no_more_tokens_than_it_may() {
    let repository = Repository::new()
        .copy("text-models/bert_mean/1", "bounded", 1)
        .described("bounded", "[text]\nmax_tokens = 64\n[batching]\nmax_batch_tokens = 40\n");
    let server = server(&repository, |_| {});
    let [short, long] = alone(&server, "bounded");
    let runs = "millrace_batching_batch_rows_count{model=\"bounded\"";
    server.until_metric(runs, |count| count == 2.0);
    let texts: Vec<&str> = [SHORT, LONG].into_iter().cycle().take(8).collect();
    let vectors = embed(&server, "bounded", &texts).join().unwrap();
    for (index, vector) in vectors.iter().enumerate() {
        same(vector, if index % 2 == 0 { &short } else { &long });
    }
    // Four times 36 tokens, 40 at a time at the most: at least four runs more.
    server.until_metric(&tokens("bounded"), |all| all == 5.0 * 36.0);
    assert!(server.metric(runs) >= 6.0);
}

/// The only version of `model` as the admin port shows it.
fn version(server: &TestServer, model: &str) -> Value {
    server.admin().get(&format!("/admin/models/{model}")).json()["versions"][0].clone()
}

/// Folders with a network in both forms; what it gives in one of them may be more.
const OF_TWO_FORMS: [(&str, &str); 3] =
    [("embedding", "bert_two_forms"), ("pooled", "bert_two_forms_pooled"), ("labels", "bert_labels_two_forms")];

#[test]
fn of_two_forms_in_one_folder_the_faster_serves_and_either_can_be_named() {
    let mut repository = Repository::new();
    for (model, forms) in OF_TWO_FORMS {
        for engine in ["auto", "candle", "tract"] {
            repository = repository
                .copy(&format!("text-models/{forms}/1"), &format!("{model}_{engine}"), 1)
                .described(&format!("{model}_{engine}"), &format!("backend = \"{engine}\"\n"));
        }
    }
    let server = server(&repository, |_| {});
    for (model, forms) in OF_TWO_FORMS {
        let shown = version(&server, &format!("{model}_auto"));
        let tried = shown["engines"]["tried"].as_array().unwrap_or_else(|| panic!("{shown}"));
        let names: Vec<&str> = tried.iter().map(|tried| tried["engine"].as_str().unwrap()).collect();
        assert_eq!(names, ["candle", "tract"], "{shown}");
        for tried in tried {
            assert_ne!(tried["outcome"], "dropped", "{shown}");
        }
        // Nothing is said where they do not differ.
        assert!(tried[1]["difference"]["largest"].as_f64().is_none_or(|largest| largest < 1e-4), "{shown}");
        for engine in ["candle", "tract"] {
            assert_eq!(version(&server, &format!("{model}_{engine}"))["backend"], engine);
        }
        for (case, texts) in cases(forms) {
            let Some(case) = texts.and_then(|texts| in_texts(&case, &texts)) else { continue };
            for engine in ["auto", "candle", "tract"] {
                ask_by_every_protocol(&server, &Case { model: format!("{model}_{engine}"), ..case.clone() });
            }
        }
    }
}

#[test]
fn pictures_go_to_vision_models_of_hugging_face_as_to_any_other() {
    let server = TestServer::folder(&fixture("vision-models"), |_| {});
    for model in ["vit_labels", "resnet_labels"] {
        assert_eq!(version(&server, model)["backend"], "candle");
        let cases: Vec<Case> = Case::folder("cases/pictures").into_iter().filter(|case| case.model == model).collect();
        assert!(!cases.is_empty());
        for case in &cases {
            let path = format!("/v1/models/{model}:predict");
            let instances = text_json::nested(&case.inputs[0].1, Text::Base64);
            let reply = server.client().post(&path, format!("{{\"instances\": {instances}}}"));
            assert_eq!(reply.status, 200, "{}", reply.text());
            let (name, want) = &case.outputs[0];
            let got = text_json::tensor(&reply.json()["predictions"], want);
            case.check([(name.as_str(), &got)]);
        }
    }
}

fn ok(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn inspect_shows_a_text_model_and_predict_asks_it() {
    let path = fixture("text-models/bert_multi_label");
    let shown = ok(&output(millrace().arg("inspect").arg(&path)));
    for part in [
        "backend   candle",
        "inputs    text BYTES[batch]",
        "outputs   logits FP32[batch,3]",
        "text      classification by bert, at most 64 tokens: longer ones are refused",
        "network   input_ids INT64[batch,sequence]",
        "network   token_type_ids INT64[batch,sequence]",
        "batching  rows of different requests share a run, whatever their lengths",
        "precision FP32",
    ] {
        assert!(shown.contains(part), "no `{part}` in\n{shown}");
    }
    let labels = shown.lines().find(|line| line.starts_with("labels    ")).unwrap_or_else(|| panic!("{shown}"));
    assert!(labels.ends_with("(each by itself)") && labels.matches(',').count() == 2, "{labels}");
    let embedding = ok(&output(millrace().arg("inspect").arg(fixture("text-models/bert_mean/1"))));
    assert!(embedding.contains("text      embedding by bert, mean of 32 numbers, at most 24 tokens"), "{embedding}");
    assert!(embedding.contains("\nprompt    "), "{embedding}");

    let sample = ok(&output(millrace().arg("inspect").arg(&path).arg("--sample")));
    assert_eq!(sample.trim_end(), r#"{"instances": ["text"]}"#);
    // A model's folder, a version's folder, and the weights by their name.
    for path in [
        "text-models/bert_multi_label",
        "text-models/bert_multi_label/1",
        "text-models/bert_multi_label/1/model.safetensors",
    ] {
        let mut child =
            millrace().arg("predict").arg(fixture(path)).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(sample.as_bytes()).unwrap();
        let answer: Value = serde_json::from_str(&ok(&child.wait_with_output().unwrap())).unwrap();
        assert_eq!(answer["predictions"][0].as_array().map(Vec::len), Some(3), "{answer}");
    }
}

#[test]
fn check_says_which_word_of_a_text_model_is_wrong() {
    let repository = repository()
        .copy("text-models/roberta_labels/1", "engine", 1)
        .described("engine", "[options]\nprecison = \"FP16\"\n")
        .described("bert_mean", "[text]\nmax_token = 3\n")
        .described("xlm_roberta_ranker", "[text]\nmax_tokens = 65\n");
    let checked = output(millrace().arg("check").arg(repository.path()));
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let problems = String::from_utf8_lossy(&checked.stderr).into_owned();
    for (model, word) in [("bert_mean", "max_token"), ("engine", "precison"), ("xlm_roberta_ranker", "max_tokens")] {
        let line = problems.lines().find(|line| line.starts_with(&format!("problem: {model} version 1: ")));
        assert!(line.is_some_and(|line| line.contains(word)), "{model}: {problems}");
    }
    let shown = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(shown.contains("text BYTES[batch] → logits FP32[batch,3]"), "{shown}");
}
