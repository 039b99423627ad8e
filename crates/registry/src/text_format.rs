//! The protobuf text format, as far as TensorFlow Serving's and Triton's configuration files use it.
//!
//! Text in, a tree of named fields out; what the fields mean is the reader's matter. Not read: extensions, `Any`
//! expansion in brackets, and octal or hexadecimal numbers.

/// The most nested braces; honest files nest about five deep.
const DEEPEST: usize = 32;

/// Fields in the order written. A repeated field stands several times.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Message(pub Vec<Field>);

/// One `name: value`.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The name before the colon.
    pub name: String,
    /// What stands after it.
    pub value: Value,
    /// The byte offset where the name begins.
    pub offset: usize,
}

/// A field's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A quoted string; adjacent ones are joined.
    Text(String),
    /// A number or a word such as `true`, as written.
    Word(String),
    /// A message in braces.
    Message(Message),
}

/// What is wrong, and the byte offset of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// Where in the text.
    pub offset: usize,
    /// What was expected there.
    pub message: String,
}

/// Reads a whole file.
///
/// # Errors
/// [`SyntaxError`] for text that is not this format, or whose braces nest deeper than 32.
pub fn parse(text: &str) -> Result<Message, SyntaxError> {
    let mut reader = Reader { text, at: 0 };
    let message = reader.message(None, 0)?;
    Ok(message)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn error<T>(&self, message: impl Into<String>) -> Result<T, SyntaxError> {
        Err(SyntaxError { offset: self.at, message: message.into() })
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Skips white space and comments.
    fn skip(&mut self) {
        while let Some(byte) = self.peek() {
            if byte.is_ascii_whitespace() {
                self.at += 1;
            } else if byte == b'#' {
                self.at = self.text[self.at..].find('\n').map_or(self.text.len(), |length| self.at + length);
            } else {
                return;
            }
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip();
        let there = self.peek() == Some(byte);
        if there {
            self.at += 1;
        }
        there
    }

    /// Fields up to `end`, or to the end of the text where there is none.
    fn message(&mut self, end: Option<u8>, depth: usize) -> Result<Message, SyntaxError> {
        if depth > DEEPEST {
            return self.error(format!("braces nest deeper than {DEEPEST}"));
        }
        let mut fields = Vec::new();
        loop {
            self.skip();
            match (self.peek(), end) {
                (None, None) => return Ok(Message(fields)),
                (None, Some(end)) => {
                    return self.error(format!("the text ends where `{}` is missing", char::from(end)));
                }
                (Some(byte), Some(end)) if byte == end => {
                    self.at += 1;
                    return Ok(Message(fields));
                }
                (Some(_), _) => self.field(&mut fields, depth)?,
            }
            if !self.take(b',') {
                self.take(b';');
            }
        }
    }

    fn field(&mut self, fields: &mut Vec<Field>, depth: usize) -> Result<(), SyntaxError> {
        let offset = self.at;
        let name = self.word();
        if name.is_empty() {
            return self.error("expected a field name");
        }
        let name = name.to_owned();
        let colon = self.take(b':');
        self.skip();
        let mut push = |value| fields.push(Field { name: name.clone(), value, offset });
        // Lists of messages may leave the colon out, as messages may.
        if self.take(b'[') {
            if self.take(b']') {
                return Ok(());
            }
            loop {
                self.skip();
                if !colon && !matches!(self.peek(), Some(b'{' | b'<')) {
                    return self.error(format!("expected `:` after `{name}`"));
                }
                push(self.value(depth)?);
                if self.take(b']') {
                    return Ok(());
                }
                if !self.take(b',') {
                    return self.error("expected `,` or `]`");
                }
            }
        }
        if !colon && !matches!(self.peek(), Some(b'{' | b'<')) {
            return self.error(format!("expected `:` or `{{` after `{name}`"));
        }
        push(self.value(depth)?);
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        if self.take(b'{') {
            return self.message(Some(b'}'), depth + 1).map(Value::Message);
        }
        if self.take(b'<') {
            return self.message(Some(b'>'), depth + 1).map(Value::Message);
        }
        self.skip();
        if !matches!(self.peek(), Some(b'"' | b'\'')) {
            let word = self.word();
            return if word.is_empty() { self.error("expected a value") } else { Ok(Value::Word(word.to_owned())) };
        }
        let mut bytes = Vec::new();
        while let Some(quote @ (b'"' | b'\'')) = self.peek() {
            self.at += 1;
            self.string(quote, &mut bytes)?;
            self.skip();
        }
        String::from_utf8(bytes).map(Value::Text).or_else(|_| self.error("the string is not UTF-8"))
    }

    /// Letters, digits and what numbers are made of.
    fn word(&mut self) -> &str {
        let rest = &self.text[self.at..];
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-' | '+' | '.'))
            .unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn string(&mut self, quote: u8, bytes: &mut Vec<u8>) -> Result<(), SyntaxError> {
        loop {
            let Some(byte) = self.peek() else { return self.error("the string has no end") };
            self.at += 1;
            match byte {
                b'\n' => return self.error("the string has no end on its line"),
                b'\\' => bytes.push(self.escape()?),
                byte if byte == quote => return Ok(()),
                byte => bytes.push(byte),
            }
        }
    }

    fn escape(&mut self) -> Result<u8, SyntaxError> {
        let Some(byte) = self.peek() else { return self.error("the string has no end") };
        self.at += 1;
        Ok(match byte {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'v' => 11,
            b'\\' | b'\'' | b'"' | b'?' => byte,
            b'x' | b'X' => return self.digits(16, 2),
            b'0'..=b'7' => {
                self.at -= 1;
                return self.digits(8, 3);
            }
            _ => return self.error("unknown escape"),
        })
    }

    fn digits(&mut self, radix: u32, most: usize) -> Result<u8, SyntaxError> {
        let mut value = 0_u32;
        let mut count = 0;
        while let Some(digit) = self.peek().and_then(|byte| char::from(byte).to_digit(radix)).filter(|_| count < most) {
            value = value * radix + digit;
            count += 1;
            self.at += 1;
        }
        match u8::try_from(value) {
            Ok(byte) if count > 0 => Ok(byte),
            _ => self.error("the escape is not a byte"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Value, parse};

    #[test]
    fn every_way_of_writing_a_field_reads_the_same() {
        for text in [
            "a [ { b: 1 b: 2 } ]",
            "a { b: 1 b: 2 }",
            "a: { b: [1, 2] }",
            "a < b: 1, b: 2; >",
            "# a comment\na{b:1 # one\n b:2}",
        ] {
            let message = parse(text).unwrap();
            let Value::Message(inner) = &message.0[0].value else { panic!("{text}") };
            let words: Vec<_> = inner.0.iter().map(|field| field.value.clone()).collect();
            assert_eq!(words, [Value::Word("1".into()), Value::Word("2".into())], "{text}");
        }
    }

    #[test]
    fn strings_join_and_escape() {
        let message = parse(r#"a: 'x' "y\n\x41\101\'""#).unwrap();
        assert_eq!(message.0[0].value, Value::Text("xy\nAA'".into()));
    }

    #[test]
    fn broken_text_is_refused_where_it_breaks() {
        for (text, offset) in
            [("a { b: 1", 8), ("a 1", 2), ("a: 'x", 5), ("a: [1 2]", 6), ("a [1]", 3), ("}", 0), ("a: '\\400'", 8)]
        {
            assert_eq!(parse(text).unwrap_err().offset, offset, "{text}");
        }
        assert!(parse(&"a {".repeat(100_000)).is_err());
    }
}
