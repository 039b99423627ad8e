//! Data beside the model: only what lies in the version's folder, and only from memory.

use millrace_core::{Backend, LoadErrorKind, MemoryFiles, ModelSource, Tensor};
use millrace_testkit::fixture_source;
use std::sync::Arc;

use crate::builder::{field, node, number, value};
use crate::support::{engine, run};

/// A float tensor of two elements whose data lies in `location`.
fn outside(name: &str, location: &str) -> Vec<u8> {
    let entry = [field(1, b"location"), field(2, location.as_bytes())].concat();
    [number(1, 2), number(2, 1), field(8, name.as_bytes()), field(13, &entry), vec![14 << 3, 1]].concat()
}

/// y = x + w, where `parts` of the graph say what `w` is.
fn model(parts: &[Vec<u8>], functions: &[u8]) -> Vec<u8> {
    let mut graph = parts.concat();
    graph.extend(field(1, &node(&["x", "w"], "y", "Add", b"")));
    graph.extend(field(2, b"g"));
    graph.extend(field(11, &value("x")));
    graph.extend(field(12, &value("y")));
    let opset = field(8, &number(2, 15));
    [number(1, 8), field(7, &graph), opset, functions.to_vec()].concat()
}

fn source(model: Vec<u8>) -> ModelSource {
    let weights: Vec<u8> = [1.0_f32, 2.0].iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let files = MemoryFiles::default().with("model.onnx", model).with("w.bin", weights);
    ModelSource::new("external".parse().expect("a name"), 1, Arc::new(files))
}

#[test]
fn data_inside_the_folder_is_read() {
    let Some(engine) = engine() else { return };
    for location in ["w.bin", "./w.bin"] {
        let model = engine.load(&source(model(&[field(5, &outside("w", location))], b""))).unwrap();
        let x = Tensor::from_vec(&[1, 2], vec![10.0_f32, 20.0]).unwrap();
        let y = run(&*model, &[[x].into_iter().collect()]).unwrap();
        assert_eq!(*y[0][0].elements::<f32>().unwrap(), [11.0, 22.0]);
    }
}

#[test]
fn data_is_refused_wherever_the_engine_would_open_a_file_by_itself() {
    let Some(engine) = engine() else { return };
    let attribute =
        |location: &str| [field(1, b"value"), field(5, &outside("", location)), vec![0xa0, 0x01, 4]].concat();
    let constant = |location: &str| field(1, &node(&[], "w", "Constant", &attribute(location)));
    let function = |location: &str| {
        let body = node(&[], "w", "Constant", &attribute(location));
        field(25, &[field(1, b"f"), field(5, b"w"), field(7, &body), field(10, b"local")].concat())
    };
    for location in ["/proc/version", "../w.bin", "w.bin"] {
        for bytes in
            [model(&[constant(location)], b""), model(&[field(5, &outside("w", "w.bin"))], &function(location))]
        {
            let error = engine.load(&source(bytes)).unwrap_err();
            assert!(
                matches!(error.kind(), LoadErrorKind::Unsupported | LoadErrorKind::Forbidden),
                "{location}: {error}"
            );
            assert!(error.to_string().contains("external data"), "{error}");
        }
    }
}

#[test]
fn a_tensor_that_says_twice_where_its_data_lies_is_refused() {
    let Some(engine) = engine() else { return };
    // One reader believes the last of two marks, another the first that it knows.
    for marks in [[0_u8, 1], [1, 7], [1, 0], [1, 1]] {
        let mut tensor = outside("w", "/proc/version");
        tensor.truncate(tensor.len() - 2);
        for mark in marks {
            tensor.extend([14 << 3, mark]);
        }
        let error = engine.load(&source(model(&[field(5, &tensor)], b""))).unwrap_err();
        assert!(error.to_string().contains("external"), "{marks:?}: {error}");
    }
}

#[test]
fn the_fixture_with_data_beside_it_loads() {
    let Some(engine) = engine() else { return };
    assert!(engine.load(&fixture_source("extra/external_inside/1")).is_ok());
}
