//! Walks over JSON text: white space, strings, keys, values to be skipped.
//!
//! Knows the grammar and nothing about tensors. Every method moves on only when it succeeds, so that after a fault the
//! cursor stands where the fault is. Numbers are read in `number`.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::error::Fault;

/// A position in a document.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) at: usize,
}

/// What stands between the quotes of a valid JSON string.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text<'a> {
    raw: &'a [u8],
    has_escapes: bool,
}

/// Whether skipping a value also refuses numbers that `f64` cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// Nobody else will look at them.
    InRange,
    /// Whoever decodes them looks closer, and can say which input it was.
    WellFormed,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// The byte here, without moving.
    #[inline]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Moves past white space.
    #[inline]
    pub(crate) fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Moves past white space and looks at what follows.
    #[inline]
    pub(crate) fn peek_value(&mut self) -> Result<u8, Fault> {
        self.space();
        self.peek().ok_or(Fault::End)
    }

    /// Moves past white space and `byte`.
    #[inline]
    pub(crate) fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.peek_value()? != byte {
            return Err(Fault::Unexpected);
        }
        self.at += 1;
        Ok(())
    }

    /// Moves past a comma, or past `close`; says whether another element follows.
    #[inline]
    pub(crate) fn another(&mut self, close: u8) -> Result<bool, Fault> {
        let byte = self.peek_value()?;
        if byte != b',' && byte != close {
            return Err(Fault::Unexpected);
        }
        self.at += 1;
        Ok(byte == b',')
    }

    /// Moves past `open` and, where the container is empty, past `close`; says whether an element follows.
    pub(crate) fn open(&mut self, open: u8, close: u8) -> Result<bool, Fault> {
        self.expect(open)?;
        let is_empty = self.peek_value()? == close;
        self.at += usize::from(is_empty);
        Ok(!is_empty)
    }

    /// An object's key and its colon.
    pub(crate) fn key(&mut self) -> Result<Text<'a>, Fault> {
        self.space();
        let key = self.string()?;
        self.expect(b':')?;
        Ok(key)
    }

    /// A string, checked: escapes, surrogate pairs, no raw control characters, UTF-8.
    pub(crate) fn string(&mut self) -> Result<Text<'a>, Fault> {
        match self.peek() {
            Some(b'"') => {}
            Some(_) => return Err(Fault::Unexpected),
            None => return Err(Fault::End),
        }
        let start = self.at + 1;
        let (mut at, mut has_escapes, mut is_ascii) = (start, false, true);
        loop {
            at = skip_plain(self.text, at);
            match self.text.get(at) {
                None => return Err(self.fault_at(at, Fault::End)),
                Some(b'"') => break,
                Some(b'\\') => {
                    has_escapes = true;
                    at = match escape(self.text, at) {
                        Ok((_, end)) => end,
                        Err(fault) => return Err(self.fault_at(at, fault)),
                    };
                }
                Some(0x80..) => {
                    is_ascii = false;
                    at += 1;
                }
                Some(0..0x20) => return Err(self.fault_at(at, Fault::Control)),
                Some(_) => at += 1,
            }
        }
        let raw = self.text.get(start..at).unwrap_or_default();
        if !is_ascii && let Err(error) = std::str::from_utf8(raw) {
            return Err(self.fault_at(start + error.valid_up_to(), Fault::Utf8));
        }
        self.at = at + 1;
        Ok(Text { raw, has_escapes })
    }

    /// Moves past one value of any kind, nested at most `levels` containers deep, checking its syntax.
    pub(crate) fn skip(&mut self, levels: usize, numbers: Numbers) -> Result<(), Fault> {
        // The closing bytes of the open containers: a list, not the call stack, so that nesting costs a byte a level.
        let mut open = SmallVec::<[u8; 64]>::new();
        loop {
            match self.peek_value()? {
                byte @ (b'[' | b'{') => {
                    if open.len() >= levels {
                        return Err(Fault::Depth);
                    }
                    let close = byte + 2; // In ASCII both closing brackets stand two after the opening ones.
                    if self.open(byte, close)? {
                        open.push(close);
                        if byte == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b'"' => drop(self.string()?),
                _ => self.skip_scalar(numbers)?,
            }
            loop {
                let Some(&close) = open.last() else { return Ok(()) };
                if self.another(close)? {
                    if close == b'}' {
                        self.key()?;
                    }
                    break;
                }
                open.pop();
            }
        }
    }

    fn skip_scalar(&mut self, numbers: Numbers) -> Result<(), Fault> {
        if self.literal("true") || self.literal("false") || self.literal("null") {
            return Ok(());
        }
        self.skip_number(numbers)
    }

    /// Moves past `word` where it stands here; says whether it did.
    #[inline]
    pub(crate) fn literal(&mut self, word: &str) -> bool {
        let is_here = self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes()));
        if is_here {
            self.at += word.len();
        }
        is_here
    }

    /// Moves past a base64 object, `{"b64": "…"}` with no other key, and gives its text; `None`, without moving, where
    /// the object here is another one.
    pub(crate) fn base64_object(&mut self) -> Option<Text<'a>> {
        let mut ahead = *self;
        if !ahead.open(b'{', b'}').ok()? || !ahead.key().ok()?.is("b64") {
            return None;
        }
        ahead.space();
        let text = ahead.string().ok()?;
        ahead.expect(b'}').ok()?;
        *self = ahead;
        Some(text)
    }

    #[cold]
    fn fault_at(&mut self, at: usize, fault: Fault) -> Fault {
        self.at = at;
        fault
    }
}

impl<'a> Text<'a> {
    /// Whether the string means exactly `name`.
    pub(crate) fn is(&self, name: &str) -> bool {
        if self.has_escapes {
            return self.bytes().as_ref() == name.as_bytes();
        }
        self.raw == name.as_bytes()
    }

    /// The bytes that the string means: always UTF-8.
    pub(crate) fn bytes(&self) -> Cow<'_, [u8]> {
        if !self.has_escapes {
            return self.raw.into();
        }
        let mut bytes = Vec::with_capacity(self.raw.len());
        self.append_to(&mut bytes);
        bytes.into()
    }

    /// The string that it means, borrowed from the document where it has no escapes.
    pub(crate) fn text(&self) -> Cow<'a, str> {
        if self.has_escapes { Cow::Owned(self.display()) } else { String::from_utf8_lossy(self.raw) }
    }

    /// The string that it means.
    pub(crate) fn display(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// Appends the bytes that the string means; never more than it has characters in the document.
    pub(crate) fn append_to(&self, bytes: &mut Vec<u8>) {
        if !self.has_escapes {
            bytes.extend_from_slice(self.raw);
            return;
        }
        let mut at = 0;
        while let Some(&byte) = self.raw.get(at) {
            if byte != b'\\' {
                let end = at + 1 + self.raw[at + 1..].iter().take_while(|&&byte| byte != b'\\').count();
                bytes.extend_from_slice(&self.raw[at..end]);
                at = end;
                continue;
            }
            let (character, end) = escape(self.raw, at).expect("escapes were checked when the string was read");
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            at = end;
        }
    }
}

/// The first position from `at` on, eight bytes at a time, whose byte is not plain ASCII text. May stop early.
#[inline]
fn skip_plain(text: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    while let Some(chunk) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * u64::from(b'"'));
        let backslash = word ^ (ONES * u64::from(b'\\'));
        // A byte's high bit comes out set where the byte is a quote, a backslash, below a space or above ASCII.
        // Borrows can mark a byte wrongly, but only above one that is marked rightly, and the lowest is what counts.
        let below_space = word.wrapping_sub(ONES * 0x20) & !word;
        let equal = (quote.wrapping_sub(ONES) & !quote) | (backslash.wrapping_sub(ONES) & !backslash);
        let marked = (below_space | equal | word) & HIGH;
        if marked != 0 {
            return at + marked.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at
}

/// Reads the escape at `at`: the character it means and where it ends.
fn escape(text: &[u8], at: usize) -> Result<(char, usize), Fault> {
    let character = match text.get(at + 1).ok_or(Fault::End)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_escape(text, at),
        _ => return Err(Fault::Escape),
    };
    Ok((character, at + 2))
}

fn unicode_escape(text: &[u8], at: usize) -> Result<(char, usize), Fault> {
    let first = hex(text, at + 2)?;
    if let Some(character) = char::from_u32(first) {
        return Ok((character, at + 6));
    }
    let is_pair = (0xD800..0xDC00).contains(&first) && text.get(at + 6..at + 8) == Some(b"\\u");
    let second = if is_pair { hex(text, at + 8)? } else { 0 };
    if !(0xDC00..0xE000).contains(&second) {
        return Err(Fault::Escape);
    }
    let scalar = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
    Ok((char::from_u32(scalar).ok_or(Fault::Escape)?, at + 12))
}

fn hex(text: &[u8], at: usize) -> Result<u32, Fault> {
    let digits = text.get(at..at + 4).ok_or(Fault::End)?;
    digits.iter().try_fold(0, |value, &digit| {
        let digit = char::from(digit).to_digit(16).ok_or(Fault::Escape)?;
        Ok(value << 4 | digit)
    })
}
