//! Answers whose instances differ in their number of rows: each gets its own rows of every ragged output, and outputs that
//! are fields of one record become a list of objects. What counts the rows is used up here and not shown.
//!
//! The tensors have been made by a model and not by its signature, so counts that do not add up are an error like any other.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use millrace_core::{DType, Tensor, TensorSpec};
use smallvec::SmallVec;

use super::{Column, Envelope, list, named, object, rows};
use crate::Form;
use crate::error::JsonError;

/// Writes the whole body: objects always, as there is a count beside whatever is shown.
pub(super) fn body(envelope: Envelope<'_>, specs: &[TensorSpec], outputs: &[Tensor]) -> Result<Vec<u8>, JsonError> {
    let Envelope { form, limit, .. } = envelope;
    let counts = Counts::of_all(specs, outputs)?;
    let shown = shown(specs, outputs, &counts)?;
    let n_rows = match form {
        Form::Rows => {
            let even = specs.iter().zip(outputs).filter(|(spec, _)| spec.ragged_by.is_none());
            rows(even.map(|(spec, tensor)| (spec, &**tensor.shape())))?
        }
        Form::Columns => 1,
    };
    let keys = shown.iter().map(|(key, _)| key.len() + 4).sum::<usize>().saturating_mul(n_rows);
    let (least, guess) = shown.iter().fold((keys, keys), |(least, guess), (_, shown)| {
        (least.saturating_add(shown.least_len(&counts)), guess.saturating_add(shown.text_len(&counts)))
    });
    if least > limit {
        return Err(JsonError::AnswerTooLarge { limit });
    }
    let members = || shown.iter().map(|(key, shown)| (*key, shown));
    envelope.around(guess, |text| match form {
        Form::Columns => object(text, members(), |text, shown| shown.write(text, &counts)),
        Form::Rows => list(text, 0..n_rows, |text, row| {
            object(text, members(), |text, shown| shown.write_instance(text, &counts, row))
        }),
    })
}

/// How many rows each instance has, by one of the outputs.
struct Counts<'a> {
    name: &'a Arc<str>,
    /// Instance `i` has the rows `ends[i]..ends[i + 1]`; the first is 0.
    ends: Vec<usize>,
}

impl<'a> Counts<'a> {
    /// Those of every output that some other is ragged by.
    fn of_all(specs: &'a [TensorSpec], outputs: &[Tensor]) -> Result<SmallVec<[Self; 1]>, JsonError> {
        let mut all = SmallVec::<[Self; 1]>::new();
        for spec in specs {
            let Some(name) = &spec.ragged_by else { continue };
            if all.iter().any(|counts| counts.name == name) {
                continue;
            }
            let tensor = specs.iter().position(|spec| spec.name == *name).and_then(|index| outputs.get(index));
            let tensor = tensor.ok_or_else(|| broken(&spec.name, format!("no output `{name}` counts its rows")))?;
            all.push(Self { name, ends: ends(name, tensor)? });
        }
        Ok(all)
    }

    fn instances(&self) -> usize {
        self.ends.len() - 1
    }

    fn rows(&self, instance: usize) -> Range<usize> {
        self.ends[instance]..self.ends[instance + 1]
    }

    fn total(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }
}

/// The sums of the first 0, 1, 2, … counts.
fn ends(name: &Arc<str>, tensor: &Tensor) -> Result<Vec<usize>, JsonError> {
    let counts: Option<Cow<'_, [i64]>> = match tensor.dtype() {
        DType::Int32 => tensor.elements::<i32>().ok().map(|counts| counts.iter().map(|&count| count.into()).collect()),
        DType::Int64 => tensor.elements::<i64>().ok(),
        _ => None,
    };
    let counts = counts.filter(|_| tensor.shape().len() == 1).ok_or_else(|| {
        broken(name, format!("it counts rows, so it must be INT32 or INT64 of rank 1, but it is {tensor:?}"))
    })?;
    let mut ends = Vec::with_capacity(counts.len() + 1);
    let mut sum = 0_usize;
    ends.push(sum);
    for (instance, &count) in counts.iter().enumerate() {
        let next = usize::try_from(count).ok().and_then(|count| sum.checked_add(count));
        sum = next.ok_or_else(|| broken(name, format!("it counts {count} rows of instance {instance}")))?;
        ends.push(sum);
    }
    Ok(ends)
}

/// What stands under one key of an object.
enum Shown<'a> {
    /// A row for each instance.
    Even(Column<'a>),
    /// Several rows for each instance, by the counts at this position.
    Ragged(Column<'a>, usize),
    /// The same as objects.
    Record(SmallVec<[Column<'a>; 4]>, usize),
}

/// The keys of an object in the order of the signature; a record stands where its first field does.
fn shown<'a>(
    specs: &'a [TensorSpec],
    outputs: &'a [Tensor],
    counts: &[Counts<'_>],
) -> Result<SmallVec<[(&'a str, Shown<'a>); 4]>, JsonError> {
    let mut all = SmallVec::<[(&str, Shown<'_>); 4]>::new();
    for (spec, tensor) in specs.iter().zip(outputs) {
        let Some(name) = &spec.ragged_by else {
            if !counts.iter().any(|counts| *counts.name == spec.name) {
                all.push((&spec.name, Shown::Even(Column::new((spec, tensor))?)));
            }
            continue;
        };
        let by = counts.iter().position(|counts| counts.name == name).expect("all counts were gathered");
        let (n_rows, total) = (tensor.shape().rows(), counts[by].total());
        if n_rows != Some(total) {
            let n_rows = n_rows.map_or_else(|| "none".to_owned(), |rows| rows.to_string());
            return Err(broken(&spec.name, format!("`{name}` counts {total} rows of it, it has {n_rows}")));
        }
        let column = Column::new((spec, tensor))?;
        let Some(record) = &spec.record else {
            all.push((&spec.name, Shown::Ragged(column, by)));
            continue;
        };
        let known = all.iter_mut().find_map(|(key, shown)| match shown {
            // One record has one count: signatures see to it.
            Shown::Record(fields, known) if **key == **record && *known == by => Some(fields),
            Shown::Record(..) | Shown::Ragged(..) | Shown::Even(_) => None,
        });
        match known {
            Some(fields) => fields.push(column),
            None => all.push((record, Shown::Record(SmallVec::from_iter([column]), by))),
        }
    }
    Ok(all)
}

impl Shown<'_> {
    /// The values of all instances.
    fn write(&self, text: &mut Vec<u8>, counts: &[Counts<'_>]) -> Result<(), JsonError> {
        match self {
            Self::Even(column) => column.write(text),
            Self::Ragged(_, by) | Self::Record(_, by) => {
                list(text, 0..counts[*by].instances(), |text, instance| self.write_instance(text, counts, instance))
            }
        }
    }

    /// The value of one instance.
    fn write_instance(&self, text: &mut Vec<u8>, counts: &[Counts<'_>], instance: usize) -> Result<(), JsonError> {
        match self {
            Self::Even(column) => column.write_row(text, instance),
            Self::Ragged(column, by) => list(text, counts[*by].rows(instance), |text, row| column.write_row(text, row)),
            Self::Record(fields, by) => list(text, counts[*by].rows(instance), |text, row| {
                object(text, named(fields), |text, field| field.write_row(text, row))
            }),
        }
    }

    /// The shortest text of all instances.
    fn least_len(&self, counts: &[Counts<'_>]) -> usize {
        let row = match self {
            Self::Even(column) => return column.least_len(),
            Self::Ragged(column, _) => column.least_of(column.row_sizes()),
            Self::Record(fields, _) => fields.iter().fold(0, |row: usize, field| {
                row.saturating_add(field.spec.name.len() + 4).saturating_add(field.least_of(field.row_sizes()))
            }),
        };
        self.lists_len(counts, row)
    }

    /// A guess at its length, on the high side.
    fn text_len(&self, counts: &[Counts<'_>]) -> usize {
        match self {
            Self::Even(column) => column.text_len(),
            Self::Ragged(column, _) => column.text_len().saturating_add(self.lists_len(counts, 3)),
            Self::Record(fields, _) => {
                let names = fields.iter().map(|field| field.spec.name.len() + 8).sum::<usize>();
                let values = fields.iter().map(Column::text_len).fold(0, usize::saturating_add);
                values.saturating_add(self.lists_len(counts, names))
            }
        }
    }

    /// A list for each instance, of rows that take `row` bytes each.
    fn lists_len(&self, counts: &[Counts<'_>], row: usize) -> usize {
        match self {
            Self::Even(_) => 0,
            Self::Ragged(_, by) | Self::Record(_, by) => {
                let counts = &counts[*by];
                counts.total().saturating_mul(row).saturating_add(counts.instances().saturating_mul(2))
            }
        }
    }
}

fn broken(output: &Arc<str>, detail: String) -> JsonError {
    JsonError::Counts { output: Arc::clone(output), detail }
}
