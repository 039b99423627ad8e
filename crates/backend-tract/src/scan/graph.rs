//! Names and order: every value written once, every value read is written, no cycle, only operators that exist.

use std::collections::{HashMap, HashSet};

use millrace_core::LoadError;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::type_proto::Value;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, ValueInfoProto};

use super::{Checker, called};

/// The operator sets that the engine's operators come from. It looks at names alone, so that a private operator that
/// happens to be called `Add` would silently be taken for the standard one.
const DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];

/// Checks the graph and all inside it.
///
/// # Errors
/// [`LoadError`] naming the node.
pub(super) fn check(checker: &Checker<'_>, model: &ModelProto, graph: &GraphProto) -> Result<(), LoadError> {
    let engine = tract_onnx::onnx();
    let known = |operator: &str| engine.op_register.0.contains_key(operator);
    let mut nodes = 0;
    check_graph(checker, model, graph, &Scope { names: HashSet::new(), outer: None }, 0, &known, &mut nodes)?;
    let constants: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    if graph.input.iter().all(|input| constants.contains(input.name.as_str())) {
        return Err(checker.unsupported("the graph has no input; a request would have nothing to say"));
    }
    if graph.output.is_empty() {
        return Err(checker.invalid("the graph has no output"));
    }
    Ok(())
}

/// Calls `visit` with every node, those of subgraphs included. The nesting has been bounded by then.
pub(super) fn for_each_node(graph: &GraphProto, visit: &mut dyn FnMut(&NodeProto)) {
    for node in &graph.node {
        visit(node);
        for subgraph in subgraphs(node) {
            for_each_node(subgraph, visit);
        }
    }
}

/// The graphs in the attributes of `node`.
pub(super) fn subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
}

/// The names that a graph may read: its own, and those of the graphs around it.
struct Scope<'a> {
    names: HashSet<&'a str>,
    outer: Option<&'a Self>,
}

impl Scope<'_> {
    fn knows(&self, name: &str) -> bool {
        self.names.contains(name) || self.outer.is_some_and(|outer| outer.knows(name))
    }
}

fn check_graph(
    checker: &Checker<'_>,
    model: &ModelProto,
    graph: &GraphProto,
    outer: &Scope<'_>,
    depth: usize,
    known: &dyn Fn(&str) -> bool,
    nodes: &mut usize,
) -> Result<(), LoadError> {
    let config = checker.config;
    if depth > config.max_subgraph_depth {
        let most = config.max_subgraph_depth;
        return Err(checker.unsupported(format_args!("graphs nested too deep inside one another; the limit is {most}")));
    }
    *nodes += graph.node.len();
    if *nodes > config.max_nodes {
        return Err(checker.too_large(format_args!("more than {} nodes", config.max_nodes)));
    }
    if let Some(sparse) = graph.sparse_initializer.first() {
        let name = sparse.values.as_ref().map_or("", |values| values.name.as_str());
        return Err(checker.unsupported(format_args!("initializer `{name}` is sparse")));
    }
    for node in &graph.node {
        let is_function = model.functions.iter().any(|function| function.name.as_deref() == Some(&node.op_type));
        if is_function || !DOMAINS.contains(&node.domain.as_str()) || !known(&node.op_type) {
            let domain = if node.domain.is_empty() { "ai.onnx" } else { &node.domain };
            let elsewhere = if node.domain == "ai.onnx.ml" { "; the engine `trees` is made for these" } else { "" };
            let text = format_args!("{}: this engine has no such operator of {domain}{elsewhere}", called(node));
            return Err(checker.unsupported(text));
        }
    }
    let names = written(checker, graph)?;
    let scope = Scope { names, outer: Some(outer) };
    for node in &graph.node {
        if let Some(input) = node.input.iter().find(|input| !input.is_empty() && !scope.knows(input)) {
            return Err(checker.invalid(format_args!("{} reads `{input}`, which nothing writes", called(node))));
        }
    }
    if let Some(output) = graph.output.iter().find(|output| !scope.names.contains(output.name.as_str())) {
        return Err(checker.invalid(format_args!("the output `{}` is written by no node", output.name)));
    }
    if depth == 0 {
        graph.input.iter().try_for_each(|input| check_type(checker, "input", input))?;
        graph.output.iter().try_for_each(|output| check_type(checker, "output", output))?;
    }
    check_order(checker, graph)?;
    for subgraph in graph.node.iter().flat_map(subgraphs) {
        check_graph(checker, model, subgraph, &scope, depth + 1, known, nodes)?;
    }
    Ok(())
}

/// Every name that the graph itself gives a value to.
fn written<'a>(checker: &Checker<'_>, graph: &'a GraphProto) -> Result<HashSet<&'a str>, LoadError> {
    let mut names = HashSet::new();
    for input in &graph.input {
        if !names.insert(input.name.as_str()) {
            return Err(checker.invalid(format_args!("two inputs are called `{}`", input.name)));
        }
    }
    let mut constants = HashSet::new();
    for tensor in &graph.initializer {
        if !constants.insert(tensor.name.as_str()) {
            return Err(checker.invalid(format_args!("two initializers are called `{}`", tensor.name)));
        }
    }
    names.extend(constants);
    let mut writers: HashMap<&str, &NodeProto> = HashMap::new();
    for node in &graph.node {
        for output in node.output.iter().map(String::as_str).filter(|output| !output.is_empty()) {
            if let Some(first) = writers.insert(output, node) {
                let text = format_args!("`{output}` is written twice: by {} and by {}", called(first), called(node));
                return Err(checker.invalid(text));
            }
            if !names.insert(output) {
                return Err(
                    checker.invalid(format_args!("{} writes `{output}`, which has a value already", called(node)))
                );
            }
        }
    }
    Ok(names)
}

fn check_type(checker: &Checker<'_>, what: &str, info: &ValueInfoProto) -> Result<(), LoadError> {
    let name = &info.name;
    let Some(Value::TensorType(tensor)) = info.r#type.as_ref().and_then(|r#type| r#type.value.as_ref()) else {
        return Err(checker.unsupported(format_args!("{what} `{name}` is not a tensor")));
    };
    let r#type = DataType::try_from(tensor.elem_type).unwrap_or(DataType::Undefined);
    if super::tensors::is_supported(r#type) {
        return Ok(());
    }
    Err(checker
        .unsupported(format_args!("{what} `{name}` is {}, which this engine does not run", r#type.as_str_name())))
}

/// Refuses cycles: nodes that are in no order.
fn check_order(checker: &Checker<'_>, graph: &GraphProto) -> Result<(), LoadError> {
    let order = order(graph);
    if order.len() == graph.node.len() {
        return Ok(());
    }
    let done: HashSet<usize> = order.into_iter().collect();
    let stuck = graph.node.iter().enumerate().filter(|(index, _)| !done.contains(index));
    let stuck: Vec<String> = stuck.take(3).map(|(_, node)| called(node)).collect();
    Err(checker.invalid(format_args!("a cycle: {} wait for one another", stuck.join(" and "))))
}

/// The nodes so that each comes after those it reads from. Those on a cycle and behind one are left out.
pub(super) fn order(graph: &GraphProto) -> Vec<usize> {
    let mut writer: HashMap<&str, usize> = HashMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        writer.extend(node.output.iter().filter(|name| !name.is_empty()).map(|name| (name.as_str(), index)));
    }
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); graph.node.len()];
    let mut missing: Vec<usize> = vec![0; graph.node.len()];
    for (index, node) in graph.node.iter().enumerate() {
        for name in read_names(node) {
            if let Some(&from) = writer.get(name) {
                readers[from].push(index);
                missing[index] += 1;
            }
        }
    }
    let mut order: Vec<usize> = (0..graph.node.len()).filter(|&index| missing[index] == 0).collect();
    let mut next = 0;
    while let Some(&index) = order.get(next) {
        next += 1;
        for &reader in &readers[index] {
            missing[reader] -= 1;
            if missing[reader] == 0 {
                order.push(reader);
            }
        }
    }
    order
}

/// What a node reads, the graphs inside it included: their inner names do no harm, no node out here writes them.
fn read_names(node: &NodeProto) -> Vec<&str> {
    let mut names: Vec<&str> = node.input.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    for subgraph in subgraphs(node) {
        let own: HashSet<&str> = subgraph.node.iter().flat_map(|node| &node.output).map(String::as_str).collect();
        let inner = subgraph.node.iter().flat_map(read_names);
        names.extend(inner.filter(|name| !own.contains(name)));
    }
    names
}
