//! From a body and its content type to a model's inputs.

use std::borrow::Cow;

use bytes::Bytes;
use http::HeaderValue;
use millrace_core::{Reason, Refusal, Servable};
use millrace_json::{Content, Field, PlainBody, decode_content, decode_fields};

use super::{form, multipart};

/// How a body is laid out, by its content type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `multipart/form-data` with this boundary.
    Multipart(Box<str>),
    /// `application/x-www-form-urlencoded`.
    Form,
    /// One piece.
    Single(Content),
}

impl Layout {
    /// The layout that a content type announces; without one, it is a piece of something.
    ///
    /// # Errors
    /// A [`Refusal`] for a multipart body whose boundary is not said.
    pub(crate) fn of(content_type: Option<&HeaderValue>) -> Result<Self, Refusal> {
        let text = content_type.map(|value| String::from_utf8_lossy(value.as_bytes())).unwrap_or_default();
        match media_type(&text).as_str() {
            "multipart/form-data" => {
                let boundary = multipart::boundary(&text).map_err(|error| invalid(&error))?;
                Ok(Self::Multipart(boundary.into()))
            }
            "application/x-www-form-urlencoded" => Ok(Self::Form),
            other => Ok(Self::Single(content(other))),
        }
    }

    /// The inputs that `body` holds.
    ///
    /// # Errors
    /// A [`Refusal`] that says what is wrong with it.
    pub(crate) fn read(&self, servable: &dyn Servable, body: &Bytes, max_depth: usize) -> Result<PlainBody, Refusal> {
        let signatures = servable.signatures();
        let read = match self {
            Self::Single(content) => decode_content(body, *content, signatures, max_depth),
            // What `curl -d` sends is rarely a form.
            Self::Form if matches!(body.trim_ascii_start().first(), Some(b'[' | b'{')) => {
                decode_content(body, Content::Json, signatures, max_depth)
            }
            Self::Form => {
                let pairs = form::pairs(body).map_err(|error| invalid(&error))?;
                let named = |(key, value): form::Pair<'_>| {
                    // Values that needed no decoding are parts of the body.
                    let bytes = match value {
                        Cow::Borrowed(value) => body.slice_ref(value),
                        Cow::Owned(value) => Bytes::from(value),
                    };
                    (String::from_utf8_lossy(&key).into_owned(), bytes)
                };
                let named: Vec<_> = pairs.into_iter().map(named).collect();
                let fields: Vec<_> = named
                    .iter()
                    .map(|(name, bytes)| Field { name, content: Content::Unknown, bytes: bytes.clone() })
                    .collect();
                decode_fields(&fields, signatures, max_depth)
            }
            Self::Multipart(boundary) => {
                let parts = multipart::parts(body, boundary).map_err(|error| invalid(&error))?;
                let fields: Vec<_> = parts
                    .iter()
                    .map(|part| Field {
                        name: &part.name,
                        content: content(&media_type(part.content_type.unwrap_or_default())),
                        bytes: body.slice_ref(part.content),
                    })
                    .collect();
                decode_fields(&fields, signatures, max_depth)
            }
        };
        read.map_err(|error| error.refusal(servable.model()))
    }
}

/// A content type without its parameters, in lower case.
pub(crate) fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// What a media type in lower case says about a piece.
fn content(kind: &str) -> Content {
    let (family, name) = kind.split_once('/').unwrap_or((kind, ""));
    match (family, name) {
        (_, "json") => Content::Json,
        (_, name) if name.ends_with("+json") => Content::Json,
        ("image" | "audio" | "video" | "text", _) | ("application", "octet-stream") => Content::Raw,
        _ => Content::Unknown,
    }
}

fn invalid(error: &dyn std::error::Error) -> Refusal {
    Refusal::new(Reason::InvalidInput, error.to_string())
}
