//! HTTP/2 frames by hand, for what no proper client would send.

/// What a client says first.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The kinds of frames.
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// The flags that the tests set.
pub(crate) const END_STREAM: u8 = 1;
/// On SETTINGS and PING.
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames are small").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The preface with empty settings.
pub(crate) fn hello() -> Vec<u8> {
    [PREFACE, &frame(kind::SETTINGS, 0, 0, b"")].concat()
}

/// The headers of a request, in literals that change no table.
pub(crate) fn headers(method: &str, path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    // 2, 4, 6 and 1 are the static table's `:method`, `:path`, `:scheme` and `:authority`.
    for (index, value) in [(2, method), (4, path), (6, "http"), (1, "test")] {
        block.extend([index, u8::try_from(value.len()).expect("values are short")]);
        block.extend(value.as_bytes());
    }
    block
}

/// Kinds and payloads of the whole frames in `bytes`.
pub(crate) fn parse(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    parse_in_full(bytes).into_iter().map(|frame| (frame.kind, frame.payload)).collect()
}

/// A frame that the server sent.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// The whole frames in `bytes`.
pub(crate) fn parse_in_full(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, flags, s, t, r, e, rest @ ..] = bytes {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some(payload) = rest.get(..length) else { break };
        let stream = u32::from_be_bytes([*s, *t, *r, *e]);
        frames.push(Frame { kind: *kind, flags: *flags, stream, payload: payload.to_vec() });
        bytes = &rest[length..];
    }
    frames
}

/// The error code of the GOAWAY among `frames`.
pub(crate) fn goaway(frames: &[(u8, Vec<u8>)]) -> Option<u32> {
    let (_, payload) = frames.iter().rfind(|(kind, _)| *kind == kind::GOAWAY)?;
    Some(u32::from_be_bytes(payload.get(4..8)?.try_into().expect("four bytes")))
}
