//! ONNX files written by hand, so that they may be wrong.

/// The value of an attribute.
#[derive(Debug, Clone)]
pub(crate) enum Attribute {
    Int(i64),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    String(&'static str),
    Strings(Vec<&'static str>),
}

pub(crate) fn ints(items: &[i64]) -> Attribute {
    Attribute::Ints(items.to_vec())
}

/// A node that reads `x` and writes `y`, unless told otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    domain: &'static str,
    operator: &'static str,
    inputs: Vec<String>,
    outputs: Vec<String>,
    attributes: Vec<(String, Attribute)>,
}

impl Node {
    pub(crate) fn new(domain: &'static str, operator: &'static str) -> Self {
        Self { domain, operator, inputs: Vec::new(), outputs: Vec::new(), attributes: Vec::new() }
    }

    /// Adds or replaces an attribute.
    pub(crate) fn with(mut self, name: &str, attribute: Attribute) -> Self {
        self.attributes.retain(|(known, _)| known != name);
        self.attributes.push((name.to_owned(), attribute));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.attributes.retain(|(known, _)| known != name);
        self
    }

    pub(crate) fn from(mut self, input: &str) -> Self {
        self.inputs.push(input.to_owned());
        self
    }

    pub(crate) fn without_input(mut self) -> Self {
        self.inputs.push(String::new());
        self
    }

    pub(crate) fn to(mut self, output: &str) -> Self {
        self.outputs.push(output.to_owned());
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let or = |names: &[String], name: &str| if names.is_empty() { vec![name.to_owned()] } else { names.to_vec() };
        for input in or(&self.inputs, "x") {
            if !(input.is_empty() && self.inputs.len() == 1) {
                put(&mut bytes, 1, input.as_bytes());
            }
        }
        or(&self.outputs, "y").iter().for_each(|output| put(&mut bytes, 2, output.as_bytes()));
        put(&mut bytes, 4, self.operator.as_bytes());
        put(&mut bytes, 7, self.domain.as_bytes());
        for (name, attribute) in &self.attributes {
            let mut body = Vec::new();
            put(&mut body, 1, name.as_bytes());
            let kind = match attribute {
                Attribute::Int(value) => {
                    number(&mut body, 3, value.cast_unsigned());
                    2
                }
                Attribute::Ints(items) => {
                    items.iter().for_each(|item| number(&mut body, 8, item.cast_unsigned()));
                    7
                }
                Attribute::Floats(items) => {
                    let packed: Vec<u8> = items.iter().flat_map(|item| item.to_le_bytes()).collect();
                    put(&mut body, 7, &packed);
                    6
                }
                Attribute::String(text) => {
                    put(&mut body, 4, text.as_bytes());
                    3
                }
                Attribute::Strings(texts) => {
                    texts.iter().for_each(|text| put(&mut body, 9, text.as_bytes()));
                    8
                }
            };
            number(&mut body, 20, kind);
            put(&mut bytes, 5, &body);
        }
        bytes
    }
}

impl From<Node> for Vec<Node> {
    fn from(node: Node) -> Self {
        vec![node]
    }
}

/// A regressor of one tree with one question: feature 0 up to 0.5 gives 1, above gives -1.
pub(crate) fn stump() -> Node {
    Node::new("ai.onnx.ml", "TreeEnsembleRegressor")
        .with("nodes_treeids", ints(&[0, 0, 0]))
        .with("nodes_nodeids", ints(&[0, 1, 2]))
        .with("nodes_featureids", ints(&[0, 0, 0]))
        .with("nodes_values", Attribute::Floats(vec![0.5, 0.0, 0.0]))
        .with("nodes_modes", Attribute::Strings(vec!["BRANCH_LEQ", "LEAF", "LEAF"]))
        .with("nodes_truenodeids", ints(&[1, 0, 0]))
        .with("nodes_falsenodeids", ints(&[2, 0, 0]))
        .with("target_treeids", ints(&[0, 0]))
        .with("target_nodeids", ints(&[1, 2]))
        .with("target_ids", ints(&[0, 0]))
        .with("target_weights", Attribute::Floats(vec![1.0, -1.0]))
}

/// A model of `nodes` from `x`, FP32 [N,2], to `y` of a type that is not said.
pub(crate) fn file(nodes: &[Node]) -> Vec<u8> {
    model(nodes, 2, &["y"])
}

/// A model of `nodes` from `x`, FP32 [N,`features`], to outputs of types that are not said.
pub(crate) fn model(nodes: &[Node], features: u64, outputs: &[&str]) -> Vec<u8> {
    let mut graph = Vec::new();
    nodes.iter().for_each(|node| put(&mut graph, 1, &node.bytes()));
    put(&mut graph, 2, b"made");
    let mut shape = Vec::new();
    let mut rows = Vec::new();
    put(&mut rows, 2, b"N");
    put(&mut shape, 1, &rows);
    let mut width = Vec::new();
    number(&mut width, 1, features);
    put(&mut shape, 1, &width);
    let mut tensor = Vec::new();
    number(&mut tensor, 1, 1);
    put(&mut tensor, 2, &shape);
    let mut kind = Vec::new();
    put(&mut kind, 1, &tensor);
    let mut input = Vec::new();
    put(&mut input, 1, b"x");
    put(&mut input, 2, &kind);
    put(&mut graph, 11, &input);
    for name in outputs {
        let mut output = Vec::new();
        put(&mut output, 1, name.as_bytes());
        put(&mut graph, 12, &output);
    }
    let mut model = Vec::new();
    number(&mut model, 1, 8);
    put(&mut model, 7, &graph);
    for (domain, version) in [("", 18), ("ai.onnx.ml", 3)] {
        let mut set = Vec::new();
        put(&mut set, 1, domain.as_bytes());
        number(&mut set, 2, version);
        put(&mut model, 8, &set);
    }
    model
}

fn put(target: &mut Vec<u8>, field: u64, body: &[u8]) {
    varint(target, field << 3 | 2);
    varint(target, body.len() as u64);
    target.extend_from_slice(body);
}

fn number(target: &mut Vec<u8>, field: u64, value: u64) {
    varint(target, field << 3);
    varint(target, value);
}

fn varint(target: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        target.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    target.push((value & 0x7f) as u8);
}
