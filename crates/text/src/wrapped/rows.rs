//! The rows of requests: checked once, and how long each really is.

use std::borrow::Cow;
use std::sync::Arc;

use millrace_core::{InputError, Tensor, TensorError};

use crate::canonical::{IDS, MASK, TYPES};

/// What a network knows, as far as its files say it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vocabulary {
    /// Rows of its table of tokens.
    pub(crate) tokens: Option<usize>,
    /// Rows of its table of token types.
    pub(crate) types: Option<usize>,
    /// The most tokens of one row.
    pub(crate) positions: Option<usize>,
    /// The token that rows are filled up with.
    pub(crate) pad: usize,
}

/// The inputs of one request as numbers.
#[derive(Debug)]
pub(crate) struct Request<'t> {
    /// Ids, mask, and types where the network takes them, all of them row after row.
    pub(crate) inputs: [Cow<'t, [i64]>; 3],
    /// Tokens of each row, padding included, as the caller gave it.
    pub(crate) width: usize,
}

impl<'t> Request<'t> {
    /// The numbers of `inputs`, which fit the canonical signature.
    pub(crate) fn of(inputs: &'t [Tensor]) -> Result<Self, TensorError> {
        let numbers = |index: usize| inputs.get(index).map_or(Ok(Cow::Borrowed(&[][..])), Tensor::elements::<i64>);
        let width = inputs.first().and_then(|tensor| tensor.shape().get(1).copied()).unwrap_or(0);
        Ok(Self { inputs: [numbers(0)?, numbers(1)?, numbers(2)?], width })
    }

    /// How many rows there are.
    pub(crate) fn n_rows(&self) -> usize {
        self.inputs[0].len().checked_div(self.width).unwrap_or(0)
    }

    /// Row `index` of input `which`; empty where the network does not take that input.
    pub(crate) fn row(&self, which: usize, index: usize) -> &[i64] {
        self.inputs[which].get(index * self.width..(index + 1) * self.width).unwrap_or_default()
    }

    /// Up to where row `index` has tokens.
    pub(crate) fn length(&self, index: usize) -> usize {
        self.row(1, index).iter().rposition(|mask| *mask != 0).map_or(0, |last| last + 1)
    }

    /// Checks every row, and counts the tokens of all.
    pub(crate) fn check(&self, vocabulary: &Vocabulary) -> Result<usize, InputError> {
        if self.width == 0 {
            let detail = "expected at least one token in a row".to_owned();
            return Err(InputError::Instance { input: Arc::from(IDS), index: 0, detail });
        }
        let mut tokens = 0;
        for index in 0..self.n_rows() {
            tokens += self.check_row(index, vocabulary).map_err(|(input, detail)| InputError::Instance {
                input: Arc::from(input),
                index,
                detail,
            })?;
        }
        Ok(tokens)
    }

    fn check_row(&self, index: usize, vocabulary: &Vocabulary) -> Result<usize, (&'static str, String)> {
        let mask = self.row(1, index);
        if let Some(other) = mask.iter().find(|mask| !matches!(mask, 0 | 1)) {
            return Err((MASK, format!("expected 0 and 1, got {other}")));
        }
        let tokens = mask.iter().filter(|mask| **mask == 1).count();
        if tokens == 0 {
            return Err((MASK, "expected at least one 1: a text without tokens has no answer".to_owned()));
        }
        let length = self.length(index);
        if let Some(most) = vocabulary.positions.filter(|most| length > *most) {
            return Err((IDS, format!("expected at most {most} tokens, got {length}")));
        }
        // Behind the last token stands padding, which nobody looks at.
        let within = |input: &'static str, numbers: &[i64], size: Option<usize>| {
            let most = size.and_then(|size| i64::try_from(size).ok()).unwrap_or(i64::MAX);
            match numbers.iter().take(length).find(|number| !(0..most).contains(*number)) {
                Some(outside) if size.is_some() => {
                    Err((input, format!("{outside} is out of range; expected 0 to {}", most - 1)))
                }
                Some(negative) => Err((input, format!("{negative} is out of range; expected 0 or more"))),
                None => Ok(()),
            }
        };
        within(IDS, self.row(0, index), vocabulary.tokens)?;
        within(TYPES, self.row(2, index), vocabulary.types)?;
        Ok(tokens)
    }
}
