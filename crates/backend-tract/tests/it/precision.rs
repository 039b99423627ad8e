//! The same networks in every precision that files come in, against ONNX Runtime's answers.

use std::fs;
use std::path::Path;

use half::{bf16, f16};
use millrace_core::{DType, Tensor};
use millrace_testkit::fixture;
use prost::Message;
use tract_onnx::pb::TensorProto;
use tract_onnx::pb::tensor_proto::DataType;

use crate::builder::Onnx;
use crate::support::{arranged, loaded, run};

/// A tensor as ONNX writes it into a file, and its name.
fn read(path: &Path) -> (String, Tensor) {
    let proto = TensorProto::decode(fs::read(path).unwrap().as_slice()).unwrap();
    let sizes: Vec<usize> = proto.dims.iter().map(|&size| usize::try_from(size).unwrap()).collect();
    let dtype = match DataType::try_from(proto.data_type).unwrap() {
        DataType::Float => DType::Fp32,
        DataType::Float16 => DType::Fp16,
        other => panic!("{}: {}", path.display(), other.as_str_name()),
    };
    let shape = millrace_core::Shape::new(&sizes).unwrap();
    (proto.name, Tensor::new(dtype, shape, proto.raw_data.into()).unwrap())
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    match tensor.dtype() {
        DType::Fp32 => tensor.elements::<f32>().unwrap().to_vec(),
        DType::Fp16 => tensor.elements::<f16>().unwrap().iter().map(|number| number.to_f32()).collect(),
        DType::Bf16 => tensor.elements::<bf16>().unwrap().iter().map(|number| number.to_f32()).collect(),
        other => panic!("{other}"),
    }
}

/// Checks that every case of `model` comes out within `tolerance` of the largest number of the answer, and that its
/// weights are told as the file has them.
fn check(model: &str, tolerance: f32, types: &[&str]) {
    let served = loaded(&format!("precision/{model}/1"));
    let facts = served.facts();
    for r#type in types {
        assert!(facts.weight_types.get(*r#type).is_some_and(|bytes| *bytes > 0), "{model}: {:?}", facts.weight_types);
    }
    assert_eq!(facts.weight_bytes, Some(facts.weight_types.values().sum()));
    let folder = fixture(&format!("precision/{model}/cases"));
    let cases = fs::read_dir(&folder).unwrap().count();
    assert!(cases > 1);
    for case in 0..cases {
        let folder = folder.join(case.to_string());
        let (asked, (_, want)) = (read(&folder.join("input_0.pb")), read(&folder.join("output_0.pb")));
        let (inputs, _) = arranged(&*served, &[asked]);
        let got = run(&*served, &[inputs]).unwrap().remove(0).remove(0);
        assert_eq!((got.dtype(), got.shape()), (want.dtype(), want.shape()), "{model} {case}");
        let (got, want) = (numbers(&got), numbers(&want));
        let most = want.iter().fold(0.0_f32, |most, number| most.max(number.abs()));
        for (got, want) in got.iter().zip(&want) {
            assert!((got - want).abs() <= tolerance * most, "{model} {case}: got {got}, want {want}");
        }
    }
}

#[test]
fn full_precision_is_what_onnxruntime_says() {
    check("network_fp32", 1e-5, &["FP32"]);
    check("products_fp32", 1e-5, &["FP32"]);
}

#[test]
fn half_precision_runs_and_is_as_near_as_its_last_bits() {
    check("network_fp16", 2e-3, &["FP16"]);
}

#[test]
fn bf16_weights_run_and_lose_nothing_more() {
    check("products_bf16", 1e-5, &["BF16"]);
}

#[test]
fn quantised_networks_are_within_a_step() {
    // Of 255 over the range of an answer: one rounding of the last step, and one of the step before it.
    check("network_qdq", 2.0 / 127.0, &["INT8", "INT32"]);
    check("products_dynamic", 2.0 / 127.0, &["INT8"]);
}

#[test]
fn quantisation_leaves_the_answer_near_full_precision() {
    for (quantised, full, far) in [("network_qdq", "network_fp32", 0.1), ("products_dynamic", "products_fp32", 0.1)] {
        let answer = |model: &str| {
            let served = loaded(&format!("precision/{model}/1"));
            let asked = read(&fixture(&format!("precision/{full}/cases/1/input_0.pb")));
            let (inputs, _) = arranged(&*served, &[asked]);
            numbers(&run(&*served, &[inputs]).unwrap()[0][0])
        };
        let (got, want) = (answer(quantised), answer(full));
        let most = want.iter().fold(0.0_f32, |most, number| most.max(number.abs()));
        let worst = got.iter().zip(&want).fold(0.0_f32, |worst, (got, want)| worst.max((got - want).abs()));
        assert!(worst <= far * most, "{quantised}: {worst} of {most}");
        assert!(worst > 0.0, "{quantised} is quantised, so its answer must differ");
    }
}

#[test]
fn bf16_goes_in_and_out_as_itself() {
    let served = loaded("bad-models/bf16/1");
    let asked = Tensor::from_vec(
        &[2, 4],
        [0.5_f32, -3.0, 1e30, f32::INFINITY, 0.0, -0.0, 7.0, 0.1].map(bf16::from_f32).to_vec(),
    );
    let asked = asked.unwrap();
    let (inputs, _) = arranged(&*served, &[("x".to_owned(), asked.clone())]);
    let got = run(&*served, &[inputs.clone(), inputs]).unwrap();
    assert_eq!(got[0][0], asked);
    assert_eq!(got[1][0], asked);
}

#[test]
fn bf16_products_are_sums_in_f32() {
    let model = Onnx::default()
        .input("x", DataType::Bfloat16, &["N", "2"])
        .floats("wide", &[2, 1], &[0.5, 256.0])
        .node("Cast", &["wide"], &["w"], &[("to", &[DataType::Bfloat16 as i64])])
        .node("MatMul", &["x", "w"], &["y"], &[])
        .output("y", DataType::Bfloat16, &["N", "1"]);
    let served =
        millrace_core::Backend::load(&millrace_backend_tract::TractBackend::default(), &model.source()).unwrap();
    assert_eq!(served.signature().outputs()[0].dtype, DType::Bf16);
    let asked = Tensor::from_vec(&[1, 2], [2.0_f32, 3.0].map(bf16::from_f32).to_vec()).unwrap();
    let (inputs, _) = arranged(&*served, &[("x".to_owned(), asked)]);
    // 769 has more bits than BF16: 768 is the nearest.
    assert_eq!(numbers(&run(&*served, &[inputs]).unwrap()[0][0]), [768.0]);
}

#[test]
fn halves_too_large_as_f32_are_refused() {
    let mut source = millrace_testkit::fixture_source("precision/network_fp16/1");
    source.memory_budget = 40_000;
    let error = millrace_core::Backend::load(&millrace_backend_tract::TractBackend::default(), &source).unwrap_err();
    assert_eq!(error.kind(), millrace_core::LoadErrorKind::TooLarge, "{error}");
}
