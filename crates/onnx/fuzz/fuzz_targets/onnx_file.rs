//! Any bytes as an ONNX file: no panic, no memory beyond what shapes and lists of the file's own length ask for, and no name
//! of an external file that leads out of the model's folder.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_onnx::{Graph, Model, Tensor};

fuzz_target!(|file: &[u8]| {
    let Ok(model) = Model::parse(file) else { return };
    let facts = model.facts();
    assert_eq!(facts.operators.values().sum::<usize>(), facts.nodes);
    read_graph(&model.graph());
});

fn read_graph(graph: &Graph<'_>) {
    graph.inputs().chain(graph.outputs()).chain(graph.values()).for_each(|value| {
        value.shape().map(Iterator::count);
        let _ = value.kind();
    });
    graph.initializers().for_each(|tensor| read_tensor(&tensor));
    for node in graph.nodes() {
        assert!(node.to_string().len() < 1000);
        for attribute in node.attributes() {
            let _ = attribute.ints().count() + attribute.floats().count() + attribute.strings().count();
            attribute.tensors().for_each(|tensor| read_tensor(&tensor));
            attribute.graphs().for_each(|graph| read_graph(&graph));
        }
    }
}

fn read_tensor(tensor: &Tensor<'_>) {
    let data = tensor.data(|name| -> std::io::Result<Vec<u8>> {
        assert!(!name.starts_with('/') && name.split('/').all(|part| !matches!(part, "" | "." | "..")));
        Ok(vec![0; 1024])
    });
    if let (Ok(data), Some(bytes)) = (data, tensor.n_bytes()) {
        assert_eq!(data.len() as u64, bytes);
    }
}
