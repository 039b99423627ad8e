//! `multipart/form-data` bodies, whole in memory: the parts' names, content types and bytes. Nothing is copied.
//!
//! Reads what browsers, curl and Python's clients write. Bodies come from strangers: parts and their headers are bounded,
//! and a part that has no name is refused rather than guessed at.

use std::borrow::Cow;

/// Parts of one body.
const MOST_PARTS: usize = 256;
/// Bytes of one part's headers.
const MOST_HEADER: usize = 8 * 1024;
/// Bytes of a boundary, as its definition has it.
const MOST_BOUNDARY: usize = 70;

/// One part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    /// The form field's name.
    pub(crate) name: Cow<'a, str>,
    /// Its content type, if it says one.
    pub(crate) content_type: Option<&'a str>,
    /// Its bytes.
    pub(crate) content: &'a [u8],
}

/// Why a body is not multipart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MultipartError {
    #[error("multipart: the content type has no usable boundary")]
    Boundary,
    #[error("multipart: the body does not begin with its boundary")]
    Start,
    #[error("multipart: the body ends before its last boundary")]
    End,
    #[error("multipart: a part's headers are malformed or longer than {MOST_HEADER} bytes")]
    Header,
    #[error("multipart: a part has no name")]
    Name,
    #[error("multipart: more than {MOST_PARTS} parts")]
    TooMany,
}

/// The boundary that a content type such as `multipart/form-data; boundary=x` announces.
///
/// # Errors
/// [`MultipartError::Boundary`] where it announces none, or one that no boundary may be.
pub(crate) fn boundary(content_type: &str) -> Result<Cow<'_, str>, MultipartError> {
    let found = parameter(content_type, "boundary").ok_or(MultipartError::Boundary)?;
    let is_usable = (1..=MOST_BOUNDARY).contains(&found.len()) && found.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if is_usable && !found.ends_with(' ') { Ok(found) } else { Err(MultipartError::Boundary) }
}

/// The parts of `body`, in their order. What follows the last boundary is not looked at.
///
/// # Errors
/// [`MultipartError`].
pub(crate) fn parts<'a>(body: &'a [u8], boundary: &str) -> Result<Vec<Part<'a>>, MultipartError> {
    let delimiter = format!("\r\n--{boundary}");
    // The first boundary may stand at the very beginning; text before it means nothing.
    let first = delimiter.as_bytes().get(2..).unwrap_or_default();
    let mut rest = match body.strip_prefix(first) {
        Some(rest) => rest,
        None => split(body, delimiter.as_bytes()).ok_or(MultipartError::Start)?.1,
    };
    let mut parts = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let after = rest[padding..].strip_prefix(b"\r\n").ok_or(MultipartError::End)?;
        if parts.len() == MOST_PARTS {
            return Err(MultipartError::TooMany);
        }
        // A part without headers begins with the empty line at once.
        let (headers, content) = match after.strip_prefix(b"\r\n") {
            Some(content) => (&b""[..], content),
            None => {
                let within = &after[..after.len().min(MOST_HEADER)];
                let (headers, _) = split(within, b"\r\n\r\n").ok_or(MultipartError::Header)?;
                (headers, &after[headers.len() + 4..])
            }
        };
        let (content, next) = split(content, delimiter.as_bytes()).ok_or(MultipartError::End)?;
        parts.push(part(headers, content)?);
        rest = next;
    }
}

fn part<'a>(headers: &'a [u8], content: &'a [u8]) -> Result<Part<'a>, MultipartError> {
    let headers = std::str::from_utf8(headers).map_err(|_| MultipartError::Header)?;
    let (mut name, mut content_type) = (None, None);
    for line in headers.split("\r\n").filter(|line| !line.is_empty()) {
        let (key, value) = line.split_once(':').ok_or(MultipartError::Header)?;
        if key.eq_ignore_ascii_case("content-disposition") {
            name = parameter(value, "name");
        } else if key.eq_ignore_ascii_case("content-type") {
            content_type = Some(value.trim());
        }
    }
    Ok(Part { name: name.ok_or(MultipartError::Name)?, content_type, content })
}

/// The value of parameter `wanted` of a header such as `form-data; name="data"; filename=x`.
fn parameter<'a>(header: &'a str, wanted: &str) -> Option<Cow<'a, str>> {
    let (_, mut rest) = header.split_once(';')?;
    loop {
        let (key, after) = rest.split_once('=')?;
        let (value, after) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => quoted_value(quoted)?,
            None => {
                let (value, after) = after.split_once(';').unwrap_or((after, ""));
                (Cow::Borrowed(value.trim()), after)
            }
        };
        if key.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = after.trim_start().trim_start_matches(';');
    }
}

/// A quoted value up to its closing quote, and what follows that.
fn quoted_value(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut is_escaped = false;
    let end = text.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })?;
    let (value, after) = (&text[..end], &text[end + 1..]);
    if !value.contains('\\') {
        return Some((Cow::Borrowed(value), after));
    }
    let mut plain = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    Some((Cow::Owned(plain), after))
}

/// What stands before and after the first `needle`, which is not empty.
fn split<'a>(haystack: &'a [u8], needle: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let first = *needle.first()?;
    let mut at = 0;
    loop {
        at += haystack.get(at..)?.iter().position(|&byte| byte == first)?;
        if haystack[at..].starts_with(needle) {
            return Some((&haystack[..at], &haystack[at + needle.len()..]));
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{MOST_PARTS, MultipartError, boundary, parts};

    /// A body as curl writes it.
    fn body(boundary: &str, parts: &[(&str, Option<&str>, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, content_type, content) in parts {
            body.extend_from_slice(
                format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n").as_bytes(),
            );
            if let Some(content_type) = content_type {
                body.extend_from_slice(format!("Content-Type: {content_type}\r\n").as_bytes());
            }
            body.extend_from_slice(b"\r\n");
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        body
    }

    #[test]
    fn boundaries_come_plain_or_quoted() {
        for (content_type, expected) in [
            ("multipart/form-data; boundary=abc", Some("abc")),
            ("multipart/form-data; charset=utf-8; BOUNDARY=\"a b;=c\"", Some("a b;=c")),
            ("multipart/form-data;boundary=abc;x=y", Some("abc")),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("multipart/form-data; boundary=\"abc", None),
            ("multipart/form-data; boundary=\"a\u{7f}\"", None),
        ] {
            assert_eq!(boundary(content_type).ok().as_deref(), expected, "{content_type}");
        }
        assert!(boundary(&format!("multipart/form-data; boundary={}", "x".repeat(71))).is_err());
    }

    #[test]
    fn parts_have_names_types_and_bytes() {
        let text = b"preamble\r\n--B \t\r\ncontent-disposition: form-data; filename=\"a\\\"b\"; name=data\r\n\
            CONTENT-TYPE: image/jpeg\r\n\r\n\xff\r\n--A\xd8\r\n--B\r\nContent-Disposition: form-data; name=\"x\\\"y\"\r\n\r\n\r\n--B--tail";
        let found = parts(text, "B").unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((&*found[0].name, found[0].content_type), ("data", Some("image/jpeg")));
        assert_eq!(found[0].content, b"\xff\r\n--A\xd8");
        assert_eq!((&*found[1].name, found[1].content_type, found[1].content), ("x\"y", None, &b""[..]));
        assert_eq!(parts(b"--B--", "B").unwrap(), []);
    }

    #[test]
    fn what_is_broken_is_refused() {
        for (text, error) in [
            (&b""[..], MultipartError::Start),
            (b"[[1.0]]", MultipartError::Start),
            (b"--B", MultipartError::End),
            (b"--Bx\r\n", MultipartError::End),
            (b"--B\r\nContent-Disposition: form-data; name=a\r\n\r\ntext", MultipartError::End),
            (b"--B\r\nContent-Disposition: form-data; name=a", MultipartError::Header),
            (b"--B\r\nno colon\r\n\r\n\r\n--B--", MultipartError::Header),
            (b"--B\r\n\xff: x\r\n\r\n\r\n--B--", MultipartError::Header),
            (b"--B\r\nContent-Disposition: form-data\r\n\r\n\r\n--B--", MultipartError::Name),
            (b"--B\r\n\r\ntext\r\n--B--", MultipartError::Name),
        ] {
            assert_eq!(parts(text, "B").unwrap_err(), error, "{}", text.escape_ascii());
        }
        let many = body("B", &vec![("a", None, &b""[..]); MOST_PARTS + 1]);
        assert_eq!(parts(&many, "B").unwrap_err(), MultipartError::TooMany);
        let mut long = b"--B\r\nX: ".to_vec();
        long.resize(20_000, b'x');
        long.extend_from_slice(b"\r\n\r\n\r\n--B--");
        assert_eq!(parts(&long, "B").unwrap_err(), MultipartError::Header);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_whatever_its_bytes(
            contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..5),
        ) {
            // Longer than any content, so that none can hold it.
            let boundary = "-".repeat(60);
            let clashes = contents.iter().any(|content| content.windows(60).any(|window| window == boundary.as_bytes()));
            prop_assume!(!clashes);
            let written: Vec<_> = contents.iter().map(|content| ("data", Some("image/png"), content.as_slice())).collect();
            let written = body(&boundary, &written);
            let found = parts(&written, &boundary).unwrap();
            prop_assert_eq!(found.iter().map(|part| part.content.to_vec()).collect::<Vec<_>>(), contents);
        }

        #[test]
        fn any_bytes_are_parts_or_an_error_and_never_more_than_there_are(
            text in prop::collection::vec(prop::sample::select(b"\r\n-B: ;=\"name\\Xcontent-disposition\xff".to_vec()), 0..400),
        ) {
            if let Ok(found) = parts(&text, "B") {
                let total: usize = found.iter().map(|part| part.content.len() + part.name.len()).sum();
                prop_assert!(total <= text.len());
            }
            let _ = boundary(&String::from_utf8_lossy(&text));
        }
    }
}
