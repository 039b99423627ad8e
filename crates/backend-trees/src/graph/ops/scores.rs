//! What becomes of scores: the transforms that classifiers and regressors of `ai.onnx.ml` share, and maps of scores.
//!
//! Where one score stands for two classes, the other's is made from it. How, is read from ONNX Runtime: the operators'
//! specification does not say.

use millrace_core::LoadError;

use super::encode::Labels;
use crate::graph::fact::{Fact, Size};
use crate::graph::kernel::{Compiled, Fault, Inputs, Kernel, Scratch};
use crate::graph::node::NodeView;
use crate::graph::value::{Kind, Sizes, Value};

/// What is done to the scores of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Post {
    None,
    Logistic,
    Softmax,
    /// Softmax over the scores that are not zero.
    SoftmaxZero,
    Probit,
}

/// How the score of the first of two classes follows from the only one there is, which is the second's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Second {
    /// It is one less the other, where the other is a share.
    Complement,
    /// It is the other's opposite.
    Opposite,
}

/// A float type that scores come in.
pub(super) trait Score: Copy + PartialOrd {
    fn from_f64(x: f64) -> Self;
    fn to_f64(self) -> f64;
}

impl Score for f32 {
    #[expect(clippy::cast_possible_truncation, reason = "scores become floats again")]
    fn from_f64(x: f64) -> Self {
        x as Self
    }

    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Score for f64 {
    fn from_f64(x: f64) -> Self {
        x
    }

    fn to_f64(self) -> f64 {
        self
    }
}

impl Post {
    /// The attribute `post_transform` of `node`.
    pub(super) fn read(node: &NodeView<'_>) -> Result<Self, LoadError> {
        Ok(match node.word("post_transform", "NONE")? {
            "NONE" => Self::None,
            "LOGISTIC" => Self::Logistic,
            "SOFTMAX" => Self::Softmax,
            "SOFTMAX_ZERO" => Self::SoftmaxZero,
            "PROBIT" => Self::Probit,
            other => {
                let text = format!("the transform `{other}`; expected NONE, LOGISTIC, SOFTMAX, SOFTMAX_ZERO or PROBIT");
                return Err(node.invalid(text));
            }
        })
    }

    /// Transforms rows of `width` scores.
    pub(super) fn rows<T: Score>(self, scores: &mut [T], width: usize) {
        if self != Self::None && width > 0 {
            scores.chunks_exact_mut(width).for_each(|row| self.row(row));
        }
    }

    /// Transforms the scores of one row. A lone score takes no share of anything: of all transforms it knows the probit.
    pub(super) fn row<T: Score>(self, row: &mut [T]) {
        match self {
            Self::None => {}
            Self::Probit => row.iter_mut().for_each(|score| *score = T::from_f64(probit(score.to_f64()))),
            _ if row.len() < 2 => {}
            Self::Logistic => row.iter_mut().for_each(|score| *score = T::from_f64(logistic(score.to_f64()))),
            Self::Softmax => softmax(row, |_| true),
            Self::SoftmaxZero => softmax(row, |score| score.abs() > 1e-7),
        }
    }

    /// The scores of two classes from the only one there is.
    pub(super) fn pair<T: Score>(self, score: T, second: Second) -> [T; 2] {
        let x = score.to_f64();
        let pair = match (self, second) {
            // ONNX Runtime transforms the lone score and leaves the other undefined.
            (Self::Probit, _) => [probit(x), 0.0],
            (Self::Logistic, _) => [logistic(-x), logistic(x)],
            (_, Second::Complement) => [1.0 - x, x],
            (_, Second::Opposite) => [-x, x],
        };
        pair.map(T::from_f64)
    }
}

/// Shares of the scores that `counts` counts; the others are 0, or what is left of them after a very small factor.
fn softmax<T: Score>(row: &mut [T], counts: impl Fn(f64) -> bool) {
    let most = row.iter().map(|score| score.to_f64()).fold(f64::from(f32::MIN), f64::max);
    let share = |score: f64| if counts(score) { (score - most).exp() } else { score * (-most).exp() };
    let sum: f64 =
        row.iter().map(|score| score.to_f64()).filter(|score| counts(*score)).map(|score| (score - most).exp()).sum();
    row.iter_mut().for_each(|score| *score = T::from_f64(share(score.to_f64()) / sum));
}

pub(super) fn logistic(x: f64) -> f64 {
    let v = 1.0 / (1.0 + (-x.abs()).exp());
    if x < 0.0 { 1.0 - v } else { v }
}

/// The value below which a normal variable stays with probability `p`, as S. Winitzki approximates the error function's
/// inverse (2008), with the constants of ONNX Runtime. There it is computed in floats, which costs five digits in the
/// middle.
#[expect(clippy::approx_constant, reason = "the digits are those of the other")]
fn probit(p: f64) -> f64 {
    const A: f64 = 0.147;
    let x = 2.0 * p - 1.0;
    let sign = if x < 0.0 { -1.0 } else { 1.0 };
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let v = 2.0 / (3.14159 * A) + 0.5 * log;
    std::f64::consts::SQRT_2 * sign * ((v * v - log / A).sqrt() - v).sqrt()
}

/// Gives scores out as they are: who asks for a map of labels to scores gets the scores in the labels' order.
#[derive(Debug)]
struct ZipMap(usize);

impl Kernel for ZipMap {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (input, output) = (inputs.get(0), &mut outputs[0]);
        let (rows, width) = input.rows_and_width();
        if width != self.0 {
            return Err(Fault::shape(format!("{width} scores for {} labels", self.0)));
        }
        output.shape = Sizes::from_slice(&[rows, width]);
        output.data.copy_from(&input.data);
        Ok(())
    }
}

pub(super) fn zip_map(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=1, 1)?;
    let fact = node.fact(0)?;
    if fact.kind != Kind::F32 {
        return Err(node.wrong_kind(fact.kind));
    }
    let labels = Labels::read(node, "classlabels")?.ok_or_else(|| node.invalid("it names no labels"))?;
    if let Some(width) = fact.width() {
        node.same_length("classlabels", labels.len(), width)?;
    }
    let sizes = vec![fact.height(), Size::Fixed(labels.len())];
    let made = Fact::new(Kind::F32, Some(sizes)).mixed_if(fact.is_list_of_rows());
    let mut compiled = Compiled::new(ZipMap(labels.len()), [made]);
    compiled.classes = Some(labels.words());
    Ok(compiled)
}
