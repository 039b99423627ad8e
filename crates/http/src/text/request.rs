//! Bodies of the text routes, read into what they ask. Keys that a route does not know mean nothing; `null` is as good as
//! nothing where a key may be missing.

use super::choice::Need;
use super::prepare::MOST_POSITIONS;
use bytes::Bytes;
use millrace_core::{Quoted, Reason, Refusal, TextFacts, TextInput, Truncation};
use millrace_json::{JsonError, Kind, Reader, Scalar, Value, list, object};

/// What bounds a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Nesting of arrays and objects.
    pub(super) depth: usize,
    /// Texts of one request.
    pub(super) texts: usize,
}

/// What a body asks a model.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) rows: Rows,
    pub(super) truncate: Option<bool>,
    /// Which end is kept or cut, where the body says it.
    pub(super) direction: Option<Truncation>,
    pub(super) prompt_name: Option<String>,
    pub(super) wish: Wish,
}

/// What is to be made of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// A vector for each, cut to so many numbers.
    Vectors { normalize: bool, dimensions: Option<usize>, form: VectorForm },
    /// A vector for each token.
    TokenVectors,
    /// The similarity of each to the first.
    Similarity,
    /// Scores of labels; whether the body held a single text or pair outside of a list.
    Labels { raw_scores: bool, is_single: bool },
    /// The texts, the best first.
    Ranks { raw_scores: bool, return_text: bool },
}

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VectorForm {
    /// Lists in a list.
    Lists,
    /// OpenAI's objects, of lists or of base64.
    OpenAi { base64: bool },
}

/// The rows of one request.
#[derive(Debug)]
pub(super) enum Rows {
    /// Each for itself.
    Each(Vec<Row>),
    /// One text with each of the others.
    Against {
        /// The one.
        query: String,
        /// The others.
        texts: Vec<String>,
    },
}

/// One row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Row {
    Text(String),
    Pair(String, String),
    Ids(Vec<u32>),
}

/// What `/tokenize` asks.
#[derive(Debug)]
pub(super) struct Tokenize {
    pub(super) texts: Vec<String>,
    pub(super) special_tokens: bool,
    pub(super) prompt_name: Option<String>,
}

/// What `/decode` asks.
#[derive(Debug)]
pub(super) struct Decode {
    pub(super) lists: Vec<Vec<u32>>,
    pub(super) skip_special_tokens: bool,
}

/// In which way a body is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The whole of it: it is no JSON object, or does not say which model it is for.
    Request,
    /// A key is missing or has a wrong value.
    Value,
    /// There is nothing to do.
    Empty,
    /// There are too many texts.
    TooMany,
}

/// What is wrong with a body.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) fault: Fault,
    text: String,
}

impl Problem {
    pub(super) fn request(text: String) -> Self {
        Self { fault: Fault::Request, text }
    }

    fn value(key: &str, why: impl AsRef<str>) -> Self {
        Self { fault: Fault::Value, text: format!("{key}: {}", why.as_ref()) }
    }

    fn empty(key: &str) -> Self {
        Self { fault: Fault::Empty, text: format!("{key}: expected at least one text, and no empty one") }
    }

    fn too_many(key: &str, limit: usize) -> Self {
        let text = format!("{key}: more texts than the limit of {limit} of one request; split it");
        Self { fault: Fault::TooMany, text }
    }

    pub(super) fn refusal(self) -> Refusal {
        let reason = if self.fault == Fault::TooMany { Reason::TooLarge } else { Reason::InvalidInput };
        Refusal::new(reason, self.text)
    }
}

impl From<JsonError> for Problem {
    fn from(error: JsonError) -> Self {
        Self::request(error.to_string())
    }
}

/// The members of a body or of an object inside of it.
#[derive(Debug)]
pub(super) struct Members<'a> {
    members: Vec<(String, Value<'a>)>,
    limits: Limits,
}

impl<'a> Members<'a> {
    /// Takes a body apart.
    ///
    /// # Errors
    /// [`Problem`] where it is no object.
    pub(super) fn of(body: &'a Bytes, limits: Limits) -> Result<Self, Problem> {
        Ok(Self { members: object(body, limits.depth)?, limits })
    }

    fn find(&self, wanted: &str) -> Option<&Value<'a>> {
        self.members.iter().find(|(key, value)| key == wanted && !value.is_null()).map(|(_, value)| value)
    }

    fn required(&self, key: &str) -> Result<&Value<'a>, Problem> {
        self.find(key).ok_or_else(|| Problem::value(key, "field required"))
    }

    /// The string of `key`, if any.
    pub(super) fn text(&self, key: &str) -> Result<Option<String>, Problem> {
        self.find(key).map(|value| text_of(key, value)).transpose()
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, Problem> {
        let read = |value: &Value<'_>| match value.text() {
            b"true" => Ok(true),
            b"false" => Ok(false),
            _ => Err(unexpected(key, "true or false", value)),
        };
        self.find(key).map(read).transpose()
    }

    fn count(&self, key: &str) -> Result<Option<usize>, Problem> {
        let read = |value: &Value<'_>| {
            let text = str::from_utf8(value.text()).unwrap_or_default();
            let number = text.parse().ok().filter(|number| *number > 0);
            number.ok_or_else(|| unexpected(key, "a positive whole number", value))
        };
        self.find(key).map(read).transpose()
    }

    fn direction(&self) -> Result<Option<Truncation>, Problem> {
        const KEY: &str = "truncation_direction";
        let read = |value: &Value<'_>| match value.string().as_deref() {
            Some("left" | "Left") => Ok(Truncation::Left),
            Some("right" | "Right") => Ok(Truncation::Right),
            _ => Err(unexpected(KEY, "`left` or `right`", value)),
        };
        self.find(KEY).map(read).transpose()
    }

    /// `/embed` and OpenAI's texts: one, several, or token ids in place of either.
    fn texts(&self, key: &str) -> Result<Vec<Row>, Problem> {
        const EXPECTED: &str = "a string, token ids, or a list of those";
        let value = self.required(key)?;
        let rows = match first_of(value) {
            Some(b'"') => vec![Row::Text(text_of(key, value)?)],
            Some(b'[') if is_number(value) => vec![Row::Ids(ids_of(key, value, self.limits.depth)?)],
            Some(b'[') => {
                let row = |value: &Value<'_>| match first_of(value) {
                    Some(b'"') => text_of(key, value).map(Row::Text),
                    Some(b'[') => ids_of(key, value, self.limits.depth).map(Row::Ids),
                    _ => Err(unexpected(key, EXPECTED, value)),
                };
                self.elements(key, value)?.iter().map(row).collect::<Result<_, _>>()?
            }
            _ => return Err(unexpected(key, EXPECTED, value)),
        };
        whole(key, rows, Row::is_empty)
    }

    /// A list of strings.
    fn strings(&self, key: &str) -> Result<Vec<String>, Problem> {
        let value = self.required(key)?;
        if first_of(value) != Some(b'[') {
            return Err(unexpected(key, "a list of strings", value));
        }
        self.elements(key, value)?.iter().map(|value| text_of(key, value)).collect()
    }

    /// The elements of a list, as many as there may be texts.
    fn elements(&self, key: &str, value: &Value<'a>) -> Result<Vec<Value<'a>>, Problem> {
        let Limits { depth, texts } = self.limits;
        match list(value.text(), depth, texts) {
            Ok(elements) => Ok(elements.unwrap_or_default()),
            Err(JsonError::TooMany { limit, .. }) => Err(Problem::too_many(key, limit)),
            Err(error) => Err(error.into()),
        }
    }

    /// A text, a pair, or a list of lists of one text or two.
    fn pairs(&self, key: &str) -> Result<(Vec<Row>, bool), Problem> {
        const EXPECTED: &str = "a string, a pair of strings, or a list of lists of one string or two";
        let value = self.required(key)?;
        let row = |texts: Vec<String>, value: &Value<'_>| match <[String; 2]>::try_from(texts) {
            Ok([first, second]) => Ok(Row::Pair(first, second)),
            Err(texts) => match <[String; 1]>::try_from(texts) {
                Ok([only]) => Ok(Row::Text(only)),
                Err(_) => Err(unexpected(key, EXPECTED, value)),
            },
        };
        let texts = |elements: &[Value<'_>]| elements.iter().map(|value| text_of(key, value)).collect::<Result<_, _>>();
        let (rows, is_single) = match first_of(value) {
            Some(b'"') => (vec![Row::Text(text_of(key, value)?)], true),
            Some(b'[') => {
                let elements = self.elements(key, value)?;
                match elements.first().map(first_of) {
                    None => (Vec::new(), false),
                    Some(Some(b'"')) => (vec![row(texts(&elements)?, value)?], true),
                    Some(Some(b'[')) => {
                        let rows = elements.iter().map(|value| match first_of(value) {
                            Some(b'[') => row(texts(&self.elements(key, value)?)?, value),
                            _ => Err(unexpected(key, EXPECTED, value)),
                        });
                        (rows.collect::<Result<_, _>>()?, false)
                    }
                    Some(_) => return Err(unexpected(key, EXPECTED, value)),
                }
            }
            _ => return Err(unexpected(key, EXPECTED, value)),
        };
        Ok((whole(key, rows, Row::is_empty)?, is_single))
    }

    /// A request with these rows and the options that all such requests have.
    fn ask(&self, rows: Rows, wish: Wish) -> Result<Ask, Problem> {
        Ok(Ask {
            rows,
            truncate: self.flag("truncate")?,
            direction: self.direction()?,
            prompt_name: self.text("prompt_name")?,
            wish,
        })
    }

    /// `POST /v1/embeddings`
    pub(super) fn openai(&self) -> Result<Ask, Problem> {
        const FORMAT: &str = "encoding_format";
        let rows = self.texts("input")?;
        let base64 = match self.text(FORMAT)?.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(other) => {
                return Err(Problem::value(FORMAT, format!("expected `float` or `base64`, got {}", Quoted(other))));
            }
        };
        let form = VectorForm::OpenAi { base64 };
        let wish = Wish::Vectors { normalize: true, dimensions: self.count("dimensions")?, form };
        Ok(Ask { rows: Rows::Each(rows), truncate: None, direction: None, prompt_name: None, wish })
    }

    /// `POST /embed`
    pub(super) fn embed(&self) -> Result<Ask, Problem> {
        let rows = Rows::Each(self.texts("inputs")?);
        let (normalize, dimensions) = (self.flag("normalize")?.unwrap_or(true), self.count("dimensions")?);
        self.ask(rows, Wish::Vectors { normalize, dimensions, form: VectorForm::Lists })
    }

    /// `POST /embed_all`
    pub(super) fn embed_all(&self) -> Result<Ask, Problem> {
        self.ask(Rows::Each(self.texts("inputs")?), Wish::TokenVectors)
    }

    /// `POST /similarity`
    pub(super) fn similarity(&self) -> Result<Ask, Problem> {
        const SENTENCES: &str = "inputs.sentences";
        let within = |key: &str, value: &Value<'a>| {
            if !value.is_object() {
                return Err(unexpected(key, "an object", value));
            }
            Ok(Self { members: value.object(self.limits.depth)?, limits: self.limits })
        };
        let inputs = within("inputs", self.required("inputs")?)?;
        let source = inputs.text("source_sentence")?;
        let source = source.ok_or_else(|| Problem::value("inputs.source_sentence", "field required"))?;
        let sentences = match inputs.find("sentences") {
            Some(_) => inputs.strings("sentences")?,
            None => return Err(Problem::value(SENTENCES, "field required")),
        };
        if sentences.is_empty() {
            return Err(Problem::empty(SENTENCES));
        }
        if sentences.len() >= self.limits.texts {
            return Err(Problem::too_many(SENTENCES, self.limits.texts));
        }
        let rows = [source].into_iter().chain(sentences).collect();
        let rows: Vec<String> = whole(SENTENCES, rows, String::is_empty)?;
        let rows = Rows::Each(rows.into_iter().map(Row::Text).collect());
        match self.find("parameters") {
            Some(parameters) => within("parameters", parameters)?.ask(rows, Wish::Similarity),
            None => Self { members: Vec::new(), limits: self.limits }.ask(rows, Wish::Similarity),
        }
    }

    /// `POST /rerank`
    pub(super) fn rerank(&self) -> Result<Ask, Problem> {
        let query = self.text("query")?.ok_or_else(|| Problem::value("query", "field required"))?;
        let texts = self.strings("texts")?;
        // With a query, an empty text is something to judge.
        if texts.is_empty() || query.is_empty() && texts.iter().any(String::is_empty) {
            return Err(Problem::empty("texts"));
        }
        let raw_scores = self.flag("raw_scores")?.unwrap_or(false);
        let return_text = self.flag("return_text")?.unwrap_or(false);
        self.ask(Rows::Against { query, texts }, Wish::Ranks { raw_scores, return_text })
    }

    /// `POST /predict`
    pub(super) fn predict(&self) -> Result<Ask, Problem> {
        let (rows, is_single) = self.pairs("inputs")?;
        let raw_scores = self.flag("raw_scores")?.unwrap_or(false);
        self.ask(Rows::Each(rows), Wish::Labels { raw_scores, is_single })
    }

    /// `POST /tokenize`
    pub(super) fn tokenize(&self) -> Result<Tokenize, Problem> {
        const KEY: &str = "inputs";
        let value = self.required(KEY)?;
        let texts = match first_of(value) {
            Some(b'"') => vec![text_of(KEY, value)?],
            Some(b'[') => self.strings(KEY)?,
            _ => return Err(unexpected(KEY, "a string or a list of strings", value)),
        };
        Ok(Tokenize {
            texts: whole(KEY, texts, String::is_empty)?,
            special_tokens: self.flag("add_special_tokens")?.unwrap_or(true),
            prompt_name: self.text("prompt_name")?,
        })
    }

    /// `POST /decode`
    pub(super) fn decode(&self) -> Result<Decode, Problem> {
        const KEY: &str = "ids";
        const EXPECTED: &str = "a list of token ids or a list of such lists";
        let value = self.required(KEY)?;
        let lists = match first_of(value) {
            Some(b'[') if is_number(value) => vec![ids_of(KEY, value, self.limits.depth)?],
            Some(b'[') => {
                let read = |value: &Value<'_>| match first_of(value) {
                    Some(b'[') => ids_of(KEY, value, self.limits.depth),
                    _ => Err(unexpected(KEY, EXPECTED, value)),
                };
                self.elements(KEY, value)?.iter().map(read).collect::<Result<_, _>>()?
            }
            _ => return Err(unexpected(KEY, EXPECTED, value)),
        };
        let skip_special_tokens = self.flag("skip_special_tokens")?.unwrap_or(true);
        Ok(Decode { lists: whole(KEY, lists, Vec::is_empty)?, skip_special_tokens })
    }
}

impl Row {
    fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Pair(first, second) => first.is_empty() && second.is_empty(),
            Self::Ids(ids) => ids.is_empty(),
        }
    }
}

impl Rows {
    /// How many.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Each(rows) => rows.len(),
            Self::Against { texts, .. } => texts.len(),
        }
    }

    /// One of them.
    pub(super) fn get(&self, index: usize) -> Option<TextInput<'_>> {
        Some(match self {
            Self::Each(rows) => match rows.get(index)? {
                Row::Text(text) => TextInput::Single(text),
                Row::Pair(first, second) => TextInput::Pair(first, second),
                Row::Ids(ids) => TextInput::Ids(ids),
            },
            Self::Against { query, texts } => TextInput::Pair(query, texts.get(index)?),
        })
    }
}

impl Ask {
    /// Whether a model's prompts are put before the texts: vectors of a question and of what answers it are made
    /// differently, scores are not.
    pub(super) fn takes_prompt(&self) -> bool {
        match self.wish {
            Wish::Vectors { .. } | Wish::TokenVectors | Wish::Similarity => true,
            Wish::Labels { .. } | Wish::Ranks { .. } => false,
        }
    }

    /// The kind of model that can do it.
    pub(super) fn need(&self) -> Need {
        match self.wish {
            Wish::Vectors { .. } | Wish::TokenVectors | Wish::Similarity => Need::Embedding,
            Wish::Labels { .. } => Need::Labels,
            Wish::Ranks { .. } => Need::Ranking,
        }
    }

    /// What becomes of texts that are too long for a model.
    pub(super) fn truncation(&self, facts: &TextFacts) -> Truncation {
        match (self.truncate, facts.truncation, self.direction) {
            (Some(false), ..) | (None, Truncation::Refuse, _) => Truncation::Refuse,
            (_, _, Some(direction)) => direction,
            (Some(true), Truncation::Refuse, None) => Truncation::Right,
            (_, truncation, None) => truncation,
        }
    }
}

/// Refuses a request of nothing and one with an empty text in it.
fn whole<T>(key: &str, rows: Vec<T>, is_empty: impl Fn(&T) -> bool) -> Result<Vec<T>, Problem> {
    if rows.is_empty() || rows.iter().any(is_empty) { Err(Problem::empty(key)) } else { Ok(rows) }
}

fn first_of(value: &Value<'_>) -> Option<u8> {
    value.text().first().copied()
}

/// Whether the first element of a list is neither a string nor a list: the list should be one of ids.
fn is_number(value: &Value<'_>) -> bool {
    let first = value.text().get(1..).and_then(|rest| rest.iter().find(|byte| !byte.is_ascii_whitespace()));
    first.is_some_and(|byte| !matches!(byte, b'"' | b'[' | b'{' | b']'))
}

fn text_of(key: &str, value: &Value<'_>) -> Result<String, Problem> {
    value.string().ok_or_else(|| unexpected(key, "a string", value))
}

/// The ids of a list. Read one by one: whatever stands for each element while a list is taken apart is many times as long.
fn ids_of(key: &str, value: &Value<'_>, depth: usize) -> Result<Vec<u32>, Problem> {
    let mut ids = Vec::new();
    Reader::new(value.text(), depth).list(|reader, _| {
        let here = *reader;
        let wrong = || {
            let shown = here.shown();
            Problem::value(key, format!("expected token ids, whole numbers from 0 to 2^32 - 1, got {shown}"))
        };
        let id = match reader.kind()? {
            Kind::Number => reader.scalar()?,
            _ => None,
        };
        match id {
            Some(Scalar::Int(_)) if ids.len() == MOST_POSITIONS => {
                let text = format!("{key}: more token ids than the limit of {MOST_POSITIONS}; split the list");
                return Err(Problem { fault: Fault::TooMany, text });
            }
            Some(Scalar::Int(id)) => ids.push(u32::try_from(id).map_err(|_| wrong())?),
            _ => return Err(wrong()),
        }
        Ok::<(), Problem>(())
    })?;
    Ok(ids)
}

fn unexpected(key: &str, expected: &str, value: &Value<'_>) -> Problem {
    Problem::value(key, format!("expected {expected}, got {}", value.shown().0))
}

#[cfg(test)]
mod tests;
