//! Turns texts into the inputs of one network.

use std::sync::Arc;

use millrace_core::{
    DType, EncodeOptions, Encoding, InputError, Strings, Tensor, TensorList, TensorSpec, TextFacts, TextInput,
    TextProcessor, TextTask, Token, Truncation,
};

use crate::canonical::{BATCH, Network, symbol};
use crate::folder::Folder;
use crate::guard::LibraryError;
use crate::template::Around;
use crate::tokenizer::Tokenizer;
use crate::truncation::{cut_text, kept, shares};

/// No token has more characters than this on average in any text that is worth looking at. Longer texts are not cut into
/// tokens: it would cost time for nothing. text-embeddings-inference has the same bound.
const CHARACTERS_PER_TOKEN: usize = 250;

const TEXT: &str = "text";
const QUERY: &str = "query";

/// What the network bears.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Rows of its table of tokens.
    pub(crate) table: usize,
    /// The token that rows are filled up with.
    pub(crate) pad: usize,
}

/// Text for one network.
#[derive(Debug)]
pub(crate) struct Processor {
    tokenizer: Tokenizer,
    facts: TextFacts,
    limits: Limits,
    has_types: bool,
    /// Whether a prompt's tokens must not be pooled, which this network cannot be told.
    hides_prompts: bool,
    inputs: Vec<TensorSpec>,
    outputs: [usize; 1],
}

/// Which of several texts is wrong, and how.
type Fault = (usize, String);

impl Processor {
    pub(crate) fn new(
        tokenizer: Tokenizer,
        facts: TextFacts,
        network: Network,
        folder: &Folder,
        limits: Limits,
    ) -> Self {
        let spec = |name| TensorSpec::new(name, DType::Bytes, vec![symbol(BATCH)]);
        let inputs = match facts.task {
            TextTask::Ranking => vec![spec(QUERY), spec(TEXT)],
            TextTask::Embedding | TextTask::Classification => vec![spec(TEXT)],
        };
        let hides_prompts = folder.modules.pooling.as_ref().is_some_and(|pooling| !pooling.includes_prompt);
        let (has_types, outputs) = (network.has_types, [network.output]);
        Self { tokenizer, facts, limits, has_types, hides_prompts, inputs, outputs }
    }

    /// The tokens of one row.
    fn row(&self, input: TextInput<'_>, options: &EncodeOptions<'_>) -> Result<Encoding, String> {
        let prompt = options.prompt.filter(|prompt| !prompt.is_empty());
        if prompt.is_some() && self.hides_prompts {
            return Err("this model leaves a prompt's tokens out of its pooling, which is not supported".to_owned());
        }
        match (input, prompt) {
            (TextInput::Single(text), None) => self.single(self.words(text, options)?, options),
            (TextInput::Single(text), Some(prompt)) => {
                self.single(self.words(&format!("{prompt}{text}"), options)?, options)
            }
            (TextInput::Ids(ids), None) => {
                self.check(ids)?;
                self.single(ids.to_vec(), options)
            }
            (TextInput::Ids(ids), Some(prompt)) => {
                let text = self.decoded(self.few(ids, options.truncation)?, true)?;
                self.single(self.words(&format!("{prompt}{text}"), options)?, options)
            }
            (TextInput::Pair(first, second), None) => self.pair(&self.words(first, options)?, second, options),
            (TextInput::Pair(..), Some(_)) => Err("a prompt cannot be put before two texts".to_owned()),
        }
    }

    fn single(&self, ids: Vec<u32>, options: &EncodeOptions<'_>) -> Result<Encoding, String> {
        if !options.special_tokens {
            let keep = self.room(ids.len(), 0, options)?;
            let ids = if keep < ids.len() { kept(&ids, keep, options.truncation).to_vec() } else { ids };
            let type_ids = vec![0; ids.len()];
            return filled(Encoding { ids, type_ids });
        }
        let around = &self.tokenizer.template.single;
        let keep = self.room(ids.len(), around.n_tokens(), options)?;
        let ids = kept(&ids, keep, options.truncation);
        filled(assembled(around, ids, None))
    }

    fn pair(&self, first: &[u32], second: &str, options: &EncodeOptions<'_>) -> Result<Encoding, String> {
        let bare = Around { types: (0, 1), ..Around::default() };
        let around = match &self.tokenizer.template.pair {
            _ if !options.special_tokens => &bare,
            Some(around) => around,
            None => return Err("this model's tokenizer does not take two texts".to_owned()),
        };
        let second = self.words(second, options)?;
        let room = self.room(first.len() + second.len(), around.n_tokens(), options)?;
        let (one, two) = shares(first.len(), second.len(), room);
        let second = kept(&second, two, options.truncation);
        filled(assembled(around, kept(first, one, options.truncation), Some(second)))
    }

    /// How many of `own` tokens are kept beside `special` ones.
    fn room(&self, own: usize, special: usize, options: &EncodeOptions<'_>) -> Result<usize, String> {
        let (all, most) = (own + special, self.facts.max_tokens);
        if all <= most {
            return Ok(own);
        }
        match options.truncation {
            Truncation::Right | Truncation::Left if special < most => Ok(most - special),
            _ => Err(format!("expected at most {most} tokens, got {all}")),
        }
    }

    /// The tokens of a text.
    fn words(&self, text: &str, options: &EncodeOptions<'_>) -> Result<Vec<u32>, String> {
        let most = self.most_characters();
        let text = match options.truncation {
            _ if text.len() <= most => text,
            Truncation::Refuse => {
                let got = text.chars().count();
                if got > most {
                    return Err(format!("expected at most {most} characters, got {got}"));
                }
                text
            }
            side @ (Truncation::Right | Truncation::Left) => cut_text(text, most, side),
        };
        let ids = self.tokenizer.ids(text).map_err(|error| failed(&error))?;
        self.check(&ids)?;
        Ok(ids)
    }

    /// The most characters of a text that is looked at.
    fn most_characters(&self) -> usize {
        self.facts.max_tokens.saturating_mul(CHARACTERS_PER_TOKEN)
    }

    /// Those of `ids` that are made a text again: no more than a text may have characters.
    fn few<'t>(&self, ids: &'t [u32], truncation: Truncation) -> Result<&'t [u32], String> {
        let most = self.most_characters();
        match truncation {
            _ if ids.len() <= most => Ok(ids),
            Truncation::Refuse => Err(format!("expected at most {most} token ids, got {}", ids.len())),
            side @ (Truncation::Right | Truncation::Left) => Ok(kept(ids, most, side)),
        }
    }

    fn check(&self, ids: &[u32]) -> Result<(), String> {
        let table = self.limits.table;
        match ids.iter().find(|id| **id as usize >= table) {
            Some(id) => Err(format!("expected token ids below {table}, got {id}")),
            None => Ok(()),
        }
    }

    fn decoded(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, String> {
        match ids.iter().find(|id| !self.tokenizer.knows(**id)) {
            Some(id) => Err(format!("no token has the id {id}; the ids end at {}", self.tokenizer.size)),
            None => self.tokenizer.decode(ids, skip_special_tokens).map_err(|error| failed(&error)),
        }
    }

    fn rows<'t>(
        &self,
        inputs: impl ExactSizeIterator<Item = Result<TextInput<'t>, String>>,
        options: &EncodeOptions<'_>,
    ) -> Result<Vec<Encoding>, Fault> {
        // A query stands before each of many texts: it is cut once.
        let mut query: Option<(&str, Vec<u32>)> = None;
        let mut row = |input: TextInput<'t>| {
            let (TextInput::Pair(first, second), None) = (input, options.prompt.filter(|prompt| !prompt.is_empty()))
            else {
                return self.row(input, options);
            };
            let ids = match query.take() {
                Some((known, ids)) if known == first => ids,
                _ => self.words(first, options)?,
            };
            let encoding = self.pair(&ids, second, options);
            query = Some((first, ids));
            encoding
        };
        inputs.enumerate().map(|(index, input)| input.and_then(&mut row).map_err(|detail| (index, detail))).collect()
    }

    /// The inputs of the network, row by row, filled up to the longest.
    fn matrix(&self, encodings: &[Encoding]) -> Result<TensorList, InputError> {
        let rows = encodings.len();
        let length = encodings.iter().map(|encoding| encoding.ids.len()).max().unwrap_or(0);
        let (Some(cells), false) = (rows.checked_mul(length), rows == 0) else { return Err(InputError::NoRows) };
        let pad = i64::try_from(self.limits.pad).unwrap_or(0);
        let mut matrices = vec![Vec::with_capacity(cells), Vec::with_capacity(cells)];
        if self.has_types {
            matrices.push(Vec::with_capacity(cells));
        }
        for encoding in encodings {
            let missing = length - encoding.ids.len();
            matrices[0].extend(encoding.ids.iter().map(|id| i64::from(*id)));
            matrices[0].extend(std::iter::repeat_n(pad, missing));
            matrices[1].extend(std::iter::repeat_n(1, encoding.ids.len()));
            if let Some(types) = matrices.get_mut(2) {
                types.extend(encoding.type_ids.iter().map(|kind| i64::from(*kind)));
            }
            matrices[1..].iter_mut().for_each(|matrix| matrix.extend(std::iter::repeat_n(0, missing)));
        }
        let tensor = |matrix| Tensor::from_vec(&[rows, length], matrix);
        let tensors: Result<TensorList, _> = matrices.into_iter().map(tensor).collect();
        // The sizes are those that the vectors were filled by.
        tensors.map_err(|error| self.fault((0, error.to_string())))
    }

    fn fault(&self, (index, detail): Fault) -> InputError {
        InputError::Instance { input: Arc::clone(&self.inputs[self.inputs.len() - 1].name), index, detail }
    }
}

impl TextProcessor for Processor {
    fn facts(&self) -> &TextFacts {
        &self.facts
    }

    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[usize] {
        &self.outputs
    }

    fn process(&self, given: &[Tensor]) -> Result<TensorList, InputError> {
        let options = EncodeOptions {
            truncation: self.facts.truncation,
            special_tokens: true,
            // Prompts tell what a vector is for; a label has none.
            prompt: self
                .facts
                .default_prompt
                .as_ref()
                .filter(|_| self.facts.task == TextTask::Embedding)
                .and_then(|name| self.facts.prompts.get(name))
                .map(String::as_str),
        };
        let strings = |index: usize| {
            given
                .get(index)
                .and_then(Tensor::strings)
                .ok_or(InputError::Count { expected: self.inputs.len(), got: given.len() })
        };
        let encodings = match self.facts.task {
            TextTask::Ranking => {
                let (queries, texts) = (strings(0)?, strings(1)?);
                // Two texts take no prompt.
                let options = EncodeOptions { prompt: None, ..options };
                let pair = |(query, text)| Ok(TextInput::Pair(utf8(query)?, utf8(text)?));
                self.rows(queries.iter().zip(texts.iter()).map(pair), &options)
            }
            TextTask::Embedding | TextTask::Classification => {
                let texts: &Strings = strings(0)?;
                self.rows(texts.iter().map(|text| utf8(text).map(TextInput::Single)), &options)
            }
        };
        self.matrix(&encodings.map_err(|fault| self.fault(fault))?)
    }

    fn encode(&self, texts: &[TextInput<'_>], options: &EncodeOptions<'_>) -> Result<Vec<Encoding>, InputError> {
        self.rows(texts.iter().map(|text| Ok(*text)), options).map_err(|fault| self.fault(fault))
    }

    fn tokens(&self, text: &str, special_tokens: bool) -> Result<Vec<Token>, InputError> {
        let most = self.most_characters();
        let got = if text.len() > most { text.chars().count() } else { 0 };
        if got > most {
            return Err(self.fault((0, format!("expected at most {most} characters, got {got}"))));
        }
        self.tokenizer.tokens(text, special_tokens).map_err(|error| self.fault((0, failed(&error))))
    }

    fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, InputError> {
        let ids = self.few(ids, Truncation::Refuse);
        ids.and_then(|ids| self.decoded(ids, skip_special_tokens)).map_err(|detail| self.fault((0, detail)))
    }

    fn tensors(&self, encodings: &[Encoding]) -> Result<TensorList, InputError> {
        self.matrix(encodings)
    }
}

/// A row's tokens with the special ones around.
fn assembled(around: &Around, first: &[u32], second: Option<&[u32]>) -> Encoding {
    let n = around.n_tokens() + first.len() + second.map_or(0, <[u32]>::len);
    let mut row = Encoding { ids: Vec::with_capacity(n), type_ids: Vec::with_capacity(n) };
    let special = |row: &mut Encoding, tokens: &[(u32, u32)]| {
        row.ids.extend(tokens.iter().map(|(id, _)| *id));
        row.type_ids.extend(tokens.iter().map(|(_, kind)| *kind));
    };
    let own = |row: &mut Encoding, ids: &[u32], kind: u32| {
        row.ids.extend_from_slice(ids);
        row.type_ids.extend(std::iter::repeat_n(kind, ids.len()));
    };
    special(&mut row, &around.before);
    own(&mut row, first, around.types.0);
    if let Some(second) = second {
        special(&mut row, &around.between);
        own(&mut row, second, around.types.1);
    }
    special(&mut row, &around.behind);
    row
}

fn filled(encoding: Encoding) -> Result<Encoding, String> {
    if encoding.ids.is_empty() { Err("it has no tokens".to_owned()) } else { Ok(encoding) }
}

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| format!("expected UTF-8, but byte {} is not", error.valid_up_to()))
}

fn failed(error: &LibraryError) -> String {
    match error {
        LibraryError::Said(text) => format!("it cannot be cut into tokens: {text}"),
        // The text of a panic is for the log, not for callers.
        LibraryError::Panicked(text) => {
            tracing::error!(panic = text, "the tokenizer library panicked");
            "it cannot be cut into tokens: the tokenizer failed".to_owned()
        }
    }
}
