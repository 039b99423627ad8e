//! Reads everything that a model has, as its users together do.

use std::io;

use millrace_onnx::{Attribute, Graph, Model, Tensor};

/// Walks through the whole model, and says how much there was.
pub(crate) fn walk(model: &Model<'_>) -> usize {
    let facts = model.facts();
    assert!(facts.operators.values().sum::<usize>() == facts.nodes);
    let texts = model.metadata().map(|(key, value)| key.len() + value.len()).sum::<usize>();
    let sets = model.opsets().filter(|(domain, _)| model.opset(domain).is_some()).count();
    model.n_functions() + texts + sets + facts.properties.len() + graph(&model.graph(), 0)
}

fn graph(of: &Graph<'_>, depth: usize) -> usize {
    assert!(depth <= millrace_onnx::MAX_GRAPH_DEPTH);
    let values = of.inputs().chain(of.outputs()).chain(of.values());
    let values: usize = values.map(|value| value.name().len() + value.shape().map_or(0, Iterator::count)).sum();
    let nodes = of.nodes().map(|node| {
        assert!(node.to_string().len() < 1000, "messages stay short");
        let names = node.inputs().chain(node.outputs()).map(str::len).sum::<usize>();
        names + node.attributes().map(|one| attribute(&one, depth)).sum::<usize>()
    });
    values + of.n_sparse() + nodes.sum::<usize>() + of.initializers().map(|one| tensor(&one)).sum::<usize>()
}

fn attribute(of: &Attribute<'_>, depth: usize) -> usize {
    let numbers = of.ints().count() + of.floats().count() + of.strings().map(<[u8]>::len).sum::<usize>();
    let single =
        usize::from(of.int().is_some()) + usize::from(of.float().is_some()) + of.string().map_or(0, <[u8]>::len);
    let tensors: usize = of.tensors().map(|one| tensor(&one)).sum();
    numbers + single + tensors + of.graphs().map(|one| graph(&one, depth + 1)).sum::<usize>()
}

fn tensor(of: &Tensor<'_>) -> usize {
    let data = of.data(|name| -> io::Result<Vec<u8>> {
        assert!(!name.starts_with('/') && !name.split('/').any(|part| part == ".."), "{name} leads out");
        Ok(vec![0; 64])
    });
    if let (Ok(data), Some(bytes)) = (&data, of.n_bytes()) {
        assert_eq!(data.len() as u64, bytes);
    }
    of.strings().count() + data.map_or(0, |data| data.len())
}
