//! Answers whose instances differ in their number of rows.

use millrace_core::{DType, Dim, Reason, Signature, Strings, Tensor, TensorSpec};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::{Form, JsonError, encode_plain_within, encode_predict, encode_predict_within};

fn n() -> Dim {
    Dim::symbol("N")
}

fn images() -> Vec<TensorSpec> {
    vec![TensorSpec::new("image", DType::Bytes, [n()])]
}

fn counts() -> TensorSpec {
    TensorSpec::new("counts", DType::Int32, [n()])
}

/// FP32 rows of `row` elements.
fn ragged(name: &str, row: &[usize]) -> TensorSpec {
    let dims: Vec<_> = [Dim::Unknown].into_iter().chain(row.iter().copied().map(Dim::Fixed)).collect();
    TensorSpec::new(name, DType::Fp32, dims).ragged_by("counts")
}

fn detection() -> Signature {
    let outputs = vec![ragged("boxes", &[2]), ragged("scores", &[]), counts()];
    Signature::new(images(), outputs).unwrap()
}

fn faces() -> Signature {
    let field = |name: &str, row: &[usize]| ragged(name, row).in_record("faces");
    let outputs = vec![counts(), field("bbox", &[2]), field("confidence", &[]), field("points", &[1, 2])];
    Signature::new(images(), outputs).unwrap()
}

fn floats(sizes: &[usize]) -> Tensor {
    let n_elements: u16 = sizes.iter().product::<usize>().try_into().unwrap();
    Tensor::from_vec(sizes, (0..n_elements).map(f32::from).collect()).unwrap()
}

fn counted(counts: &[i32]) -> Tensor {
    Tensor::from_vec(&[counts.len()], counts.to_vec()).unwrap()
}

#[track_caller]
fn check(form: Form, signature: &Signature, outputs: &[Tensor], expected: &str) {
    let text = encode_predict(form, signature, outputs).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), expected);
}

#[test]
fn each_instance_gets_its_own_rows_and_the_counts_are_not_shown() {
    let outputs = [floats(&[3, 2]), floats(&[3]), counted(&[2, 0, 1])];
    check(
        Form::Rows,
        &detection(),
        &outputs,
        r#"{"predictions":[{"boxes":[[0.0,1.0],[2.0,3.0]],"scores":[0.0,1.0]},{"boxes":[],"scores":[]},{"boxes":[[4.0,5.0]],"scores":[2.0]}]}"#,
    );
    check(
        Form::Columns,
        &detection(),
        &outputs,
        r#"{"outputs":{"boxes":[[[0.0,1.0],[2.0,3.0]],[],[[4.0,5.0]]],"scores":[[0.0,1.0],[],[2.0]]}}"#,
    );
}

#[test]
fn fields_of_a_record_become_a_list_of_objects() {
    let outputs = [counted(&[1, 0, 1]), floats(&[2, 2]), floats(&[2]), floats(&[2, 1, 2])];
    let first = r#"{"bbox":[0.0,1.0],"confidence":0.0,"points":[[0.0,1.0]]}"#;
    let second = r#"{"bbox":[2.0,3.0],"confidence":1.0,"points":[[2.0,3.0]]}"#;
    let rows = format!(r#"{{"predictions":[{{"faces":[{first}]}},{{"faces":[]}},{{"faces":[{second}]}}]}}"#);
    check(Form::Rows, &faces(), &outputs, &rows);
    let columns = format!(r#"{{"faces":[[{first}],[],[{second}]]}}"#);
    check(Form::Columns, &faces(), &outputs, &format!(r#"{{"outputs":{columns}}}"#));
    let plain = encode_plain_within(&faces(), &outputs, (b"", b""), 1000).unwrap();
    assert_eq!(String::from_utf8(plain).unwrap(), columns);
}

#[test]
fn an_instance_without_rows_is_an_object_of_empty_lists() {
    let outputs = [floats(&[0, 2]), floats(&[0]), counted(&[0])];
    check(Form::Rows, &detection(), &outputs, r#"{"predictions":[{"boxes":[],"scores":[]}]}"#);
    let outputs = [counted(&[0]), floats(&[0, 2]), floats(&[0]), floats(&[0, 1, 2])];
    check(Form::Rows, &faces(), &outputs, r#"{"predictions":[{"faces":[]}]}"#);
    check(Form::Columns, &faces(), &outputs, r#"{"outputs":{"faces":[[]]}}"#);
}

#[test]
fn outputs_with_a_row_for_each_instance_stand_beside() {
    let seen = TensorSpec::new("seen", DType::Bytes, [n()]);
    let words = TensorSpec::new("words", DType::Bytes, [Dim::Unknown]).ragged_by("lengths");
    let lengths = TensorSpec::new("lengths", DType::Int64, [n()]);
    let outputs = vec![seen, words, lengths, ragged("scores", &[]), counts()];
    let signature = Signature::new(images(), outputs).unwrap();
    let text = |texts: &[&str]| Tensor::from_strings(&[texts.len()], texts.iter().collect::<Strings>()).unwrap();
    let lengths = Tensor::from_vec(&[2], vec![0_i64, 2]).unwrap();
    let outputs = [text(&["a", "b"]), text(&["c", "d"]), lengths, floats(&[1]), counted(&[1, 0])];
    check(
        Form::Rows,
        &signature,
        &outputs,
        r#"{"predictions":[{"seen":"a","words":[],"scores":[0.0]},{"seen":"b","words":["c","d"],"scores":[]}]}"#,
    );
    check(
        Form::Columns,
        &signature,
        &outputs,
        r#"{"outputs":{"seen":["a","b"],"words":[[],["c","d"]],"scores":[[0.0],[]]}}"#,
    );
}

#[test]
fn counts_that_do_not_add_up_are_the_models_fault() {
    let (three, boxes) = (|| floats(&[3]), || floats(&[3, 2]));
    let scalar = Tensor::from_vec(&[], vec![3_i32]).unwrap();
    for (outputs, words) in [
        ([boxes(), three(), counted(&[2, 2])], "output `boxes`: `counts` counts 4 rows of it, it has 3"),
        ([boxes(), floats(&[2]), counted(&[3])], "output `scores`: `counts` counts 3 rows of it, it has 2"),
        ([boxes(), floats(&[]), counted(&[3])], "output `scores`: `counts` counts 3 rows of it, it has none"),
        ([boxes(), three(), counted(&[4, -1])], "output `counts`: it counts -1 rows of instance 1"),
        ([boxes(), three(), three()], "INT32 or INT64 of rank 1, but it is FP32[3]"),
        ([boxes(), three(), scalar], "INT32 or INT64 of rank 1, but it is INT32[]"),
    ] {
        for form in [Form::Rows, Form::Columns] {
            let error = encode_predict(form, &detection(), &outputs).unwrap_err();
            assert_eq!(error.reason(), Reason::BackendBroken, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
    let huge = Tensor::from_vec(&[3], vec![i64::MAX; 3]).unwrap();
    let sizes = TensorSpec::new("counts", DType::Int64, [n()]);
    let signature = Signature::new(images(), vec![sizes, ragged("scores", &[])]).unwrap();
    let error = encode_predict(Form::Rows, &signature, &[huge, three()]).unwrap_err();
    assert!(error.to_string().contains("rows of instance 2"), "{error}");
}

#[test]
fn an_answer_above_the_limit_is_refused_before_it_is_written() {
    let too_large = |limit| Err(JsonError::AnswerTooLarge { limit });
    let written = |form, signature: &Signature, outputs: &[Tensor], limit| {
        encode_predict_within(form, signature, outputs, limit).map(drop)
    };
    let brackets = Dim::symbol("M");
    let bottomless = TensorSpec::new("y", DType::Fp32, [Dim::Unknown, brackets, Dim::Fixed(0)]).ragged_by("counts");
    let input = TensorSpec::new("x", DType::Fp32, [n(), Dim::symbol("M")]);
    for record in [None, Some("faces")] {
        let y = record.map_or_else(|| bottomless.clone(), |record| bottomless.clone().in_record(record));
        let signature = Signature::new(vec![input.clone()], vec![counts(), y]).unwrap();
        let outputs = [counted(&[1, 2]), Tensor::from_vec::<f32>(&[3, 1 << 59, 0], Vec::new()).unwrap()];
        for form in [Form::Rows, Form::Columns] {
            assert_eq!(written(form, &signature, &outputs, 1 << 20), too_large(1 << 20));
        }
    }
    let outputs = [counted(&[1, 2]), floats(&[3, 2]), floats(&[3]), floats(&[3, 1, 2])];
    for form in [Form::Rows, Form::Columns] {
        let length = encode_predict(form, &faces(), &outputs).unwrap().len();
        assert_eq!(written(form, &faces(), &outputs, length), Ok(()));
        assert_eq!(written(form, &faces(), &outputs, length - 1), too_large(length - 1));
    }
}

/// Row `row` of a tensor of FP32 as a tree.
fn tree(tensor: &Tensor, row: usize) -> Value {
    fn nested(sizes: &[usize], elements: &[f32]) -> Value {
        match sizes {
            [] => json!(elements[0]),
            [n, inner @ ..] => {
                let width = inner.iter().product::<usize>();
                (0..*n).map(|index| nested(inner, &elements[index * width..(index + 1) * width])).collect()
            }
        }
    }
    let row = tensor.rows(row..row + 1);
    nested(&row.shape()[1..], &row.elements::<f32>().unwrap())
}

/// The value of `outputs[key]` for one instance, by taking its rows one after the other.
fn naive(signature: &Signature, outputs: &[Tensor], counts: &[i32], instance: usize) -> Value {
    let before: usize = counts[..instance].iter().map(|&count| usize::try_from(count).unwrap()).sum();
    let rows = before..before + usize::try_from(counts[instance]).unwrap();
    let mut object = Map::new();
    for (spec, tensor) in signature.outputs().iter().zip(outputs) {
        match (&spec.ragged_by, &spec.record) {
            (None, _) if *spec.name == *"counts" => {}
            (None, _) => drop(object.insert(spec.name.to_string(), tree(tensor, instance))),
            (Some(_), None) => {
                let list: Value = rows.clone().map(|row| tree(tensor, row)).collect();
                object.insert(spec.name.to_string(), list);
            }
            (Some(_), Some(record)) => {
                let list = object.entry(record.to_string()).or_insert_with(|| json!(vec![json!({}); rows.len()]));
                for (index, row) in rows.clone().enumerate() {
                    list[index][&*spec.name] = tree(tensor, row);
                }
            }
        }
    }
    Value::Object(object)
}

/// Outputs in any order: counts, an even one, and for each of `rows` a ragged one, in a record or not.
fn any_answer() -> impl Strategy<Value = (Signature, Vec<Tensor>, Vec<i32>)> {
    let row = vec(0..3_usize, 0..3);
    let fields = vec((row, prop_oneof![Just(None), Just(Some("first")), Just(Some("second"))]), 1..6);
    (vec(0..4_i32, 1..5), fields, any::<prop::sample::Index>(), any::<u16>()).prop_map(
        |(counted_rows, fields, at, seed)| {
            let total: usize = counted_rows.iter().map(|&count| usize::try_from(count).unwrap()).sum();
            let even = TensorSpec::new("even", DType::Fp32, [n(), Dim::Fixed(2)]);
            let mut outputs = vec![(even, filled(&[counted_rows.len(), 2], seed))];
            for (index, (row, record)) in fields.iter().enumerate() {
                let spec = ragged(&format!("y{index}"), row);
                let spec = record.map_or_else(|| spec.clone(), |record| spec.clone().in_record(record));
                outputs.push((spec, filled(&[&[total], &**row].concat(), seed)));
            }
            outputs.insert(at.index(outputs.len() + 1), (counts(), counted(&counted_rows)));
            let (specs, tensors) = outputs.into_iter().unzip();
            (Signature::new(images(), specs).unwrap(), tensors, counted_rows)
        },
    )
}

fn filled(sizes: &[usize], seed: u16) -> Tensor {
    let n_elements: u16 = sizes.iter().product::<usize>().try_into().unwrap();
    let elements = (0..n_elements).map(|element| f32::from(element.wrapping_mul(seed)) / 4.0).collect();
    Tensor::from_vec(sizes, elements).unwrap()
}

proptest! {
    #[test]
    fn what_is_cut_while_writing_is_what_taking_rows_gives((signature, outputs, counts) in any_answer()) {
        let read = |form| -> Value {
            serde_json::from_slice(&encode_predict(form, &signature, &outputs).unwrap()).unwrap()
        };
        let rows: Vec<_> = (0..counts.len()).map(|row| naive(&signature, &outputs, &counts, row)).collect();
        let columns: Map<_, _> = rows[0]
            .as_object()
            .unwrap()
            .keys()
            .map(|key| (key.clone(), rows.iter().map(|row| row[key].clone()).collect()))
            .collect();
        prop_assert_eq!(read(Form::Columns), json!({ "outputs": columns }));
        prop_assert_eq!(read(Form::Rows), json!({ "predictions": rows }));
    }

    #[test]
    fn whatever_a_model_gives_is_an_answer_or_an_error(
        counts in any_output(),
        boxes in any_output(),
        confidences in any_output(),
        points in any_output(),
        limit in prop_oneof![Just(usize::MAX), 0..200_usize],
    ) {
        for form in [Form::Rows, Form::Columns] {
            let outputs = [counts.clone(), boxes.clone(), confidences.clone(), points.clone()];
            match encode_predict_within(form, &faces(), &outputs, limit) {
                Ok(text) => {
                    prop_assert!(text.len() <= limit);
                    prop_assert!(serde_json::from_slice::<Value>(&text).is_ok());
                }
                Err(error) => {
                    prop_assert!(error.to_string().len() < 200);
                    let reason = error.reason();
                    prop_assert!(matches!(reason, Reason::BackendBroken | Reason::InvalidInput | Reason::TooLarge));
                }
            }
        }
    }
}

/// Small tensors that fit the signature now and then.
fn any_output() -> impl Strategy<Value = Tensor> {
    let sizes = || vec(0..3_usize, 0..4);
    let n_elements = |sizes: &[usize]| sizes.iter().product::<usize>();
    prop_oneof![
        sizes().prop_map(|sizes| floats(&sizes)),
        sizes().prop_flat_map(move |sizes| {
            vec(-1..3_i32, n_elements(&sizes)).prop_map(move |elements| Tensor::from_vec(&sizes, elements).unwrap())
        }),
        vec(any::<i64>(), 0..3).prop_map(|counts| Tensor::from_vec(&[counts.len()], counts).unwrap()),
        (0..3_usize).prop_map(|rows| floats(&[rows, 2])),
        vec(0..2_i32, 1..3).prop_map(|counts| counted(&counts)),
    ]
}
