//! Bytes that are no model, or a model that lies.

use millrace_onnx::{ElementType, Model, OnnxError};
use proptest::prelude::*;

use crate::files::fixture;
use crate::make::{Message, model, tensor, with_constant};
use crate::walk::walk;

type Data = Result<Vec<u8>, OnnxError>;

/// The data of the only constant of `file`; its external file holds sixteen bytes.
fn data(file: &[u8]) -> Data {
    let model = Model::parse(file)?;
    let tensor = model.graph().initializers().next().expect("a constant");
    tensor.data(|_| Ok((0_u8..16).collect::<Vec<u8>>())).map(std::borrow::Cow::into_owned)
}

fn text(outcome: Data) -> String {
    outcome.expect_err("it is refused").to_string()
}

#[test]
fn lists_of_numbers_become_bytes_packed_or_not() {
    let floats: Vec<u8> = [1.0_f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(data(&with_constant(tensor(&[2], 1).put(4, &floats))).unwrap(), floats);
    let unpacked = tensor(&[2], 1).raw(&[0x25]).raw(&floats[..4]).raw(&[0x25]).raw(&floats[4..]);
    assert_eq!(data(&with_constant(unpacked)).unwrap(), floats);
    let minus_one = u64::MAX;
    let ints = with_constant(tensor(&[2], 7).number(7, 3).number(7, minus_one));
    assert_eq!(data(&ints).unwrap(), [3_i64, -1].map(i64::to_le_bytes).concat());
    assert_eq!(data(&with_constant(tensor(&[3], 9).number(5, 0).number(5, 1).number(5, 7))).unwrap(), [0, 1, 1]);
    assert_eq!(data(&with_constant(tensor(&[1], 10).number(5, 0x3c00))).unwrap(), [0x00, 0x3c]);
    assert_eq!(data(&with_constant(tensor(&[3], 22).put(9, [0x21, 0x03]))).unwrap(), [0x21, 0x03], "two to a byte");
}

#[test]
fn shapes_and_data_that_disagree_are_told_apart() {
    assert!(text(data(&with_constant(tensor(&[3], 1).put(9, [0; 8])))).contains("data of 8 bytes"));
    assert!(text(data(&with_constant(tensor(&[u64::MAX], 1)))).contains("the size -1 is negative"));
    assert!(text(data(&with_constant(tensor(&[1 << 40, 1 << 40], 1)))).contains("too many elements"));
    assert!(text(data(&with_constant(tensor(&[1 << 62], 7)))).contains("too many elements"));
    assert!(text(data(&with_constant(tensor(&[2], 8)))).contains("BYTES have no fixed size"));
    assert!(text(data(&with_constant(tensor(&[2], 99)))).contains("other have no fixed size"));
    let long: Vec<u64> = vec![1; 40];
    assert!(text(data(&with_constant(tensor(&long, 1)))).contains("rank is above 32"));
}

#[test]
fn a_long_list_costs_no_more_than_its_shape() {
    let many = tensor(&[1], 7).put(7, vec![1; 1 << 20]);
    assert!(text(data(&with_constant(many))).contains("its shape and type ask for 8"));
}

#[test]
fn external_data_is_cut_out_of_its_file_and_its_name_stays_inside() {
    let entry = |key: &str, value: &str| Message::default().put(1, key).put(2, value);
    let external = |entries: &[(&str, &str)]| {
        let tensor = entries
            .iter()
            .fold(tensor(&[4], 3).number(14, 1), |tensor, (key, value)| tensor.put(13, entry(key, value)));
        data(&with_constant(tensor))
    };
    assert_eq!(external(&[("location", "sub/w.bin"), ("offset", "8"), ("length", "4")]).unwrap(), [8, 9, 10, 11]);
    assert_eq!(external(&[("location", "./w.bin"), ("offset", "12")]).unwrap(), [12, 13, 14, 15]);
    assert!(text(external(&[("location", "w"), ("offset", "13")])).contains("reach past the 16 bytes"));
    assert!(text(external(&[("location", "w"), ("offset", "18446744073709551615")])).contains("reach past"));
    assert!(text(external(&[("location", "w"), ("length", "5")])).contains("5 bytes; its shape and type ask for 4"));
    assert!(text(external(&[("location", "w"), ("offset", "-1")])).contains("a count of bytes, got `-1`"));
    assert!(text(external(&[("offset", "1")])).contains("without the name of a file"));
    for name in ["../w", "a/../../w", "/etc/hostname", "a//w", "a/./w", "c:\\w", "..\\w", "w\0"] {
        let error = external(&[("location", name)]).unwrap_err();
        assert!(matches!(error, OnnxError::Outside { .. }), "{name:?}: {error}");
    }
}

#[test]
fn structure_that_no_writer_makes_is_refused() {
    let refused = |file: Vec<u8>| Model::parse(&file).expect_err("it is refused").to_string();
    assert!(refused(Vec::new()).contains("it is empty"));
    assert!(refused(Message::default().number(1, 8).bytes()).contains("holds no graph"));
    assert!(refused(Message::default().put(7, []).put(7, []).bytes()).contains("stands twice"));
    assert!(refused(Message::default().number(7, 1).bytes()).contains("another form"));
    assert!(refused(vec![0x3a, 0x7f]).contains("cut off"));
    assert!(refused(vec![0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).contains("cut off"));
    assert!(refused(vec![0x07]).contains("no known form"), "a type of field that there is not");
    assert!(refused(vec![0x00, 0x01]).contains("no known form"), "field 0");
    let node =
        Message::default().put(3, "scaler").put(4, "Scaler").put(5, Message::default().put(1, "scale").put(7, [0; 3]));
    let text = refused(model(Message::default().put(1, node)));
    assert!(text.contains("node `scaler` (Scaler), attribute `scale`"), "{text}");
    let node = Message::default().put(4, [0xff, 0xfe]);
    assert!(refused(model(Message::default().put(1, node))).contains("not UTF-8"));
}

#[test]
fn graphs_inside_graphs_end_somewhere() {
    let mut graph = Message::default();
    for _ in 0..5_000 {
        graph = Message::default().put(1, Message::default().put(5, Message::default().put(6, graph)));
    }
    let error = Model::parse(&model(graph)).unwrap_err();
    assert!(matches!(error, OnnxError::Unsupported { .. }), "{error}");
}

#[test]
fn many_small_nodes_cost_nothing_and_many_names_are_counted_together() {
    let nodes = [0x0a, 0x00].repeat(100_000);
    let file = model(Message::default().raw(&nodes));
    let parsed = Model::parse(&file).unwrap();
    assert_eq!(parsed.facts().nodes, 100_000);
    let named =
        (0..2_000).fold(Message::default(), |graph, n: u32| graph.put(1, Message::default().put(4, n.to_string())));
    let file = model(named);
    let facts = Model::parse(&file).unwrap().facts();
    assert!(facts.operators.len() < 600);
    assert_eq!(facts.operators.values().sum::<usize>(), 2_000);
}

#[test]
fn types_have_the_protocols_names() {
    assert_eq!(ElementType::from_onnx(16).name(), "BF16");
    assert_eq!(ElementType::from_onnx(8).name(), "BYTES");
    assert_eq!((ElementType::from_onnx(-3), ElementType::from_onnx(14)), (ElementType::Other, ElementType::Other));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(model) = Model::parse(&bytes) {
            walk(&model);
        }
        let file = model(Message::default().raw(&bytes));
        if let Ok(model) = Model::parse(&file) {
            walk(&model);
        }
    }

    #[test]
    fn damaged_files_never_panic(
        cut in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        which in prop::sample::select(vec![
            "trees/onnx/columns_forest/1/model.onnx",
            "trees/onnx/casts/1/model.onnx",
            "models/fraud/1/model.onnx",
            "bad-models/external_short/1/model.onnx",
        ]),
    ) {
        let mut bytes = fixture(which);
        for (place, byte) in changes {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        if let Ok(model) = Model::parse(&bytes) {
            walk(&model);
        }
    }
}
