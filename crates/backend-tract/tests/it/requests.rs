//! Requests that fit the signature's names and types, and what becomes of them.

use millrace_backend_tract::{TractBackend, TractConfig};
use millrace_core::{Backend, Batch, LoadErrorKind, Model, RunContext, RunError, Strings, Tensor, TensorList};
use millrace_testkit::fixture_source;
use tract_onnx::pb::tensor_proto::DataType;

use crate::builder::Onnx;
use crate::support::{loaded, run};

fn f32s(sizes: &[usize], data: Vec<f32>) -> Tensor {
    Tensor::from_vec(sizes, data).unwrap()
}

/// The signature in words: `x FP32[N,4] -> y FP32[N,3]`.
fn signature(model: &dyn Model) -> String {
    let list =
        |specs: &[millrace_core::TensorSpec]| specs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("{} -> {}", list(model.signature().inputs()), list(model.signature().outputs()))
}

#[test]
fn signatures_show_names_types_and_symbols() {
    let shown = |dir: &str| signature(&*loaded(dir));
    assert_eq!(shown("models/fraud/1"), "transaction FP32[N,10] -> probability FP32[N,1]");
    assert_eq!(shown("models/sum_diff/1"), "a INT32[N], b INT32[N,2] -> s INT32[N], d INT32[N]");
    assert_eq!(shown("models/row_mean/1"), "x FP32[N,L] -> mean FP32[N], doubled FP32[N,L]");
    assert_eq!(shown("models/scale_scalar/1"), "x FP32[] -> y FP32[]");
    assert_eq!(shown("extra/unnamed_dims/1"), "x FP32[N,4] -> y FP32[N,4]");
    assert_eq!(shown("extra/value_info_symbols/1"), "x FP32[N,4] -> y FP32[N,3]");
}

#[test]
fn a_smaller_output_is_an_expression_of_the_input() {
    let model = loaded("extra/shrinking_conv/1");
    let image = |side: usize| f32s(&[1, 1, side, side], vec![0.5; side * side]);
    let check = |side: usize| {
        let admission = model.signature().check(&[image(side)]).map_err(|error| error.to_string())?;
        model.admit(&admission).map_err(|error| error.to_string())
    };
    assert_eq!(check(11), Ok(()));
    let outputs = run(&*model, &[[image(11)].into_iter().collect()]).unwrap();
    assert_eq!(outputs[0][0].shape()[..], [1, 1, 1, 1]);
    // The engine reads outside its memory here: the process would be gone.
    for side in 1..=8 {
        let text = check(side).unwrap_err();
        assert!(text.contains("too small") && text.contains('-'), "{side}: {text}");
    }
}

#[test]
fn a_size_inside_the_model_is_checked_even_where_the_output_hides_it() {
    // Two convolutions of width 5 shrink L by 8; the mean over what is left has no axis that tells.
    let weights = vec![0.1; 5];
    let model = Onnx::default()
        .input("x", DataType::Float, &["N", "1", "L"])
        .floats("w", &[1, 1, 5], &weights)
        .node("Conv", &["x", "w"], &["a"], &[])
        .node("Conv", &["a", "w"], &["b"], &[])
        .node("ReduceMean", &["b"], &["y"], &[("axes", &[1, 2]), ("keepdims", &[0])])
        .output("y", DataType::Float, &["N"]);
    let model = TractBackend::default().load(&model.source()).unwrap();
    assert_eq!(signature(&*model), "x FP32[N,1,L] -> y FP32[N]");
    let admit = |length: usize| {
        let admission = model.signature().check(&[f32s(&[1, 1, length], vec![1.0; length])]).unwrap();
        model.admit(&admission).map_err(|error| error.to_string())
    };
    assert_eq!(admit(9), Ok(()));
    assert!(admit(3).unwrap_err().contains("would be -"), "{:?}", admit(3));
}

#[test]
fn a_request_whose_inner_tensors_would_not_fit_in_memory_is_refused() {
    // Every pair of positions: a request of a few bytes per position asks for their square.
    let model = Onnx::default()
        .input("x", DataType::Float, &["N", "L"])
        .ints("last", &[2])
        .ints("first", &[1])
        .node("Unsqueeze", &["x", "last"], &["column"], &[])
        .node("Unsqueeze", &["x", "first"], &["row"], &[])
        .node("Mul", &["column", "row"], &["pairs"], &[])
        .node("ReduceMax", &["pairs"], &["y"], &[("axes", &[1, 2]), ("keepdims", &[0])])
        .output("y", DataType::Float, &["N"]);
    let config = TractConfig { max_tensor_bytes: 1 << 20, ..TractConfig::default() };
    let model = TractBackend::new(config).load(&model.source()).unwrap();
    let admit = |length: usize| {
        let admission = model.signature().check(&[f32s(&[1, length], vec![1.0; length])]).unwrap();
        model.admit(&admission).map_err(|error| error.to_string())
    };
    assert_eq!(admit(512), Ok(()));
    assert!(admit(513).unwrap_err().contains("the limit is 1048576"), "{:?}", admit(513));
}

#[test]
fn a_token_outside_the_vocabulary_is_the_callers_error_and_the_next_run_works() {
    let model = loaded("extra/gather_tokens/1");
    let mut instance = model.instance().unwrap();
    let mut ask = |id: i64| {
        let ids = Tensor::from_vec(&[1, 2], vec![3, id]).unwrap();
        instance.run(&Batch::single([ids].into_iter().collect(), 1), &RunContext::plain())
    };
    for outside in [16, -17, i64::MAX, i64::MIN] {
        let Err(RunError::InvalidInput(text)) = ask(outside) else { panic!("{outside} was not refused") };
        assert_eq!(text, format!("input `ids`: {outside} is out of range; expected -16 to 15"));
    }
    assert!(ask(15).is_ok() && ask(-16).is_ok());
}

#[test]
fn a_panic_of_the_engine_is_a_failed_run_and_the_instance_lives_on() {
    // The indices are computed, so that only the run can tell: 2x selects from 4 rows.
    let model = Onnx::default()
        .input("x", DataType::Int64, &["N"])
        .ints("two", &[2])
        .floats("table", &[4, 1], &[0.0, 1.0, 2.0, 3.0])
        .node("Mul", &["x", "two"], &["index"], &[])
        .node("Gather", &["table", "index"], &["y"], &[("axis", &[0])])
        .output("y", DataType::Float, &["N", "1"]);
    let model = TractBackend::default().load(&model.source()).unwrap();
    let mut instance = model.instance().unwrap();
    let mut ask = |x: i64| {
        let x = Tensor::from_vec(&[1], vec![x]).unwrap();
        instance.run(&Batch::single([x].into_iter().collect(), 1), &RunContext::plain())
    };
    for _ in 0..3 {
        assert!(matches!(ask(2), Err(RunError::Failed(_))));
        let outputs = ask(1).unwrap();
        assert_eq!(outputs.0[0].as_ref().unwrap().elements::<f32>().unwrap()[..], [2.0]);
    }
}

#[test]
fn strings_that_are_not_utf8_are_the_callers_error() {
    let model = loaded("models/identity_string/1");
    let strings: Strings = [&b"a"[..], b"b", b"\xff", b"d"].into_iter().collect();
    let x = Tensor::from_strings(&[1, 4], strings).unwrap();
    let Err(RunError::InvalidInput(text)) = run(&*model, &[[x].into_iter().collect()]) else { panic!("it was taken") };
    assert!(text.contains("input `x`") && text.contains("UTF-8"), "{text}");
}

#[test]
fn models_whose_rows_are_not_independent_are_never_batched_and_say_why() {
    for dir in ["extra/cross_rows/1", "extra/quantized_dynamic/1"] {
        let model = loaded(dir);
        assert!(!model.signature().is_batched(), "{dir}");
        let facts = model.facts();
        let why = facts.properties.get("not batched").unwrap_or_else(|| panic!("{dir}: {facts:?}"));
        assert!(why.contains("works across the rows"), "{why}");
    }
    for dir in ["extra/no_batch/1", "extra/fixed_batch/1", "extra/output_const/1", "models/scale_scalar/1"] {
        assert!(!loaded(dir).signature().is_batched(), "{dir}");
    }
    for dir in ["models/fraud/1", "models/digits/1", "models/row_mean/1", "extra/gather_tokens/1", "extra/quantized/1"]
    {
        assert!(loaded(dir).signature().is_batched(), "{dir}");
    }
}

#[test]
fn a_softmax_or_a_slice_over_the_batch_is_found() {
    let over_rows = |node: fn(Onnx) -> Onnx| {
        let model = Onnx::default().input("x", DataType::Float, &["N", "4"]);
        let model = node(model).output("y", DataType::Float, &["N", "4"]);
        TractBackend::default().load(&model.source()).unwrap().signature().is_batched()
    };
    assert!(!over_rows(|model| model.node("Softmax", &["x"], &["y"], &[("axis", &[0])])));
    assert!(over_rows(|model| model.node("Softmax", &["x"], &["y"], &[("axis", &[1])])));
    // Each row minus the first one.
    assert!(!over_rows(|model| {
        let model = model.ints("first", &[0]).node("Gather", &["x", "first"], &["row"], &[("axis", &[0])]);
        model.node("Sub", &["x", "row"], &["y"], &[])
    }));
}

#[test]
fn a_recurrent_net_begins_each_run_afresh() {
    let weights =
        |count: usize| (0..count).map(|i| f32::from(u8::try_from(i % 7).unwrap()) * 0.1 - 0.3).collect::<Vec<_>>();
    let model = Onnx::default()
        .input("x", DataType::Float, &["5", "1", "3"])
        .floats("w", &[1, 16, 3], &weights(48))
        .floats("r", &[1, 16, 4], &weights(64))
        .node("LSTM", &["x", "w", "r"], &["all", "last"], &[("hidden_size", &[4])])
        .output("last", DataType::Float, &["1", "1", "4"]);
    let model = TractBackend::default().load(&model.source()).unwrap();
    let mut instance = model.instance().unwrap();
    let mut ask = || {
        let x = f32s(&[5, 1, 3], weights(15));
        let outputs = instance.run(&Batch::single([x].into_iter().collect(), 1), &RunContext::plain()).unwrap();
        outputs.0[0].as_ref().unwrap().elements::<f32>().unwrap().into_owned()
    };
    let first = ask();
    assert!(first.iter().any(|value| *value != 0.0));
    assert_eq!(ask(), first, "the engine keeps the hidden value of the run before");
}

#[test]
fn a_run_nobody_waits_for_stops() {
    let model = loaded("models/half_plus_two/1");
    let batch = Batch::single([f32s(&[1], vec![1.0])].into_iter().collect(), 1);
    let context = RunContext { cancelled: &|| true, ..RunContext::plain() };
    assert!(matches!(model.instance().unwrap().run(&batch, &context), Err(RunError::Cancelled)));
}

#[test]
fn facts_and_memory_tell_what_was_loaded() {
    let model = loaded("models/fraud/1");
    let facts = model.facts();
    assert_eq!(facts.operators.get("Gemm"), Some(&3), "{facts:?}");
    assert!(facts.nodes.is_some_and(|nodes| nodes >= 5) && facts.nodes_optimised.is_some(), "{facts:?}");
    let weights = 4 * (10 * 64 + 64 + 64 * 32 + 32 + 32 + 1);
    assert!(facts.weight_bytes.is_some_and(|bytes| bytes >= weights), "{facts:?}");
    assert!(facts.properties.contains_key("opset ai.onnx"), "{facts:?}");
    assert!(model.memory_bytes() >= weights);
}

#[test]
fn a_memory_budget_below_the_weights_is_kept() {
    let mut source = fixture_source("models/fraud/1");
    source.memory_budget = 20_000;
    let error = TractBackend::default().load(&source).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::TooLarge, "{error}");
}

/// Whether a model of `x FP32[N,4]` that goes through `nodes` to `y` is batched; else why not.
fn batched(nodes: fn(Onnx) -> Onnx) -> Result<(), String> {
    let model = nodes(Onnx::default().input("x", DataType::Float, &["N", "4"]));
    let model = model.output("y", DataType::Float, &["N", "4"]);
    let model = TractBackend::default().load(&model.source()).unwrap();
    if model.signature().is_batched() { Ok(()) } else { Err(model.facts().properties["not batched"].clone()) }
}

#[test]
fn rows_that_change_each_other_in_ways_no_axis_shows_are_found_by_trying() {
    let found = |nodes: fn(Onnx) -> Onnx| {
        let why = batched(nodes).unwrap_err();
        assert!(why.contains("output `y`") && why.contains("not what they are alone"), "{why}");
    };
    // Columns and rows change places: each answer holds values of other rows.
    found(|model| {
        let model = model.ints("turned", &[4, -1]).node("Reshape", &["x", "turned"], &["z"], &[]);
        model.node("Transpose", &["z"], &["y"], &[("perm", &[1, 0])])
    });
    // A window that slides over the rows.
    found(|model| {
        let model = model.ints("image", &[1, 1, -1, 4]).ints("flat", &[-1, 4]).floats("w", &[1, 1, 3, 1], &[1.0; 3]);
        let model = model.node("Reshape", &["x", "image"], &["z"], &[]);
        let model = model.node("Conv", &["z", "w"], &["c"], &[("pads", &[1, 0, 1, 0])]);
        model.node("Reshape", &["c", "flat"], &["y"], &[])
    });
    found(|model| {
        let model = model.ints("image", &[1, 1, -1, 4]).ints("flat", &[-1, 4]);
        let model = model.node("Reshape", &["x", "image"], &["z"], &[]);
        let window: [(&str, &[i64]); 2] = [("pads", &[1, 0, 1, 0]), ("kernel_shape", &[3, 1])];
        model.node("MaxPool", &["z"], &["c"], &window).node("Reshape", &["c", "flat"], &["y"], &[])
    });
    // Each row divided by how many there are.
    found(|model| {
        let model = model.ints("first", &[0]).node("Shape", &["x"], &["sizes"], &[]);
        let model = model.node("Gather", &["sizes", "first"], &["n"], &[]);
        model.node("Cast", &["n"], &["count"], &[("to", &[1])]).node("Div", &["x", "count"], &["y"], &[])
    });
    // What is left of a row depends on its place.
    found(|model| model.node("Trilu", &["x"], &["y"], &[]));
    // And some that only look like those.
    assert_eq!(batched(|model| model.node("Relu", &["x"], &["y"], &[])), Ok(()));
    assert_eq!(
        batched(|model| {
            let model =
                model.ints("image", &[-1, 1, 2, 2]).ints("flat", &[-1, 4]).floats("w", &[1, 1, 3, 3], &[0.5; 9]);
            let model = model.node("Reshape", &["x", "image"], &["z"], &[]);
            let model = model.node("Conv", &["z", "w"], &["c"], &[("pads", &[1, 1, 1, 1])]);
            model.node("Reshape", &["c", "flat"], &["y"], &[])
        }),
        Ok(())
    );
}

#[test]
fn unnamed_first_axes_of_several_inputs_are_one_batch_where_rows_stay_apart() {
    let load = |first: [&str; 2], op: &str, attributes: &[(&str, &[i64])]| {
        let model = Onnx::default()
            .input("a", DataType::Float, &[first[0], "4"])
            .input("b", DataType::Float, &[first[1], "4"])
            .node(op, &["a", "b"], &["y"], attributes)
            .output("y", DataType::Float, &["?", "?"]);
        TractBackend::default().load(&model.source())
    };
    for (op, attributes, output) in
        [("Add", &[][..], "y FP32[N,4]"), ("Concat", &[("axis", &[1_i64][..])][..], "y FP32[N,8]")]
    {
        let model = load(["?", "?"], op, attributes).unwrap();
        let signature = model.signature();
        assert!(signature.is_batched(), "{op}");
        assert_eq!(signature.inputs()[1].to_string(), "b FP32[N,4]");
        assert_eq!(signature.outputs()[0].to_string(), output);
        let row =
            |value: f32| -> TensorList { (0..2).map(|_| Tensor::from_vec(&[1, 4], vec![value; 4]).unwrap()).collect() };
        let answers = run(&*model, &[row(1.0), row(2.0)]).unwrap();
        let alone = run(&*model, &[row(2.0)]).unwrap();
        assert_eq!(answers[1][0].elements::<f32>().unwrap(), alone[0][0].elements::<f32>().unwrap());
    }
    // A product over the shared axis would mix rows, and names that differ are meant to.
    for (first, op) in [(["?", "?"], "MatMul"), (["A", "B"], "Add"), (["?", "B"], "Add")] {
        let model = load(first, op, &[]).unwrap();
        assert!(!model.signature().is_batched(), "{first:?} {op}");
        assert_ne!(model.signature().inputs()[0].shape[0], model.signature().inputs()[1].shape[0]);
    }
}

#[test]
fn operators_that_the_engine_lacks_are_refused_by_name() {
    let classic = ["Scaler", "LabelEncoder", "ZipMap", "TreeEnsembleRegressor", "SVMClassifier"];
    let operators = classic.into_iter().map(|op| (op, "ai.onnx.ml")).chain([("Loop", ""), ("StringNormalizer", "")]);
    for (op, domain) in operators {
        let mut model = Onnx::default().input("x", DataType::Float, &["N", "4"]).node(op, &["x"], &["y"], &[]).output(
            "y",
            DataType::Float,
            &["N", "4"],
        );
        model.graph.node[0].domain = domain.to_owned();
        let error = TractBackend::default().load(&model.source()).expect_err(op);
        assert_eq!(error.kind(), LoadErrorKind::Unsupported, "{op}: {error}");
        assert!(error.to_string().contains(op), "{op}: {error}");
    }
}

#[test]
fn outputs_whose_size_only_the_run_decides_come_back_whole() {
    let model = Onnx::default().input("x", DataType::Float, &["N", "3"]).node("NonZero", &["x"], &["y"], &[]).output(
        "y",
        DataType::Int64,
        &["2", "?"],
    );
    let model = TractBackend::default().load(&model.source()).unwrap();
    assert!(!model.signature().is_batched());
    let x = f32s(&[2, 3], vec![0.0, 1.0, 0.0, 2.0, 0.0, 3.0]);
    let answers = run(&*model, &[[x].into_iter().collect()]).unwrap();
    assert_eq!(answers[0][0].shape()[..], [2, 3]);
    assert_eq!(answers[0][0].elements::<i64>().unwrap()[..], [0, 1, 1, 1, 0, 2]);
}

#[test]
fn the_largest_of_each_row_are_found_in_a_batch_as_alone() {
    let model = Onnx::default()
        .input("x", DataType::Float, &["N", "4"])
        .ints("k", &[2])
        .node("TopK", &["x", "k"], &["values", "places"], &[])
        .output("values", DataType::Float, &["N", "2"])
        .output("places", DataType::Int64, &["N", "2"]);
    let model = TractBackend::default().load(&model.source()).unwrap();
    assert!(model.signature().is_batched());
    let row = |data: [f32; 4]| -> TensorList { [f32s(&[1, 4], data.to_vec())].into_iter().collect() };
    let answers = run(&*model, &[row([1.0, 9.0, 3.0, 7.0]), row([-1.0, -9.0, -3.0, -7.0])]).unwrap();
    assert_eq!(answers[0][0].elements::<f32>().unwrap()[..], [9.0, 7.0]);
    assert_eq!(answers[0][1].elements::<i64>().unwrap()[..], [1, 3]);
    assert_eq!(answers[1][0].elements::<f32>().unwrap()[..], [-1.0, -3.0]);
    assert_eq!(answers[1][1].elements::<i64>().unwrap()[..], [0, 2]);
}

#[test]
fn the_trial_of_rows_can_be_turned_off_and_options_that_do_not_exist_are_refused() {
    let mut source = Onnx::default()
        .input("x", DataType::Float, &["N", "4"])
        .node("Trilu", &["x"], &["y"], &[])
        .output("y", DataType::Float, &["N", "4"])
        .source();
    let mut load = |name: &str, value: &str| {
        source.options = [(name.to_owned(), value.to_owned())].into();
        TractBackend::default().load(&source).map(|model| model.signature().is_batched())
    };
    assert!(!load("check_rows", "true").unwrap());
    assert!(load("check_rows", "false").unwrap(), "whoever says so knows the model");
    for (name, value, words) in
        [("check_rows", "maybe", "expected true or false, got `maybe`"), ("theads", "4", "unknown option `theads`")]
    {
        let error = load(name, value).unwrap_err();
        assert_eq!(error.kind(), LoadErrorKind::Invalid);
        assert!(error.to_string().contains(words), "{error}");
    }
}
