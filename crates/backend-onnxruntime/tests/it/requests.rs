//! Runs: what is bound, what is copied, whose fault an error is.

use bytes::Bytes;
use millrace_core::{Backend, DType, MemoryFiles, ModelSource, RunContext, RunError, Shape, Strings, Tensor, Wanted};
use std::sync::Arc;

use crate::builder::{field, node, number};
use crate::support::{batch, engine, loaded, run};

#[test]
fn a_lone_input_is_bound_where_it_lies_and_an_unaligned_one_is_copied() {
    let Some(engine) = engine() else { return };
    let model = loaded(engine, "models/half_plus_two/1");
    let numbers: Vec<u8> = [1.0_f32, 2.0, 5.0].iter().flat_map(|number| number.to_le_bytes()).collect();
    for shift in 0..4 {
        let mut shifted = vec![0_u8; shift];
        shifted.extend(&numbers);
        let bytes = Bytes::from(shifted).slice(shift..);
        let x = Tensor::new(DType::Fp32, Shape::new(&[3]).unwrap(), bytes).unwrap();
        let y = run(&*model, &[[x].into_iter().collect()]).unwrap();
        assert_eq!(*y[0][0].elements::<f32>().unwrap(), [2.5, 3.0, 4.5], "shifted by {shift}");
    }
}

#[test]
fn large_answers_lie_in_the_engines_memory_and_outlive_model_and_instance() {
    let Some(engine) = engine() else { return };
    let model = loaded(engine, "models/row_mean/1");
    let x = Tensor::from_vec(&[4, 1000], (0..4000_u16).map(f32::from).collect()).unwrap();
    let answers = run(&*model, &[[x.clone()].into_iter().collect()]).unwrap();
    drop(model);
    let doubled: Vec<f32> = x.elements::<f32>().unwrap().iter().map(|value| value * 2.0).collect();
    // Another model's runs use the memory that was given back.
    let other = loaded(engine, "models/row_mean/1");
    for _ in 0..10 {
        drop(run(&*other, &[[x.clone()].into_iter().collect()]).unwrap());
    }
    assert_eq!(*answers[0][1].elements::<f32>().unwrap(), doubled);
}

#[test]
fn strings_keep_every_byte() {
    let Some(engine) = engine() else { return };
    let model = loaded(engine, "models/identity_string/1");
    let words = [&b"plain"[..], b"", b"with\0zero", "\u{e9}t\u{e9}".as_bytes()];
    let x = Tensor::from_strings(&[1, 4], words.iter().collect::<Strings>()).unwrap();
    let y = run(&*model, &[[x.clone()].into_iter().collect()]).unwrap();
    assert_eq!(y[0][0].strings(), x.strings());
}

#[test]
fn an_output_that_is_an_input_is_a_copy_of_it() {
    let Some(engine) = engine() else { return };
    // ir_version 8; graph { name "g"; input x FP32[N,400]; output x }; opset 15
    let value = b"\n\x01x\x12\x10\n\x0e\x08\x01\x12\n\n\x03\x12\x01N\n\x03\x08\x90\x03";
    let graph = [&b"\x12\x01g"[..], b"\x5a\x15", value, b"\x62\x15", value].concat();
    let length = u8::try_from(graph.len()).unwrap();
    let model = [&b"\x08\x08\x3a"[..], &[length], &graph, b"\x42\x02\x10\x0f"].concat();
    let files = MemoryFiles::default().with("model.onnx", model);
    let model = engine.load(&ModelSource::new("through".parse().unwrap(), 1, Arc::new(files))).unwrap();
    let x = Tensor::from_vec(&[1, 400], (0..400_u16).map(f32::from).collect()).unwrap();
    let place = x.bytes().unwrap().as_ptr();
    let y = run(&*model, &[[x.clone()].into_iter().collect()]).unwrap();
    assert_ne!(y[0][0].bytes().unwrap().as_ptr(), place);
    assert_eq!(*y[0][0].elements::<f32>().unwrap(), *x.elements::<f32>().unwrap());
}

#[test]
fn a_value_that_an_operator_refuses_is_the_callers_fault() {
    let Some(engine) = engine() else { return };
    let model = loaded(engine, "extra/gather_tokens/1");
    let ids = Tensor::from_vec(&[1, 1], vec![99_i64]).unwrap();
    let error = run(&*model, &[[ids].into_iter().collect()]).unwrap_err();
    let RunError::InvalidInput(text) = error else { panic!("{error:?}") };
    assert!(text.contains("Gather") && text.contains("99") && !text.contains("onnxruntime"), "{text}");
}

#[test]
fn outputs_that_nobody_wants_stay_away_and_cancelled_runs_do_not_start() {
    let Some(engine) = engine() else { return };
    let model = loaded(engine, "models/row_mean/1");
    let x = Tensor::from_vec(&[1, 2], vec![1.0_f32, 3.0]).unwrap();
    let batch = batch(&*model, &[[x].into_iter().collect()]);
    let only_second = Wanted::Only([1].into_iter().collect());
    let context = RunContext { wanted: &only_second, ..RunContext::plain() };
    let outputs = model.instance().unwrap().run(&batch, &context).unwrap();
    assert!(outputs.0[0].is_none() && outputs.0[1].is_some());
    let context = RunContext { cancelled: &|| true, ..RunContext::plain() };
    assert!(matches!(model.instance().unwrap().run(&batch, &context), Err(RunError::Cancelled)));
}

#[test]
fn rows_that_influence_one_another_are_never_batched_and_facts_say_why() {
    let Some(engine) = engine() else { return };
    for mixing in ["extra/cross_rows/1", "extra/quantized_dynamic/1"] {
        let model = loaded(engine, mixing);
        assert!(!model.signature().is_batched(), "{mixing}");
        assert!(model.facts().properties.contains_key("not batched"), "{mixing}");
    }
}

/// A model of one node, with an input and an output of these dtypes (as ONNX numbers them) and the axes N and `sizes`.
fn of_one_node(input: u8, sizes: &[usize], node: &[u8], initializer: &[u8]) -> ModelSource {
    let value = |name: &str, dtype: u8| {
        let fixed = |size: &usize| {
            let (low, middle, high) = (size & 0x7f, size >> 7 & 0x7f, size >> 14);
            let [low, middle, high] =
                [low | 0x80, middle | 0x80, high].map(|part| u8::try_from(part).expect("seven bits"));
            field(1, &[1 << 3, low, middle, high])
        };
        let axes: Vec<u8> = sizes.iter().flat_map(fixed).collect();
        let shape = [field(1, &field(2, b"N")), axes].concat();
        let tensor = [number(1, dtype), field(2, &shape)].concat();
        [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
    };
    let mut graph = [field(1, node), field(2, b"g"), field(11, &value("x", input)), field(12, &value("y", 1))].concat();
    if !initializer.is_empty() {
        graph.extend(field(5, initializer));
    }
    let model = [number(1, 8), field(7, &graph), field(8, &number(2, 15))].concat();
    let files = MemoryFiles::default().with("model.onnx", model);
    ModelSource::new("one".parse().expect("a name"), 1, Arc::new(files))
}

#[test]
fn large_rows_are_tried_and_what_cannot_be_tried_says_nothing_against_rows() {
    let Some(engine) = engine() else { return };
    // A picture of 3 x 640 x 640 numbers.
    let picture = of_one_node(1, &[3, 640, 640], &node(&["x"], "y", "Relu", &[]), &[]);
    let model = engine.load(&picture).unwrap();
    assert!(model.signature().is_batched(), "{:?}", model.facts().properties);
    // Any index but 0 is outside of the table.
    let table = [number(1, 1), number(2, 1), field(8, b"table"), field(9, &1.5_f32.to_le_bytes())].concat();
    let lookup = of_one_node(7, &[20], &node(&["table", "x"], "y", "Gather", &[]), &table);
    let model = engine.load(&lookup).unwrap();
    assert!(!model.signature().is_batched());
    let properties = model.facts().properties;
    assert!(properties.contains_key("rows untried") && !properties.contains_key("not batched"), "{properties:?}");
}

#[test]
fn axes_without_a_name_are_the_batch_where_a_trial_shows_it() {
    let Some(engine) = engine() else { return };
    let model = loaded(engine, "extra/unnamed_dims/1");
    assert!(model.signature().is_batched(), "{:?}", model.signature());
}

#[test]
fn facts_tell_operators_weights_and_the_library() {
    let Some(engine) = engine() else { return };
    let facts = loaded(engine, "models/fraud/1").facts();
    assert!(facts.nodes.is_some_and(|nodes| nodes > 0) && !facts.operators.is_empty());
    let bytes = facts.weight_bytes.unwrap();
    assert_eq!(facts.weight_types.values().sum::<u64>(), bytes);
    assert!(facts.weight_types["FP32"] > 4 * 10 * 64);
    assert!(facts.properties["library"].starts_with("onnxruntime 1."));
    assert_eq!(facts.properties["execution providers"], "cpu");
}
