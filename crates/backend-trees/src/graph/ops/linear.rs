//! Matrix products and the linear models of `ai.onnx.ml`.

use millrace_core::LoadError;

use super::encode::Labels;
use super::scores::{Post, Second};
use crate::graph::fact::{Fact, Size};
use crate::graph::kernel::{Compiled, Fault, Inputs, Kernel, Scratch, elements};
use crate::graph::node::NodeView;
use crate::graph::value::{Data, Item, Kind, Positions, Sizes, Value};

/// A type that can be multiplied and added.
pub(super) trait Real: Item + std::ops::Mul<Output = Self> + std::ops::AddAssign {
    const ZERO: Self;
}

impl Real for f32 {
    const ZERO: Self = 0.0;
}

impl Real for f64 {
    const ZERO: Self = 0.0;
}

/// Adds `left` (rows of `inner`) times `right` (`inner` rows of `width`) to `output` (rows of `width`).
pub(super) fn multiply<T: Real>(left: &[T], right: &[T], output: &mut [T], inner: usize, width: usize) {
    if inner == 0 || width == 0 {
        return;
    }
    for (row, output) in left.chunks_exact(inner).zip(output.chunks_exact_mut(width)) {
        for (x, weights) in row.iter().zip(right.chunks_exact(width)) {
            for (sum, weight) in output.iter_mut().zip(weights) {
                *sum += *x * *weight;
            }
        }
    }
}

/// `rows` rows of `width` with rows and columns exchanged.
pub(super) fn transposed<T: Copy>(matrix: &[T], rows: usize, width: usize) -> Vec<T> {
    (0..width).flat_map(|column| (0..rows).map(move |row| matrix[row * width + column])).collect()
}

#[derive(Debug)]
struct MatMul;

impl MatMul {
    fn product<T: Real>(left: &Value, right: &Value, output: &mut Value) -> Result<(), Fault> {
        let wrong = || Fault::shape(format!("{:?} times {:?}", left.shape, right.shape));
        let (is_row, is_column) = (left.shape.len() == 1, right.shape.len() == 1);
        let inner = *left.shape.last().ok_or_else(wrong)?;
        let width = if is_column { 1 } else { *right.shape.last().ok_or_else(wrong)? };
        let right_inner = if is_column { right.shape[0] } else { right.shape[right.shape.len() - 2] };
        // The right side is one matrix, as in all pipelines; the left side may be any stack of rows.
        if right_inner != inner || right.shape.len() > 2 {
            return Err(wrong());
        }
        output.shape = Sizes::from_slice(&left.shape[..left.shape.len() - 1]);
        if !is_column {
            output.shape.push(width);
        }
        let count = elements(&output.shape)?;
        let items = T::fresh(&mut output.data);
        items.resize(count, T::ZERO);
        multiply(left.items::<T>(), right.items::<T>(), items, inner, width);
        debug_assert!(!is_row || output.shape.len() < 2);
        Ok(())
    }
}

impl Kernel for MatMul {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        let (left, right, output) = (inputs.get(0), inputs.get(1), &mut outputs[0]);
        match left.data {
            Data::F32(_) => Self::product::<f32>(left, right, output),
            Data::F64(_) => Self::product::<f64>(left, right, output),
            _ => Err(Fault::shape("floats were expected")),
        }
    }
}

fn float_fact<'a>(node: &NodeView<'a>, index: usize) -> Result<&'a Fact, LoadError> {
    let fact = node.fact(index)?;
    if matches!(fact.kind, Kind::F32 | Kind::F64) { Ok(fact) } else { Err(node.wrong_kind(fact.kind)) }
}

pub(super) fn mat_mul(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(2..=2, 1)?;
    let (left, right) = (float_fact(node, 0)?, float_fact(node, 1)?);
    if left.kind != right.kind {
        return Err(node.invalid("its inputs differ in type"));
    }
    let (a, b) = (node.shape(left)?, node.shape(right)?);
    if a.is_empty() || b.is_empty() || b.len() > 2 {
        return Err(node.unsupported("a product with other than one matrix on its right"));
    }
    let mut sizes = a[..a.len() - 1].to_vec();
    if b.len() == 2 {
        sizes.push(b[1]);
    }
    // Rows inside the sum, or on both sides.
    let is_mixed = a.last() == Some(&Size::Rows) || b.contains(&Size::Rows);
    Ok(Compiled::new(MatMul, [Fact::new(left.kind, Some(sizes)).mixed_if(is_mixed)]))
}

/// `alpha * A * B + beta * C`, with A and B transposed or not.
#[derive(Debug)]
struct Gemm {
    alpha: f32,
    beta: f32,
    transposes: [bool; 2],
}

impl Gemm {
    fn product<T: Real>(&self, inputs: &Inputs<'_>, output: &mut Value, from: impl Fn(f32) -> T) -> Result<(), Fault> {
        let (left, right) = (inputs.get(0), inputs.get(1));
        let ([a_rows, a_columns], [b_rows, b_columns]) = (left.shape.as_slice(), right.shape.as_slice()) else {
            return Err(Fault::shape("matrices were expected"));
        };
        let (rows, inner) = if self.transposes[0] { (*a_columns, *a_rows) } else { (*a_rows, *a_columns) };
        let (other, width) = if self.transposes[1] { (*b_columns, *b_rows) } else { (*b_rows, *b_columns) };
        if inner != other {
            return Err(Fault::shape(format!("{:?} times {:?}", left.shape, right.shape)));
        }
        output.shape = Sizes::from_slice(&[rows, width]);
        let count = elements(&output.shape)?;
        let items = T::fresh(&mut output.data);
        items.resize(count, T::ZERO);
        let (a, b) = (left.items::<T>(), right.items::<T>());
        let (a_turned, b_turned);
        let a = if self.transposes[0] {
            a_turned = transposed(a, *a_rows, *a_columns);
            &a_turned
        } else {
            a
        };
        let b = if self.transposes[1] {
            b_turned = transposed(b, *b_rows, *b_columns);
            &b_turned
        } else {
            b
        };
        multiply(a, b, items, inner, width);
        let alpha = from(self.alpha);
        items.iter_mut().for_each(|item| *item = *item * alpha);
        if let Some(bias) = inputs.optional(2) {
            let beta = from(self.beta);
            let fits = bias.shape.len() <= 2
                && bias.shape.iter().rev().zip([width, rows]).all(|(size, whole)| *size == 1 || *size == whole);
            if !fits {
                return Err(Fault::shape(format!("{:?} added to {:?}", bias.shape, output.shape)));
            }
            let added = bias.items::<T>();
            for (item, place) in items.iter_mut().zip(Positions::new(&bias.shape, &output.shape)) {
                *item += added[place] * beta;
            }
        }
        Ok(())
    }
}

impl Kernel for Gemm {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], _: &mut Scratch) -> Result<(), Fault> {
        match inputs.get(0).data {
            Data::F32(_) => self.product::<f32>(inputs, &mut outputs[0], |x| x),
            Data::F64(_) => self.product::<f64>(inputs, &mut outputs[0], f64::from),
            _ => Err(Fault::shape("floats were expected")),
        }
    }
}

pub(super) fn gemm(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(2..=3, 1)?;
    let (left, right) = (float_fact(node, 0)?, float_fact(node, 1)?);
    let kinds = (0..3).filter_map(|index| node.optional(index)).all(|input| input.fact.kind == left.kind);
    let (2, 2, true) = (node.rank(left)?, node.rank(right)?, kinds) else {
        return Err(node.invalid("expected two matrices of one type"));
    };
    let flag = |name: &str| -> Result<bool, LoadError> { Ok(node.int(name)?.unwrap_or(0) != 0) };
    let transposes = [flag("transA")?, flag("transB")?];
    let at = |fact: &Fact, turned: bool, axis: usize| fact.size(if turned { 1 - axis } else { axis });
    let sizes = vec![at(left, transposes[0], 0), at(right, transposes[1], 1)];
    let mut is_mixed = at(left, transposes[0], 1) == Size::Rows || at(right, transposes[1], 0) == Size::Rows;
    let made = Fact::new(left.kind, Some(sizes));
    if let Some(bias) = node.optional(2) {
        let (shape, mixes) = crate::graph::fact::broadcast(&made, bias.fact);
        is_mixed |= mixes || shape != made.shape;
    }
    let (alpha, beta) = (node.float("alpha")?.unwrap_or(1.0), node.float("beta")?.unwrap_or(1.0));
    Ok(Compiled::new(Gemm { alpha, beta, transposes }, [made.mixed_if(is_mixed)]))
}

/// Weights and offsets of a linear model: one row of weights for each feature, in floats.
#[derive(Debug)]
struct Linear {
    weights: Vec<f32>,
    offsets: Vec<f32>,
    features: usize,
    post: Post,
}

impl Linear {
    fn read(node: &NodeView<'_>, coefficients: &str, targets: usize) -> Result<(Self, Size, bool), LoadError> {
        node.expect(1..=1, 2)?;
        let fact = node.fact(0)?;
        if matches!(fact.kind, Kind::Text | Kind::Bool) {
            return Err(node.wrong_kind(fact.kind));
        }
        let missing = || node.invalid(format_args!("the attribute `{coefficients}` is missing"));
        let given = node.floats(coefficients)?.ok_or_else(missing)?;
        if targets == 0 || given.is_empty() || !given.len().is_multiple_of(targets) {
            return Err(node.invalid(format_args!("{} coefficients for {targets} targets", given.len())));
        }
        let features = given.len() / targets;
        if let Some(width) = fact.width()
            && width != features
        {
            return Err(node.invalid(format_args!("{features} coefficients for each target, but {width} features")));
        }
        let offsets = node.floats("intercepts")?.unwrap_or_default();
        let offsets = if offsets.is_empty() { vec![0.0; targets] } else { offsets };
        node.same_length("intercepts", offsets.len(), targets)?;
        let post = Post::read(node)?;
        let weights = transposed(&given, targets, features);
        Ok((Self { weights, offsets, features, post }, fact.height(), fact.is_list_of_rows()))
    }

    /// The scores of all rows, in the scratch memory.
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "linear models work in floats")]
    fn scores(&self, input: &Value, row: &mut Vec<f32>, output: &mut Vec<f32>) -> Result<usize, Fault> {
        let (rows, width) = input.rows_and_width();
        if width != self.features {
            return Err(Fault::shape(format!("rows of {width} features; expected {}", self.features)));
        }
        let targets = self.offsets.len();
        elements(&[rows, targets])?;
        output.clear();
        output.extend(self.offsets.iter().copied().cycle().take(rows * targets));
        row.clear();
        let items = match &input.data {
            Data::F32(items) => items,
            Data::F64(items) => {
                row.extend(items.iter().map(|x| *x as f32));
                &*row
            }
            Data::I64(items) => {
                row.extend(items.iter().map(|x| *x as f32));
                &*row
            }
            Data::I32(items) => {
                row.extend(items.iter().map(|x| *x as f32));
                &*row
            }
            Data::Bool(_) | Data::Text(_) => return Err(Fault::shape("numbers were expected")),
        };
        multiply(items, &self.weights, output, width, targets);
        Ok(rows)
    }
}

#[derive(Debug)]
struct LinearRegressor(Linear);

impl Kernel for LinearRegressor {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], scratch: &mut Scratch) -> Result<(), Fault> {
        let output = &mut outputs[0];
        let targets = self.0.offsets.len();
        let items = f32::fresh(&mut output.data);
        let rows = self.0.scores(inputs.get(0), &mut scratch.singles, items)?;
        self.0.post.rows(items, targets);
        output.shape = Sizes::from_slice(&[rows, targets]);
        Ok(())
    }

    fn bytes(&self) -> usize {
        size_of_val(self.0.weights.as_slice())
    }
}

pub(super) fn linear_regressor(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    let targets = usize::try_from(node.int("targets")?.unwrap_or(1)).unwrap_or(0);
    let (linear, height, is_mixed) = Linear::read(node, "coefficients", targets)?;
    let made = Fact::new(Kind::F32, Some(vec![height, Size::Fixed(targets)])).mixed_if(is_mixed);
    Ok(Compiled::new(LinearRegressor(linear), [made]))
}

#[derive(Debug)]
struct LinearClassifier {
    linear: Linear,
    labels: Labels,
    /// Whether one score stands for two classes.
    adds_second: bool,
}

impl Kernel for LinearClassifier {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], scratch: &mut Scratch) -> Result<(), Fault> {
        let [labels, scores] = outputs else { return Err(Fault::shape("two outputs were expected")) };
        let targets = self.linear.offsets.len();
        let items = f32::fresh(&mut scores.data);
        let rows = self.linear.scores(inputs.get(0), &mut scratch.singles, items)?;
        let best = |row: &[f32]| match row {
            [score] => usize::from(*score > 0.0),
            many => (1..many.len()).fold(0, |best, place| if many[place] > many[best] { place } else { best }),
        };
        self.labels.write(items.chunks_exact(targets).map(best), labels);
        if self.adds_second {
            let singles = &mut scratch.singles;
            singles.clear();
            singles.extend_from_slice(items);
            items.clear();
            singles.iter().for_each(|score| items.extend(self.linear.post.pair(*score, Second::Complement)));
        } else {
            self.linear.post.rows(items, targets);
        }
        scores.shape = Sizes::from_slice(&[rows, if self.adds_second { 2 } else { targets }]);
        Ok(())
    }

    fn bytes(&self) -> usize {
        size_of_val(self.linear.weights.as_slice())
    }
}

pub(super) fn linear_classifier(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    let labels = Labels::read(node, "classlabels")?;
    let intercepts = node.floats("intercepts")?.map_or(0, |offsets| offsets.len());
    let targets = if intercepts > 0 { intercepts } else { labels.as_ref().map_or(1, Labels::len) };
    let (linear, height, is_mixed) = Linear::read(node, "coefficients", targets)?;
    // One score tells two classes apart; without names they are 0 and 1.
    let labels = labels.unwrap_or_else(|| Labels::Ints((0_i64..).take(targets.max(2)).collect()));
    if labels.len() < targets.max(2) {
        return Err(node.invalid(format_args!("{} labels for {targets} scores", labels.len())));
    }
    let adds_second = targets == 1 && labels.len() == 2;
    let width = if adds_second { 2 } else { targets };
    let classes = labels.words();
    let made = [
        Fact::new(labels.kind(), Some(vec![height])).mixed_if(is_mixed),
        Fact::new(Kind::F32, Some(vec![height, Size::Fixed(width)])).mixed_if(is_mixed),
    ];
    let mut compiled = Compiled::new(LinearClassifier { linear, labels, adds_second }, made);
    compiled.classes = Some(classes);
    Ok(compiled)
}
