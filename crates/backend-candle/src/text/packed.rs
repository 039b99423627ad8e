//! From the requests of a batch to packed tokens: checked, without padding, shortest rows first.

use std::sync::Arc;

use millrace_core::{InputError, Tensor};
use millrace_huggingface::TextConfig;

/// The positions of the inputs in the signature.
pub(super) const IDS: usize = 0;
const MASK: usize = 1;
const TYPES: usize = 2;

/// The names of the inputs in the order of the signature.
pub(super) const INPUTS: [&str; 3] = ["input_ids", "attention_mask", "token_type_ids"];

/// What the values of inputs must fit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    vocabulary: usize,
    types: usize,
    /// Rows of the table of positions.
    positions: usize,
    /// The token that does not count where positions are counted from the tokens; `None` where the column is the position.
    skipped: Option<usize>,
}

impl Limits {
    pub(super) fn of(config: &TextConfig) -> Self {
        Self {
            vocabulary: config.vocab_size,
            types: if config.has_token_types() { config.type_vocab_size } else { 0 },
            positions: config.max_positions,
            skipped: config.family.is_roberta().then_some(config.pad_token_id),
        }
    }

    /// The most tokens of one row.
    fn most_tokens(&self) -> usize {
        self.positions.saturating_sub(self.skipped.map_or(0, |skipped| skipped.saturating_add(1)))
    }

    /// Checks how many columns a request has. Columns of padding are not computed, but vectors of tokens have a place for
    /// each: a request of one token and a million columns must not ask for gigabytes.
    ///
    /// # Errors
    /// [`InputError::Instance`] where there are more than the model has positions for.
    pub(super) fn check_columns(&self, columns: usize) -> Result<(), InputError> {
        let most = self.most_tokens();
        if columns <= most {
            return Ok(());
        }
        Err(fault(IDS, 0, format!("it has {columns} columns, padding included; expected at most {most}")))
    }

    /// Goes through the tokens of one request whose mask is 1, row by row, and tells `each` of them. Gives their number.
    ///
    /// # Errors
    /// [`InputError::Instance`] for a mask other than 0 and 1 or without a 1, and for an id, a type or a place in the text
    /// that the model has no vector for.
    pub(super) fn visit(&self, inputs: &[Tensor], mut each: impl FnMut(Token)) -> Result<usize, InputError> {
        let elements = |index: usize| {
            let tensor = inputs.get(index).ok_or(InputError::Count { expected: 2, got: inputs.len() })?;
            let wrong = |_| InputError::DType {
                input: Arc::from(INPUTS[index]),
                expected: millrace_core::DType::Int64,
                got: tensor.dtype(),
            };
            tensor.elements::<i64>().map_err(wrong)
        };
        let (ids, mask) = (elements(IDS)?, elements(MASK)?);
        let types = if self.types > 0 { Some(elements(TYPES)?) } else { None };
        let width = inputs.get(IDS).and_then(|ids| ids.shape().get(1).copied()).unwrap_or(0).max(1);
        let rows = ids.len() / width;
        if rows == 0 {
            return Err(fault(IDS, 0, "it has no tokens".to_owned()));
        }
        let mut total = 0;
        for row in 0..rows {
            let range = row * width..(row + 1) * width;
            let mut counted = 0;
            let before = total;
            for (column, index) in range.enumerate() {
                // Ids that nobody looks at may be anything but count for RoBERTa's positions all the same.
                let counts = |skipped: usize| usize::try_from(ids[index]) != Ok(skipped);
                counted += usize::from(self.skipped.is_some_and(counts));
                match mask[index] {
                    0 => continue,
                    1 => {}
                    other => {
                        return Err(fault(MASK, row, format!("column {column} is {other}; expected 0 or 1")));
                    }
                }
                let id = below(ids[index], self.vocabulary).ok_or_else(|| {
                    let text = format!(
                        "column {column} is {}; the vocabulary has ids from 0 to {}",
                        ids[index],
                        self.vocabulary - 1
                    );
                    fault(IDS, row, text)
                })?;
                let position = match self.skipped {
                    None => column,
                    Some(skipped) if !counts(skipped) => skipped,
                    Some(skipped) => skipped + counted,
                };
                if position >= self.positions {
                    let most = self.most_tokens();
                    return Err(fault(IDS, row, format!("it is longer than {most} tokens")));
                }
                let kind = match &types {
                    None => 0,
                    Some(types) => below(types[index], self.types).ok_or_else(|| {
                        let text = format!("column {column} is {}; expected 0 to {}", types[index], self.types - 1);
                        fault(TYPES, row, text)
                    })?,
                };
                total += 1;
                // What is below the rows of a table, of which there are at most 2^24, fits.
                let position = u32::try_from(position).unwrap_or(u32::MAX);
                each(Token { row, column, id, position, kind });
            }
            if total == before {
                return Err(fault(MASK, row, "it has no 1".to_owned()));
            }
        }
        Ok(total)
    }
}

/// `number` where it is at least 0 and less than `limit`.
fn below(number: i64, limit: usize) -> Option<u32> {
    let number = u32::try_from(number).ok()?;
    ((number as usize) < limit).then_some(number)
}

fn fault(input: usize, row: usize, detail: String) -> InputError {
    InputError::Instance { input: Arc::from(INPUTS[input]), index: row, detail }
}

/// One token whose mask is 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    row: usize,
    column: usize,
    id: u32,
    position: u32,
    kind: u32,
}

/// The tokens of a batch, one row after another, shortest rows first.
#[derive(Debug, Default)]
pub(super) struct Packed {
    pub(super) ids: Vec<u32>,
    pub(super) positions: Vec<u32>,
    pub(super) types: Vec<u32>,
    /// The column that each token stands in.
    pub(super) columns: Vec<usize>,
    /// Tokens of each row.
    pub(super) lengths: Vec<usize>,
    /// The place of each row among all rows of the batch.
    pub(super) order: Vec<usize>,
    /// The most columns of any request.
    pub(super) sequence: usize,
}

impl Packed {
    /// # Errors
    /// As [`Limits::visit`].
    pub(super) fn new<'a>(limits: &Limits, requests: impl Iterator<Item = &'a [Tensor]>) -> Result<Self, InputError> {
        let mut rows: Vec<Vec<Token>> = Vec::new();
        let mut sequence = 0;
        for inputs in requests {
            let first = rows.len();
            limits.visit(inputs, |token| {
                if rows.len() <= first + token.row {
                    rows.resize_with(first + token.row + 1, Vec::new);
                }
                rows[first + token.row].push(token);
            })?;
            sequence = sequence.max(inputs[IDS].shape().get(1).copied().unwrap_or(0));
        }
        let mut order: Vec<usize> = (0..rows.len()).collect();
        // Equal lengths keep their order, so that the same batch is always packed alike.
        order.sort_by_key(|row| rows[*row].len());
        let tokens = || order.iter().flat_map(|row| &rows[*row]);
        Ok(Self {
            ids: tokens().map(|token| token.id).collect(),
            positions: tokens().map(|token| token.position).collect(),
            types: tokens().map(|token| token.kind).collect(),
            columns: tokens().map(|token| token.column).collect(),
            lengths: order.iter().map(|row| rows[*row].len()).collect(),
            order,
            sequence,
        })
    }
}
