//! Reads the keys of a JSON object one by one, each with its type and its bounds.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::MAX_FILE_BYTES;
use crate::error::{HuggingFaceError, Shortened};

/// The object of a file. A key whose value is `null` counts as not there, as it does for the libraries that write them.
#[derive(Debug, Clone)]
pub(crate) struct Fields {
    file: String,
    map: Map<String, Value>,
}

/// Parses `bytes`, the content of `file`.
pub(crate) fn parse(file: &str, bytes: &[u8]) -> Result<Value, HuggingFaceError> {
    let file = file.to_owned();
    if bytes.len() > MAX_FILE_BYTES {
        return Err(HuggingFaceError::TooLarge { file, bytes: bytes.len(), most: MAX_FILE_BYTES });
    }
    serde_json::from_slice(bytes).map_err(|error| HuggingFaceError::Syntax { file, detail: error.to_string() })
}

impl Fields {
    pub(crate) fn parse(file: &str, bytes: &[u8]) -> Result<Self, HuggingFaceError> {
        match parse(file, bytes)? {
            Value::Object(map) => Ok(Self::of(file, map)),
            other => {
                let detail = format!("expected an object, got {}", Shortened(&other));
                Err(HuggingFaceError::Syntax { file: file.to_owned(), detail })
            }
        }
    }

    pub(crate) fn of(file: &str, map: Map<String, Value>) -> Self {
        Self { file: file.to_owned(), map }
    }

    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The value of `key` for a message; `null` where it is not there.
    pub(crate) fn value(&self, key: &str) -> &Value {
        const NULL: &Value = &Value::Null;
        self.map.get(key).unwrap_or(NULL)
    }

    pub(crate) fn missing(&self, key: &str, expected: impl Into<String>) -> HuggingFaceError {
        HuggingFaceError::Missing { file: self.file.clone(), key: key.to_owned(), expected: expected.into() }
    }

    pub(crate) fn wrong(&self, key: &str, expected: impl Into<String>) -> HuggingFaceError {
        let (file, got) = (self.file.clone(), Shortened(self.value(key)).to_string());
        let key = key.to_owned();
        HuggingFaceError::Wrong { file, key, expected: expected.into(), got }
    }

    pub(crate) fn unsupported(&self, key: &str, known: impl Into<String>) -> HuggingFaceError {
        let (file, got) = (self.file.clone(), Shortened(self.value(key)).to_string());
        let key = key.to_owned();
        HuggingFaceError::Unsupported { file, key, known: known.into(), got }
    }

    /// A whole number in `range`, if the key is there.
    pub(crate) fn size(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, HuggingFaceError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok()).filter(|size| range.contains(size));
        size.map(Some).ok_or_else(|| self.wrong(key, whole(&range)))
    }

    /// A whole number in `range` that must be there.
    pub(crate) fn needed_size(&self, key: &str, range: RangeInclusive<usize>) -> Result<usize, HuggingFaceError> {
        self.size(key, range.clone())?.ok_or_else(|| self.missing(key, whole(&range)))
    }

    /// One or more whole numbers in `range`, at most `most` of them.
    pub(crate) fn sizes(
        &self,
        key: &str,
        range: RangeInclusive<usize>,
        most: usize,
    ) -> Result<Option<Vec<usize>>, HuggingFaceError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let one = |item: &Value| {
            item.as_u64().and_then(|size| usize::try_from(size).ok()).filter(|size| range.contains(size))
        };
        let sizes = value
            .as_array()
            .filter(|items| (1..=most).contains(&items.len()))
            .and_then(|items| items.iter().map(one).collect());
        sizes.map(Some).ok_or_else(|| self.wrong(key, format!("a list of 1 to {most}, each {}", whole(&range))))
    }

    /// A finite number in `range`, if the key is there.
    pub(crate) fn number(&self, key: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, HuggingFaceError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().filter(|number| range.contains(number));
        number.map(Some).ok_or_else(|| self.wrong(key, format!("a number from {} to {}", range.start(), range.end())))
    }

    /// A list of finite numbers in `range`, at most `most` of them; one number is a list of one.
    pub(crate) fn numbers(
        &self,
        key: &str,
        range: RangeInclusive<f64>,
        most: usize,
    ) -> Result<Option<Vec<f64>>, HuggingFaceError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let items = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
        let one = |item: &Value| item.as_f64().filter(|number| range.contains(number));
        let numbers = Some(items).filter(|items| (1..=most).contains(&items.len()));
        numbers.and_then(|items| items.iter().map(one).collect()).map(Some).ok_or_else(|| {
            let (least, largest) = (range.start(), range.end());
            self.wrong(key, format!("1 to {most} numbers from {least} to {largest}"))
        })
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, HuggingFaceError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(key, "true or false"))
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>, HuggingFaceError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, "a string"))
    }

    /// One of `words`, if the key is there; another word is not supported.
    pub(crate) fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<Option<T>, HuggingFaceError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        found.map(Some).ok_or_else(|| self.unsupported(key, list(words.iter().map(|(word, _)| *word))))
    }

    pub(crate) fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>, HuggingFaceError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_object().map(Some).ok_or_else(|| self.wrong(key, "an object"))
    }
}

/// Words as messages list them.
pub(crate) fn list<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

fn whole(range: &RangeInclusive<usize>) -> String {
    format!("a whole number from {} to {}", range.start(), range.end())
}
