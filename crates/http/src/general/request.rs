//! The body of a prediction request, taken apart: which model it is for, and where its data stands.

use std::fmt;

use bytes::Bytes;
use millrace_core::{Quoted, Reason, Refusal};
use millrace_json::{JsonError, Value, list, object};

/// Requests of one batch.
const MOST_BATCHED: usize = 1024;

/// The keys of a request.
pub(super) const KEYS: [&str; 4] = ["model_name", "model_version", "input_data", "batch_id"];

/// One prediction request.
#[derive(Debug, Clone)]
pub(super) struct Prediction {
    pub(super) model: String,
    pub(super) version: Option<String>,
    /// The text of `input_data`, a list.
    pub(super) input: Bytes,
    pub(super) batch_id: Option<String>,
}

/// What is wrong with a body: the key, where it is one, and why. For a batch, also which of its requests.
#[derive(Debug)]
pub(super) struct Malformed {
    index: Option<usize>,
    key: Option<&'static str>,
    why: String,
}

impl Malformed {
    fn document(error: &JsonError) -> Self {
        Self { index: None, key: None, why: error.to_string() }
    }

    fn key(key: &'static str, why: impl Into<String>) -> Self {
        Self { index: None, key: Some(key), why: why.into() }
    }

    pub(super) fn refusal(&self) -> Refusal {
        Refusal::new(Reason::InvalidInput, self.to_string())
    }
}

/// `[3].input_data: why`; the form of an error's body reads this again.
impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.index, self.key) {
            (None, None) => f.write_str(&self.why),
            (None, Some(key)) => write!(f, "{key}: {}", self.why),
            (Some(index), None) => write!(f, "[{index}]: {}", self.why),
            (Some(index), Some(key)) => write!(f, "[{index}].{key}: {}", self.why),
        }
    }
}

impl Prediction {
    /// Reads a body; `named` is the model that the path names, if any. Gives `None` for one in the form of the text routes,
    /// which have a key that no prediction has.
    ///
    /// # Errors
    /// [`Malformed`], about the first key that is wrong.
    pub(super) fn read(body: &Bytes, named: Option<&str>, max_depth: usize) -> Result<Option<Self>, Malformed> {
        let members = object(body, max_depth).map_err(|error| Malformed::document(&error))?;
        let has = |wanted: &str| members.iter().any(|(key, _)| key == wanted);
        if has("inputs") && !has("input_data") {
            return Ok(None);
        }
        Self::of_members(body, &members, named).map(Some)
    }

    /// Reads the requests of a batch.
    ///
    /// # Errors
    /// [`Malformed`], about the first request that is wrong.
    pub(super) fn read_batch(body: &Bytes, max_depth: usize) -> Result<Vec<Self>, Malformed> {
        let items = list(body, max_depth, MOST_BATCHED).map_err(|error| Malformed::document(&error))?;
        let Some(items) = items else {
            return Err(Malformed { index: None, key: None, why: "expected a list of prediction requests".to_owned() });
        };
        let read = |(index, item): (usize, &Value<'_>)| {
            let members = item.object(max_depth).map_err(|error| Malformed::document(&error));
            let read = members.and_then(|members| Self::of_members(body, &members, None));
            read.map_err(|malformed| Malformed { index: Some(index), ..malformed })
        };
        items.iter().enumerate().map(read).collect()
    }

    fn of_members(body: &Bytes, members: &[(String, Value<'_>)], named: Option<&str>) -> Result<Self, Malformed> {
        let find = |wanted: &str| members.iter().find(|(key, _)| key == wanted).map(|(_, value)| value);
        let text = |key: &'static str| match find(key) {
            Some(value) if !value.is_null() => {
                let wrong = || Malformed::key(key, format!("expected a string, got {}", value.shown().0));
                value.string().map(Some).ok_or_else(wrong)
            }
            Some(_) | None => Ok(None),
        };
        let model = match (text("model_name")?, named) {
            (None, None) => return Err(Malformed::key("model_name", "field required")),
            (Some(model), Some(named)) if model != named => {
                let why = format!("the path names {}, the body {}", Quoted(named), Quoted(&model));
                return Err(Malformed::key("model_name", why));
            }
            (Some(model), _) => model,
            (None, Some(named)) => named.to_owned(),
        };
        let version = text("model_version")?;
        let batch_id = text("batch_id")?;
        let input = find("input_data").ok_or_else(|| Malformed::key("input_data", "field required"))?;
        if input.text().first() != Some(&b'[') {
            let why = format!("expected a list of lists of numbers, got {}", input.shown().0);
            return Err(Malformed::key("input_data", why));
        }
        Ok(Self { model, version, input: body.slice_ref(input.text()), batch_id })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::Prediction;

    fn read(text: &'static str, named: Option<&str>) -> Result<Prediction, String> {
        let read = Prediction::read(&Bytes::from_static(text.as_bytes()), named, 8).map_err(|error| error.to_string());
        read.map(|prediction| prediction.expect("a prediction"))
    }

    #[test]
    fn keys_come_in_any_order_and_unknown_ones_mean_nothing() {
        let body =
            r#"{"input_data": [[1, 2]], "odd": {"a": [1]}, "batch_id": "b", "model_name": "m", "model_version": null}"#;
        let read = read(body, None).unwrap();
        assert_eq!((&*read.model, read.version, read.batch_id.as_deref()), ("m", None, Some("b")));
        assert_eq!(read.input, "[[1, 2]]");
    }

    #[test]
    fn the_path_may_name_the_model_and_the_body_must_not_contradict_it() {
        assert_eq!(read(r#"{"input_data": []}"#, Some("m")).unwrap().model, "m");
        assert_eq!(read(r#"{"input_data": [], "model_name": "m"}"#, Some("m")).unwrap().model, "m");
        let error = read(r#"{"input_data": [], "model_name": "n"}"#, Some("m")).unwrap_err();
        assert_eq!(error, "model_name: the path names `m`, the body `n`");
    }

    #[test]
    fn the_key_of_the_text_routes_is_no_key_of_a_prediction() {
        let read = |text: &'static [u8]| Prediction::read(&Bytes::from_static(text), None, 8).unwrap().is_some();
        assert!(!read(br#"{"inputs": "text"}"#));
        assert!(!read(br#"{"inputs": 5, "model_name": "m"}"#));
        assert!(read(br#"{"inputs": 5, "model_name": "m", "input_data": [[1]]}"#));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_key() {
        for (body, words) in [
            ("", "empty"),
            ("[]", "object"),
            ("{", "too early"),
            ("{} x", "trailing"),
            (r#"{"model_name": "m", "model_name": "m"}"#, "duplicate key `model_name`"),
            (r#"{"input_data": [[1]]}"#, "model_name: field required"),
            (r#"{"model_name": 5, "input_data": [[1]]}"#, "model_name: expected a string, got `5`"),
            (r#"{"model_name": "m"}"#, "input_data: field required"),
            (r#"{"model_name": "m", "input_data": null}"#, "input_data: expected a list"),
            (r#"{"model_name": "m", "input_data": [], "model_version": 1}"#, "model_version: expected a string"),
            (r#"{"model_name": "m", "input_data": [], "batch_id": []}"#, "batch_id: expected a string"),
        ] {
            let error = read(body, None).unwrap_err();
            assert!(error.contains(words), "{body}: {error}");
        }
        let batch = Bytes::from_static(br#"[{"model_name": "m", "input_data": []}, {"model_name": "m"}]"#);
        let error = Prediction::read_batch(&batch, 8).unwrap_err();
        assert_eq!(error.to_string(), "[1].input_data: field required");
        assert!(Prediction::read_batch(&Bytes::from_static(b"{}"), 8).unwrap_err().to_string().contains("list"));
        assert!(Prediction::read_batch(&Bytes::from_static(b"[]"), 8).unwrap().is_empty());
        let many = Bytes::from(format!("[{}]", vec!["{}"; 1025].join(",")));
        assert!(Prediction::read_batch(&many, 8).unwrap_err().to_string().contains("1024"));
    }
}
