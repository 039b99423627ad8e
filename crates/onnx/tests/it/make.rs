//! Messages written by hand.

/// A message under construction.
#[derive(Debug, Clone, Default)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    pub(crate) fn put(mut self, field: u64, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        varint(&mut self.0, field << 3 | 2);
        varint(&mut self.0, body.len() as u64);
        self.0.extend_from_slice(body);
        self
    }

    pub(crate) fn number(mut self, field: u64, value: u64) -> Self {
        varint(&mut self.0, field << 3);
        varint(&mut self.0, value);
        self
    }

    /// Bytes as they are.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn varint(target: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        target.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    target.push((value & 0x7f) as u8);
}

/// A model around `graph`.
pub(crate) fn model(graph: Message) -> Vec<u8> {
    Message::default().number(1, 8).put(7, graph).bytes()
}

/// A model whose only constant is `tensor`.
pub(crate) fn with_constant(tensor: Message) -> Vec<u8> {
    model(Message::default().put(5, tensor))
}

/// A tensor of `dims` and type number `kind`.
pub(crate) fn tensor(dims: &[u64], kind: u64) -> Message {
    dims.iter().fold(Message::default(), |message, dim| message.number(1, *dim)).number(2, kind).put(8, "w")
}
