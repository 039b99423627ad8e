use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use millrace_core::{Backend, LoadError, MemoryFiles, ModelSource};
use millrace_huggingface::Config;
use millrace_testkit::{Case, fixture_source};
use serde_json::{Value, json};

use super::network;
use crate::CandleBackend;
use crate::architecture::Architecture;
use crate::backend::Loading;
use crate::device::Place;
use crate::nn::Kernels;
use crate::options::Options;
use crate::weights::Weights;

const MODELS: [&str; 5] = ["resnet_basic", "resnet_features", "resnet_labels", "vit_features", "vit_labels"];

fn source(model: &str) -> ModelSource {
    fixture_source(&format!("vision-models/{model}/1"))
}

fn loading(source: &ModelSource) -> Loading<'_> {
    let place = Place::cpu();
    let weights = Weights::open(source, &place, None).unwrap();
    let config = Config::parse(&source.files.read("config.json").unwrap()).unwrap();
    Loading { source, options: Options::read(&source.options).unwrap(), place, config, weights }
}

/// What runs on cards, tried here.
#[test]
fn candles_operations_give_what_our_own_do() {
    for model in MODELS {
        let source = source(model);
        let loading = loading(&source);
        let architecture = Architecture::of(loading.config.model_type()).unwrap();
        let networks = [Kernels::Own, Kernels::Candle].map(|kernels| network(architecture, &loading, kernels).unwrap());
        for case in Case::folder("cases/vision").into_iter().filter(|case| case.model == model) {
            let pixels = &case.inputs[0].1;
            let pixels =
                Tensor::from_slice(&pixels.elements::<f32>().unwrap(), &**pixels.shape(), &Device::Cpu).unwrap();
            let run =
                |network: &super::Network| network.forward(&pixels, &|_| true, &mut loading.place.staging()).unwrap();
            let [own, candle] = networks.each_ref().map(run);
            assert_eq!(own.len(), case.outputs.len());
            for (own, candle) in own.into_iter().zip(candle) {
                let (own, candle) = (own.unwrap(), candle.unwrap());
                let most = (own - candle).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
                let most = most.to_dtype(DType::F32).unwrap().to_scalar::<f32>().unwrap();
                assert!(most < 2e-5, "{model}: {most}");
            }
        }
    }
}

/// The files of `model` with its `config.json` changed.
fn with_config(model: &str, change: impl FnOnce(&mut Value)) -> ModelSource {
    let mut source = source(model);
    let mut config: Value = serde_json::from_slice(&source.files.read("config.json").unwrap()).unwrap();
    change(&mut config);
    let files = MemoryFiles::default().with("config.json", serde_json::to_vec(&config).unwrap());
    let weights = source.files.read("model.safetensors").unwrap();
    source.files = Arc::new(files.with("model.safetensors", weights));
    source
}

fn refused(source: &ModelSource) -> LoadError {
    CandleBackend::default().load(source).map(drop).unwrap_err()
}

fn check(model: &str, key: &str, value: Value, words: &[&str]) {
    let error = refused(&with_config(model, |config| config[key] = value)).to_string();
    assert!(words.iter().all(|word| error.contains(word)), "{key}: {error}");
}

#[test]
fn weights_that_do_not_fit_the_sizes_are_refused_by_name() {
    check("vit_labels", "num_hidden_layers", json!(3), &["vit.encoder.layer.2.", "no tensor"]);
    check("vit_labels", "hidden_size", json!(64), &["classifier.weight", "[5, 64]", "[5, 32]"]);
    check("vit_labels", "image_size", json!(32), &["position_embeddings", "[1, 17, 32]", "[1, 10, 32]"]);
    check("vit_labels", "image_size", json!(8000), &["1000000 patches", "16384"]);
    check("vit_labels", "id2label", json!({"0": "a", "1": "b"}), &["classifier", "[2", "[5"]);
    check("vit_labels", "qkv_bias", json!(false), &["qkv_bias", "biases"]);
    check("vit_features", "qkv_bias", json!(true), &["query.bias", "no tensor"]);
    check("vit_features", "pooler_output_size", json!(16), &["pooler.dense", "[16"]);
    check("resnet_labels", "depths", json!([2, 2]), &["resnet.encoder.stages.1.layers.1.", "no tensor"]);
    check("resnet_labels", "layer_type", json!("basic"), &["layer.0.convolution.weight", "[16, 8, 3, 3]"]);
    check("resnet_labels", "num_channels", json!(1), &["embedder.embedder.convolution.weight", "[8, 1, 7, 7]"]);
}

#[test]
fn layers_beyond_those_of_the_configuration_are_left_out_and_told() {
    let layers = |model: &str, changes: &[(&str, Value)]| {
        let source = with_config(model, |config| {
            changes.iter().for_each(|(key, value)| config[*key] = value.clone());
        });
        CandleBackend::default().load(&source).unwrap().facts().properties["layers"].clone()
    };
    assert_eq!(layers("vit_labels", &[]), "2");
    assert_eq!(layers("vit_labels", &[("num_hidden_layers", json!(1))]), "1 of 2 in the weights");
    assert_eq!(layers("resnet_basic", &[]), "4");
    assert_eq!(layers("resnet_basic", &[("depths", json!([2, 1]))]), "3 of 4 in the weights");
    // A stage that is not named at all.
    let one = [("depths", json!([1])), ("hidden_sizes", json!([16]))];
    assert_eq!(layers("resnet_features", &one), "1 of 3 in the weights");
}

#[test]
fn a_network_whose_head_is_not_asked_for_gives_its_features() {
    let source = with_config("vit_labels", |config| config["architectures"] = json!(["ViTModel"]));
    let model = CandleBackend::default().load(&source).unwrap();
    let outputs: Vec<String> = model.signature().outputs().iter().map(ToString::to_string).collect();
    assert_eq!(outputs, ["last_hidden_state FP32[batch,10,32]"]);
}

#[test]
fn pictures_that_would_take_the_machines_memory_are_refused() {
    let model = CandleBackend::default().load(&source("resnet_labels")).unwrap();
    let check = |height: usize, width: usize| {
        let admission =
            millrace_core::Admission { rows: 1, group: millrace_core::Group([height, width].into_iter().collect()) };
        model.admit(&admission)
    };
    check(1, 1).unwrap();
    check(2000, 3000).unwrap();
    assert!(check(0, 5).is_err());
    let error = check(1 << 20, 1 << 20).unwrap_err().to_string();
    assert!(error.contains("1048576 by 1048576"), "{error}");
    assert!(check(usize::MAX, usize::MAX).is_err());
}

#[test]
fn facts_say_what_was_loaded() {
    let facts = CandleBackend::default().load(&source("resnet_basic")).unwrap().facts();
    assert_eq!(facts.properties["architecture"], "ResNetForImageClassification");
    assert_eq!(facts.properties["precision"], "FP32");
    assert!(facts.weight_types["FP32"] > 100_000 && facts.weight_bytes.unwrap() > 100_000);
}
