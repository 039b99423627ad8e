//! A text model small enough to reckon by hand: a token is a letter, and a text's vector counts and adds them up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use millrace_core::{
    Admission, Backend, Batch, BatchOutputs, DType, Dim, EncodeOptions, Encoding, InputError, Instance, LoadError,
    LoadErrorKind, Model, ModelSource, RunContext, RunError, Signature, Tensor, TensorList, TensorSpec, TextFactory,
    TextFacts, TextInput, TextProcessor, TextTask, Token, Truncation,
};
use millrace_testkit::Gate;

/// The engine of `*.letters` files. Its models take `input_ids` and `attention_mask` INT64`[batch,sequence]`, requests of
/// any lengths together, and give `sum` FP32`[batch,2]` (the number of letters and the sum of their ids) and `each`
/// FP32`[batch,sequence]` (the ids).
#[derive(Debug, Default)]
pub(crate) struct LettersBackend;

impl Backend for LettersBackend {
    fn name(&self) -> &'static str {
        "letters"
    }

    fn recognises(&self, source: &ModelSource) -> bool {
        source.files.list().iter().any(|(name, _)| name.ends_with(".letters"))
    }

    fn load(&self, _source: &ModelSource) -> Result<Arc<dyn Model>, LoadError> {
        let spec = |name, dtype, more: &[Dim]| {
            let mut shape = vec![Dim::symbol("batch")];
            shape.extend_from_slice(more);
            TensorSpec::new(name, dtype, shape)
        };
        let sequence = [Dim::symbol("sequence")];
        let inputs = ["input_ids", "attention_mask"].map(|name| spec(name, DType::Int64, &sequence));
        let outputs = [spec("each", DType::Fp32, &sequence), spec("sum", DType::Fp32, &[Dim::Fixed(2)])];
        let signature = Signature::new(inputs.into(), outputs.into()).unwrap().mixed("sequence").unwrap();
        Ok(Arc::new(Letters(signature)))
    }
}

#[derive(Debug, Clone)]
struct Letters(Signature);

impl Model for Letters {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(self.clone()))
    }

    fn weigh(&self, inputs: &[Tensor], _admission: &Admission) -> Result<usize, InputError> {
        let wrong = |detail: String| InputError::Instance { input: Arc::from("input_ids"), index: 0, detail };
        let (ids, mask) = (inputs[0].elements::<i64>().unwrap(), inputs[1].elements::<i64>().unwrap());
        if let Some(id) = ids.iter().find(|id| !(0..27).contains(*id)) {
            return Err(wrong(format!("{id} is not in the vocabulary of 27")));
        }
        let width = inputs[0].shape()[1].max(1);
        if mask.chunks(width).any(|row| !row.contains(&1)) {
            return Err(wrong("a row of masked tokens".to_owned()));
        }
        Ok(mask.iter().filter(|mark| **mark == 1).count())
    }
}

impl Instance for Letters {
    fn run(&mut self, batch: &Batch, _context: &RunContext<'_>) -> Result<BatchOutputs, RunError> {
        let longest = batch.parts().iter().map(|part| part.inputs[0].shape()[1]).max().unwrap_or(0);
        let (mut each, mut sum) = (Vec::new(), Vec::new());
        for part in batch.parts() {
            let width = part.inputs[0].shape()[1];
            let (ids, mask) = (part.inputs[0].elements::<i64>()?, part.inputs[1].elements::<i64>()?);
            for (ids, mask) in ids.chunks(width).zip(mask.chunks(width)) {
                let own = ids.iter().zip(mask).map(|(id, mark)| as_f32(id * mark));
                let values: Vec<f32> = own.chain(std::iter::repeat(0.0)).take(longest).collect();
                sum.extend([as_f32(mask.iter().sum()), values.iter().sum()]);
                each.extend(values);
            }
        }
        let rows = sum.len() / 2;
        Ok(BatchOutputs::all([Tensor::from_vec(&[rows, longest], each)?, Tensor::from_vec(&[rows, 2], sum)?]))
    }
}

fn as_f32(value: i64) -> f32 {
    f32::from(i16::try_from(value).unwrap())
}

/// Recognises versions with a file `alphabet`. The option `most` is the most letters of a text. A `!` makes it panic, a `?`
/// makes it give a row too many, and anything else that is no small letter is refused.
#[derive(Debug, Clone)]
pub(crate) struct Alphabet {
    gate: Gate,
    pieces: Arc<AtomicUsize>,
}

impl Alphabet {
    /// Every piece of a request passes `gate`.
    pub(crate) fn new(gate: Gate) -> Self {
        Self { gate, pieces: Arc::default() }
    }

    /// How many pieces were turned or began to be.
    pub(crate) fn pieces(&self) -> usize {
        self.pieces.load(Ordering::SeqCst)
    }
}

impl TextFactory for Alphabet {
    fn open(
        &self,
        source: &ModelSource,
        _network: &dyn Model,
        options: &BTreeMap<String, String>,
    ) -> Result<Option<Arc<dyn TextProcessor>>, LoadError> {
        if !source.files.list().iter().any(|(name, _)| name == "alphabet") {
            return Ok(None);
        }
        let mut most = 100;
        for (key, value) in options {
            let wrong = |text: String| LoadError::new(LoadErrorKind::Invalid, format!("model.toml: [text]: {text}"));
            most = match key.as_str() {
                "most" => value.parse().map_err(|_| wrong(format!("`most`: {value} is no number")))?,
                _ => return Err(wrong(format!("unknown key `{key}`; expected most"))),
            };
        }
        let facts = TextFacts {
            task: TextTask::Embedding,
            model_type: "letters".to_owned(),
            max_tokens: most,
            truncation: Truncation::Refuse,
            labels: Vec::new(),
            is_multi_label: false,
            pooling: "sum".to_owned(),
            dimension: 2,
            precision: "FP32".to_owned(),
            prompts: BTreeMap::new(),
            default_prompt: None,
        };
        let inputs = [TensorSpec::new("text", DType::Bytes, vec![Dim::symbol("batch")])];
        Ok(Some(Arc::new(Speller { facts, inputs, alphabet: self.clone() })))
    }
}

#[derive(Debug)]
struct Speller {
    facts: TextFacts,
    inputs: [TensorSpec; 1],
    alphabet: Alphabet,
}

impl Speller {
    fn wrong(index: usize, detail: impl Into<String>) -> InputError {
        InputError::Instance { input: Arc::from("text"), index, detail: detail.into() }
    }
}

impl TextProcessor for Speller {
    fn facts(&self) -> &TextFacts {
        &self.facts
    }

    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[usize] {
        &[1]
    }

    fn admit(&self, given: &[Tensor]) -> Result<(), InputError> {
        let texts = given[0].strings().unwrap();
        let is_empty = |text: &[u8]| text.is_empty();
        texts.iter().position(is_empty).map_or(Ok(()), |index| Err(Self::wrong(index, "an empty text")))
    }

    fn process(&self, given: &[Tensor]) -> Result<TensorList, InputError> {
        self.alphabet.pieces.fetch_add(1, Ordering::SeqCst);
        self.alphabet.gate.pass();
        let texts: Vec<&str> =
            given[0].strings().unwrap().iter().map(|text| std::str::from_utf8(text).unwrap()).collect();
        assert!(!texts.contains(&"!"), "the speller panics, as the test asked");
        let options = EncodeOptions { truncation: Truncation::Refuse, special_tokens: false, prompt: None };
        let inputs: Vec<TextInput<'_>> =
            texts.iter().filter(|text| **text != "?").map(|text| TextInput::Single(text)).collect();
        let mut encodings = self.encode(&inputs, &options)?;
        if inputs.len() < texts.len() {
            encodings.resize(texts.len() + 1, Encoding { ids: vec![1], type_ids: vec![0] });
        }
        self.tensors(&encodings)
    }

    fn encode(&self, texts: &[TextInput<'_>], _options: &EncodeOptions<'_>) -> Result<Vec<Encoding>, InputError> {
        let one = |(index, text): (usize, &TextInput<'_>)| {
            let TextInput::Single(text) = text else { return Err(Self::wrong(index, "expected one text")) };
            if text.len() > self.facts.max_tokens {
                return Err(Self::wrong(
                    index,
                    format!("{} letters, the most are {}", text.len(), self.facts.max_tokens),
                ));
            }
            let letter = |letter: u8| letter.is_ascii_lowercase().then(|| u32::from(letter - b'a') + 1);
            let ids: Option<Vec<u32>> = text.bytes().map(letter).collect();
            let ids = ids.ok_or_else(|| Self::wrong(index, "expected small letters"))?;
            Ok(Encoding { type_ids: vec![0; ids.len()], ids })
        };
        texts.iter().enumerate().map(one).collect()
    }

    fn tokens(&self, text: &str, _special_tokens: bool) -> Result<Vec<Token>, InputError> {
        let options = EncodeOptions { truncation: Truncation::Refuse, special_tokens: false, prompt: None };
        let ids = self.encode(&[TextInput::Single(text)], &options)?.remove(0).ids;
        let token = |(index, (id, letter)): (usize, (u32, char))| Token {
            id,
            text: letter.to_string(),
            is_special: false,
            span: Some((index, index + 1)),
        };
        Ok(ids.into_iter().zip(text.chars()).enumerate().map(token).collect())
    }

    fn decode(&self, ids: &[u32], _skip_special_tokens: bool) -> Result<String, InputError> {
        let letter =
            |id: &u32| u8::try_from(*id).ok().filter(|id| (1..27).contains(id)).map(|id| char::from(b'a' + id - 1));
        ids.iter().map(letter).collect::<Option<_>>().ok_or_else(|| Self::wrong(0, "no such letter"))
    }

    fn tensors(&self, encodings: &[Encoding]) -> Result<TensorList, InputError> {
        let longest = encodings.iter().map(|encoding| encoding.ids.len()).max().unwrap_or(0);
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for encoding in encodings {
            let own = encoding.ids.iter().map(|id| i64::from(*id));
            ids.extend(own.chain(std::iter::repeat(0)).take(longest));
            let own = encoding.ids.iter().map(|_| 1_i64);
            mask.extend(own.chain(std::iter::repeat(0)).take(longest));
        }
        let tensor = |values| Tensor::from_vec(&[encodings.len(), longest], values);
        let both = [tensor(ids), tensor(mask)].into_iter().collect::<Result<_, _>>();
        both.map_err(|error| Self::wrong(0, error.to_string()))
    }
}
