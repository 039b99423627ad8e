//! Which coding a request's body has and which one its answer gets.

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http::{HeaderMap, HeaderValue};

use crate::coding::Coding;

/// What may stand in `Content-Encoding`, as an answer's `Accept-Encoding` says it.
pub(super) const ACCEPTED: HeaderValue = HeaderValue::from_static("gzip, deflate");

const KNOWN: [Coding; 3] = [Coding::Identity, Coding::Gzip, Coding::Deflate];

/// The coding of the body, or `None` where it is none of ours. Matches as a whole: `gzip, gzip` is another coding.
pub(super) fn of_body(headers: &HeaderMap) -> Option<Coding> {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    match (values.next(), values.next()) {
        (None, _) => Some(Coding::Identity),
        (Some(value), None) => KNOWN.into_iter().find(|coding| value.as_bytes() == coding.name().as_bytes()),
        (Some(_), Some(_)) => None,
    }
}

/// The coding that the client wants most: the highest weight wins, and the first of equal ones.
pub(super) fn of_answer(headers: &HeaderMap) -> Coding {
    let lists = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut best = (Coding::Identity, 0.0);
    for item in lists.flat_map(|list| list.split(',')) {
        let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
        let Some(coding) = KNOWN.into_iter().find(|coding| name.trim().eq_ignore_ascii_case(coding.name())) else {
            continue;
        };
        let weight = weight(parameters);
        if weight > best.1 {
            best = (coding, weight);
        }
    }
    best.0
}

/// The weight in an item's parameters: 1 where there is none, 0 where it is no number between 0 and 1.
fn weight(parameters: &str) -> f32 {
    let mut weights = parameters.split(';').filter_map(|parameter| parameter.trim().strip_prefix("q="));
    let weight = weights.next().map_or(Ok(1.0), |text| text.trim().parse::<f32>());
    weight.ok().filter(|weight| (0.0..=1.0).contains(weight)).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
    use http::{HeaderMap, HeaderValue};

    use super::{of_answer, of_body};
    use crate::coding::Coding;

    #[test]
    fn the_highest_weight_wins_and_the_first_of_equals() {
        let cases = [
            ("gzip;q=0.2, deflate;q=0.9", Coding::Deflate),
            ("gzip, deflate", Coding::Gzip),
            ("deflate, gzip", Coding::Deflate),
            ("deflate;q=0.5,GZIP;q=0.5", Coding::Deflate),
            ("identity, gzip", Coding::Identity),
            ("identity;q=0.1, gzip;q=0.2", Coding::Gzip),
            ("gzip;q=0", Coding::Identity),
            ("gzip;q=2", Coding::Identity),
            ("gzip;q=nan, deflate;q=0.1", Coding::Deflate),
            ("br, zstd", Coding::Identity),
            ("*", Coding::Identity),
            ("", Coding::Identity),
        ];
        for (value, expected) in cases {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(value))]);
            assert_eq!(of_answer(&headers), expected, "{value}");
        }
        assert_eq!(of_answer(&HeaderMap::new()), Coding::Identity);
    }

    #[test]
    fn a_bodys_coding_matches_as_a_whole() {
        let cases = [
            ("gzip", Some(Coding::Gzip)),
            ("deflate", Some(Coding::Deflate)),
            ("identity", Some(Coding::Identity)),
            ("GZIP", None),
            ("x-gzip", None),
            ("gzip, gzip", None),
            ("br", None),
            ("", None),
        ];
        for (value, expected) in cases {
            let headers = HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(value))]);
            assert_eq!(of_body(&headers), expected, "{value}");
        }
        let mut twice = HeaderMap::new();
        twice.append(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        twice.append(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!((of_body(&twice), of_body(&HeaderMap::new())), (None, Some(Coding::Identity)));
    }
}
