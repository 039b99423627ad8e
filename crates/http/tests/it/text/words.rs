//! Small text models: a tokenizer that cuts at white space, and networks that count.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_core::{
    DType, EncodeOptions, Encoding, InferFuture, InferRequest, InputError, Signature, Tensor, TensorList, TensorSpec,
    TextFacts, TextInput, TextProcessor, TextTask, Token, Truncation, Wanted,
};

use crate::harness::{answered, signature, spec};

/// The most tokens of a row, special ones included.
pub(crate) const MAX_TOKENS: usize = 8;

const VOCABULARY: [&str; 12] =
    ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "the", "cat", "dog", "sat", "on", "mat", "query:", "größe"];
const CLS: u32 = 1;
const SEP: u32 = 2;
const UNKNOWN: u32 = 3;
/// Ids from here on are words.
const FIRST_WORD: u32 = 4;

/// Cuts at white space.
#[derive(Debug)]
pub(crate) struct Words {
    facts: TextFacts,
    inputs: Vec<TensorSpec>,
    outputs: Vec<usize>,
}

impl Words {
    pub(crate) fn new(task: TextTask, change: impl FnOnce(&mut TextFacts)) -> Self {
        let mut facts = TextFacts {
            task,
            model_type: "words".to_owned(),
            max_tokens: MAX_TOKENS,
            truncation: Truncation::Refuse,
            labels: Vec::new(),
            is_multi_label: false,
            pooling: String::new(),
            dimension: 0,
            precision: "FP32".to_owned(),
            prompts: BTreeMap::new(),
            default_prompt: None,
        };
        if task == TextTask::Embedding {
            facts.pooling = "mean".to_owned();
            facts.dimension = 3;
        }
        change(&mut facts);
        let text = |name: &str| spec(name, DType::Bytes, &[-1]);
        let inputs = if task == TextTask::Ranking { vec![text("query"), text("text")] } else { vec![text("text")] };
        Self { facts, inputs, outputs: vec![0] }
    }

    fn ids(text: &str) -> impl Iterator<Item = u32> + '_ {
        text.split_whitespace().map(|word| {
            let index = VOCABULARY.iter().position(|known| *known == word);
            index.map_or(UNKNOWN, |index| u32::try_from(index).unwrap())
        })
    }

    fn row(&self, input: TextInput<'_>, options: &EncodeOptions<'_>) -> Result<Encoding, String> {
        let prompted = |text: &str| format!("{}{text}", options.prompt.unwrap_or_default());
        let (first, second): (Vec<u32>, Option<Vec<u32>>) = match input {
            TextInput::Single(text) => (Self::ids(&prompted(text)).collect(), None),
            TextInput::Pair(first, second) => (Self::ids(first).collect(), Some(Self::ids(second).collect())),
            TextInput::Ids(ids) if options.prompt.is_some() => {
                let text = self.decode(ids, true).map_err(|error| error.to_string())?;
                (Self::ids(&prompted(&text)).collect(), None)
            }
            TextInput::Ids(ids) => (ids.to_vec(), None),
        };
        if first.iter().any(|id| *id as usize >= VOCABULARY.len()) {
            return Err(format!("expected ids below {}", VOCABULARY.len()));
        }
        let mut row = Encoding::default();
        let mut push = |id: u32, of: u32| {
            row.ids.push(id);
            row.type_ids.push(of);
        };
        let around = |id: u32| Some(id).filter(|_| options.special_tokens);
        around(CLS).into_iter().chain(first).chain(around(SEP)).for_each(|id| push(id, 0));
        second.into_iter().flat_map(|second| second.into_iter().chain(around(SEP))).for_each(|id| push(id, 1));
        let length = row.ids.len();
        if length > MAX_TOKENS {
            // Special tokens are not spared: this is a test's tokenizer.
            match options.truncation {
                Truncation::Refuse => return Err(format!("{length} tokens, at most {MAX_TOKENS} fit")),
                Truncation::Right => row.ids.truncate(MAX_TOKENS),
                Truncation::Left => drop(row.ids.drain(..length - MAX_TOKENS)),
            }
            row.type_ids.truncate(MAX_TOKENS);
        }
        Ok(row)
    }
}

fn instance(index: usize, detail: String) -> InputError {
    InputError::Instance { input: "text".into(), index, detail }
}

impl TextProcessor for Words {
    fn facts(&self) -> &TextFacts {
        &self.facts
    }

    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[usize] {
        &self.outputs
    }

    fn process(&self, _given: &[Tensor]) -> Result<TensorList, InputError> {
        panic!("the text routes bring token ids")
    }

    fn encode(&self, texts: &[TextInput<'_>], options: &EncodeOptions<'_>) -> Result<Vec<Encoding>, InputError> {
        let row = |(index, input): (usize, &TextInput<'_>)| {
            assert!(!matches!(input, TextInput::Single("panic")), "as asked");
            self.row(*input, options).map_err(|detail| instance(index, detail))
        };
        texts.iter().enumerate().map(row).collect()
    }

    fn tokens(&self, text: &str, special_tokens: bool) -> Result<Vec<Token>, InputError> {
        let special = |id: u32| Token { id, text: VOCABULARY[id as usize].to_owned(), is_special: true, span: None };
        let mut tokens: Vec<Token> = special_tokens.then(|| special(CLS)).into_iter().collect();
        for word in text.split_whitespace() {
            let start = word.as_ptr() as usize - text.as_ptr() as usize;
            let id = Self::ids(word).next().unwrap();
            let text = VOCABULARY[id as usize].to_owned();
            tokens.push(Token { id, text, is_special: false, span: Some((start, start + word.len())) });
        }
        tokens.extend(special_tokens.then(|| special(SEP)));
        Ok(tokens)
    }

    fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, InputError> {
        let kept = ids.iter().filter(|id| !skip_special_tokens || **id >= UNKNOWN);
        let words: Option<Vec<&str>> = kept.map(|id| VOCABULARY.get(*id as usize).copied()).collect();
        words.map(|words| words.join(" ")).ok_or_else(|| instance(0, "an id that is not in the vocabulary".to_owned()))
    }

    fn tensors(&self, encodings: &[Encoding]) -> Result<TensorList, InputError> {
        let longest = encodings.iter().map(|row| row.ids.len()).max().unwrap_or(0);
        let sizes = [encodings.len(), longest];
        let tensor = |of: &dyn Fn(&Encoding, usize) -> i64| {
            let elements = encodings.iter().flat_map(|row| (0..longest).map(move |at| of(row, at)));
            Tensor::from_vec(&sizes, elements.collect::<Vec<i64>>()).unwrap()
        };
        Ok([
            tensor(&|row, at| row.ids.get(at).copied().map_or(0, i64::from)),
            tensor(&|row, at| i64::from(at < row.ids.len())),
            tensor(&|row, at| row.type_ids.get(at).copied().map_or(0, i64::from)),
        ]
        .into_iter()
        .collect())
    }
}

/// One token as a network sees it.
struct Seen {
    id: u32,
    of: i64,
}

/// The real tokens of each row.
fn rows(request: &InferRequest) -> Vec<Vec<Seen>> {
    let [ids, mask, types] = [0, 1, 2].map(|index| request.inputs[index].elements::<i64>().unwrap().into_owned());
    let width = request.inputs[0].shape()[1];
    let row = |from: usize| {
        let real = (from..from + width).filter(|at| mask[*at] == 1);
        real.map(|at| Seen { id: u32::try_from(ids[at]).unwrap(), of: types[at] }).collect()
    };
    (0..ids.len() / width).map(|index| row(index * width)).collect()
}

fn matrix(rows: &[Vec<f32>]) -> Tensor {
    let sizes = [rows.len(), rows.first().map_or(0, Vec::len)];
    Tensor::from_vec(&sizes, rows.concat()).unwrap()
}

fn network(outputs: Vec<TensorSpec>) -> Signature {
    let ids = |name: &str| {
        TensorSpec::new(name, DType::Int64, [millrace_core::Dim::symbol("N"), millrace_core::Dim::symbol("sequence")])
    };
    let inputs = vec![ids("input_ids"), ids("attention_mask"), ids("token_type_ids")];
    signature(inputs, outputs).mixed("sequence").unwrap()
}

/// The wanted outputs of those that `make` gives by number.
fn wanted(request: &InferRequest, make: impl Fn(usize) -> Tensor) -> InferFuture {
    match &request.wanted {
        Wanted::All => panic!("nothing is computed that is not asked for"),
        Wanted::Only(indices) => answered(indices.iter().map(|index| make(*index))),
    }
}

/// A model and how it answers.
pub(crate) type Parts = ((Arc<dyn TextProcessor>, Signature), fn(InferRequest) -> InferFuture);

/// Vectors of three numbers: how many words, the sum of their ids, and 1. `pooled` are those; `sentence_embedding` are of
/// length 1; `last_hidden_state` has a token's id, its place and 1.
pub(crate) fn embedding(change: impl FnOnce(&mut TextFacts)) -> Parts {
    let token = TensorSpec::new(
        "last_hidden_state",
        DType::Fp32,
        [millrace_core::Dim::symbol("N"), millrace_core::Dim::symbol("sequence"), millrace_core::Dim::Fixed(3)],
    );
    let outputs = vec![spec("sentence_embedding", DType::Fp32, &[-1, 3]), spec("pooled", DType::Fp32, &[-1, 3]), token];
    ((Arc::new(Words::new(TextTask::Embedding, change)), network(outputs)), |request| {
        wanted(&request, |output| match output {
            0 => matrix(&pooled(&request).into_iter().map(unit).collect::<Vec<_>>()),
            1 => matrix(&pooled(&request)),
            _ => hidden(&request),
        })
    })
}

/// The same without `pooled`: what comes out is not of length 1.
pub(crate) fn plain_embedding() -> Parts {
    let outputs = vec![spec("sentence_embedding", DType::Fp32, &[-1, 3])];
    ((Arc::new(Words::new(TextTask::Embedding, |_| {})), network(outputs)), |request| {
        wanted(&request, |_| matrix(&pooled(&request)))
    })
}

fn pooled(request: &InferRequest) -> Vec<Vec<f32>> {
    let row = |row: &Vec<Seen>| {
        let words: Vec<f32> = row.iter().filter(|seen| seen.id >= FIRST_WORD).map(|seen| seen.id as f32).collect();
        vec![words.len() as f32, words.iter().sum(), 1.0]
    };
    rows(request).iter().map(row).collect()
}

fn unit(row: Vec<f32>) -> Vec<f32> {
    let length = row.iter().map(|number| number * number).sum::<f32>().sqrt();
    row.into_iter().map(|number| number / length).collect()
}

fn hidden(request: &InferRequest) -> Tensor {
    let width = request.inputs[0].shape()[1];
    let rows = rows(request);
    let sizes = [rows.len(), width, 3];
    let row = |row: &Vec<Seen>| -> Vec<f32> {
        let token = |at: usize| row.get(at).map_or([0.0; 3], |seen| [seen.id as f32, at as f32, 1.0]);
        (0..width).flat_map(token).collect()
    };
    Tensor::from_vec(&sizes, rows.iter().flat_map(row).collect::<Vec<f32>>()).unwrap()
}

/// Three labels, `cats`, `dogs` and `words`: how many there are.
pub(crate) fn classification(change: impl FnOnce(&mut TextFacts)) -> Parts {
    let labels = |facts: &mut TextFacts| {
        facts.labels = ["cats", "dogs", "words"].map(Arc::from).to_vec();
        change(facts);
    };
    let outputs = vec![spec("logits", DType::Fp32, &[-1, 3])];
    ((Arc::new(Words::new(TextTask::Classification, labels)), network(outputs)), |request| {
        let row = |row: &Vec<Seen>| {
            let count = |fits: fn(u32) -> bool| row.iter().filter(|seen| fits(seen.id)).count() as f32;
            vec![count(|id| id == 5), count(|id| id == 6), count(|id| id >= UNKNOWN)]
        };
        wanted(&request, |_| matrix(&rows(&request).iter().map(row).collect::<Vec<_>>()))
    })
}

/// One score: how many words of the second text are in the first, less one.
pub(crate) fn ranking() -> Parts {
    let outputs = vec![spec("logits", DType::Fp32, &[-1, 1])];
    ((Arc::new(Words::new(TextTask::Ranking, |_| {})), network(outputs)), |request| {
        let row = |row: &Vec<Seen>| {
            let words = |of: i64| row.iter().filter(move |seen| seen.of == of && seen.id >= UNKNOWN);
            let shared = words(1).filter(|seen| words(0).any(|other| other.id == seen.id)).count();
            vec![shared as f32 - 1.0]
        };
        wanted(&request, |_| matrix(&rows(&request).iter().map(row).collect::<Vec<_>>()))
    })
}
