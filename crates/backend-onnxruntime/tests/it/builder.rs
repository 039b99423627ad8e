//! Small ONNX files made byte by byte in a test, for what is too odd to be a fixture.

/// A protobuf field that holds bytes.
pub(crate) fn field(number: usize, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for mut value in [number << 3 | 2, body.len()] {
        while value > 0x7f {
            bytes.push(low(value) | 0x80);
            value >>= 7;
        }
        bytes.push(low(value));
    }
    [bytes, body.to_vec()].concat()
}

fn low(value: usize) -> u8 {
    u8::try_from(value & 0x7f).expect("seven bits")
}

/// A protobuf field that holds a small number.
pub(crate) fn number(field: u8, value: u8) -> Vec<u8> {
    vec![field << 3, value]
}

/// The type of `name`: FP32 [N,2].
pub(crate) fn value(name: &str) -> Vec<u8> {
    let shape = [field(1, &field(2, b"N")), field(1, &number(1, 2))].concat();
    let tensor = [number(1, 1), field(2, &shape)].concat();
    [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
}

/// A node, with one attribute where that is not empty.
pub(crate) fn node(inputs: &[&str], output: &str, operator: &str, attribute: &[u8]) -> Vec<u8> {
    let mut body: Vec<u8> = inputs.iter().flat_map(|input| field(1, input.as_bytes())).collect();
    body.extend(field(2, output.as_bytes()));
    body.extend(field(4, operator.as_bytes()));
    if !attribute.is_empty() {
        body.extend(field(5, attribute));
    }
    body
}
