//! `application/x-www-form-urlencoded` text, as bodies and query strings have it: pairs of decoded bytes.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// Pairs of one text.
const MOST_PAIRS: usize = 1024;

/// More pairs than any request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {MOST_PAIRS} form fields")]
pub(crate) struct TooManyPairs;

/// A key and its value.
pub(crate) type Pair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// The pairs of `text` in their order. A key without `=` has an empty value.
///
/// # Errors
/// [`TooManyPairs`]; any bytes are pairs.
pub(crate) fn pairs(text: &[u8]) -> Result<Vec<Pair<'_>>, TooManyPairs> {
    let mut pairs = Vec::new();
    for pair in text.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()) {
        if pairs.len() == MOST_PAIRS {
            return Err(TooManyPairs);
        }
        let end = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
        pairs.push((decoded(&pair[..end]), decoded(pair.get(end + 1..).unwrap_or_default())));
    }
    Ok(pairs)
}

/// The pairs of a query string as text; bytes that are not UTF-8 become U+FFFD.
///
/// # Errors
/// [`TooManyPairs`].
pub(crate) fn query(query: Option<&str>) -> Result<Vec<(String, String)>, TooManyPairs> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let pairs = pairs(query.unwrap_or_default().as_bytes())?;
    Ok(pairs.iter().map(|(key, value)| (text(key), text(value))).collect())
}

fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(text);
    }
    let spaced: Vec<u8> = text.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{MOST_PAIRS, pairs, query};

    #[test]
    fn pairs_are_decoded() {
        let found = pairs(b"data=%5B1%2C+2%5D&a&=b&&c=d=e&f=%zz%f").unwrap();
        let text: Vec<_> = found
            .iter()
            .map(|(key, value)| format!("{}|{}", String::from_utf8_lossy(key), String::from_utf8_lossy(value)))
            .collect();
        assert_eq!(text, ["data|[1, 2]", "a|", "|b", "c|d=e", "f|%zz%f"]);
        assert_eq!(query(Some("url=a%2Fb&n=%ff")).unwrap()[1].1, "\u{fffd}");
        assert_eq!(query(None).unwrap(), []);
        assert!(pairs("a&".repeat(MOST_PAIRS).as_bytes()).is_ok());
        assert!(pairs("a&".repeat(MOST_PAIRS + 1).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn what_is_encoded_reads_back(fields in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 1..8)) {
            let encode = |bytes: &[u8]| percent_encoding::percent_encode(bytes, percent_encoding::NON_ALPHANUMERIC).to_string();
            let text: Vec<_> = fields.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
            let joined = text.join("&");
            let found = pairs(joined.as_bytes()).unwrap();
            let found: Vec<_> = found.into_iter().map(|(key, value)| (key.into_owned(), value.into_owned())).collect();
            prop_assert_eq!(found, fields);
        }

        #[test]
        fn any_bytes_are_pairs_no_longer_than_the_text(text in prop::collection::vec(any::<u8>(), 0..300)) {
            let found = pairs(&text).unwrap();
            prop_assert!(found.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() <= text.len());
        }
    }
}
