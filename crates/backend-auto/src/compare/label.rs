//! When a label may be another one: where the scores that it goes with are as good as equal.
//!
//! A label beside scores is the name of the best. Which name stands for which score is learnt from what the reference says,
//! so that a tie excuses the tied names and no others.

use std::collections::HashMap;

use millrace_core::{PartOutputs, Strings, Tensor};

use super::{is_float, numbers};

/// So many outputs of scores are looked at for each label.
const MOST_SCORES: usize = 4;

/// What was learnt about the labels of a model.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    /// By the numbers of the label's and the scores' output; `None` once one name stood for two scores: then it is no label.
    known: HashMap<(usize, usize), Option<HashMap<Label, usize>>>,
}

/// A label as a key: the bits of a number, or bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Label {
    Number(u64),
    Text(Vec<u8>),
}

/// Which difference of two scores is as good as none.
pub(crate) struct Ties<'a> {
    /// For a score of an output, given the best of its row: so far it may lie below.
    pub(crate) narrow: &'a dyn Fn(usize, f64) -> f64,
    /// The same for who names the best of his own scores.
    pub(crate) wide: &'a dyn Fn(usize, f64) -> f64,
}

impl Labels {
    /// Learns which label stands for which score.
    pub(crate) fn learn(&mut self, expected: &PartOutputs) {
        let scores = scores(expected);
        for (label_output, tensor) in expected.iter().enumerate() {
            let Some(labels) = tensor.as_ref().and_then(labels).filter(|_| !scores.is_empty()) else { continue };
            for scores in &scores {
                let known = self.known.entry((label_output, scores.output));
                let known = known.or_insert_with(|| Some(HashMap::new()));
                for (label, row) in labels.iter().zip(scores.rows()) {
                    let (Some(best), Some(map)) = (strictly_best(row), known.as_mut()) else { continue };
                    if *map.entry(label.clone()).or_insert(best) != best {
                        *known = None;
                    }
                }
            }
        }
    }

    /// Whether the label in `row` of `output` may be what `got` says, although `expected` says something else.
    pub(crate) fn excuses(
        &self,
        output: usize,
        row: usize,
        expected: &PartOutputs,
        got: &PartOutputs,
        ties: &Ties<'_>,
    ) -> bool {
        let label = |answer: &PartOutputs| labels(answer.get(output)?.as_ref()?)?.into_iter().nth(row);
        let (Some(right), Some(said)) = (label(expected), label(got)) else { return false };
        let of_got = scores(got);
        scores(expected).iter().any(|scores| {
            let Some(Some(known)) = self.known.get(&(output, scores.output)) else { return false };
            let own = of_got.iter().find(|own| own.output == scores.output).and_then(|own| own.rows().nth(row));
            let (Some(expected), Some(own)) = (scores.rows().nth(row), own) else { return false };
            let best = expected.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let own_best = own.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let is_tied = |class: usize| {
                let below = best - expected[class];
                below <= (ties.narrow)(scores.output, best)
                    || (below <= (ties.wide)(scores.output, best) && own.get(class) == Some(&own_best))
            };
            // Numbers are mostly the places of the scores themselves.
            let is_place = known.iter().all(|(label, class)| place(label) == Some(*class))
                && place(&right).is_some_and(|class| class < expected.len() && is_tied(class));
            match known.get(&said).copied().or_else(|| place(&said).filter(|_| is_place)) {
                Some(class) => class < expected.len() && is_tied(class),
                None if is_place => false,
                // A name that was never the best before: of a tied score that has no other name.
                None => (0..expected.len()).any(|class| is_tied(class) && !known.values().any(|other| *other == class)),
            }
        })
    }
}

/// Some scores, row by row.
struct Scores {
    output: usize,
    width: usize,
    values: Vec<f64>,
}

impl Scores {
    fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks_exact(self.width)
    }
}

/// The outputs that hold several numbers for each row.
fn scores(answer: &PartOutputs) -> Vec<Scores> {
    let scores = |(output, tensor): (usize, &Option<Tensor>)| {
        let tensor = tensor.as_ref().filter(|tensor| is_float(tensor.dtype()) && tensor.shape().len() == 2)?;
        let width = tensor.shape().row_elements();
        Some(Scores { output, width, values: numbers(tensor).filter(|_| width >= 2)? })
    };
    answer.iter().enumerate().filter_map(scores).take(MOST_SCORES).collect()
}

/// One label for each row, where the tensor could be that.
fn labels(tensor: &Tensor) -> Option<Vec<Label>> {
    if is_float(tensor.dtype()) || tensor.shape().is_empty() || tensor.shape().row_elements() != 1 {
        return None;
    }
    match tensor.strings() {
        Some(strings) => Some(Strings::iter(strings).map(|text| Label::Text(text.to_vec())).collect()),
        None => Some(numbers(tensor)?.into_iter().map(|number| Label::Number(number.to_bits())).collect()),
    }
}

/// The place that a label names, where it is a number.
fn place(label: &Label) -> Option<usize> {
    let Label::Number(bits) = label else { return None };
    let number = f64::from_bits(*bits);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "only small whole numbers get here")]
    (number >= 0.0 && number <= f64::from(u32::MAX) && number.fract() == 0.0).then_some(number as usize)
}

/// The place of the largest, where it is the only one.
fn strictly_best(row: &[f64]) -> Option<usize> {
    let best = (0..row.len()).max_by(|one, other| row[*one].total_cmp(&row[*other]))?;
    row.iter().enumerate().all(|(index, value)| index == best || *value < row[best]).then_some(best)
}
