//! Trees that give numbers: `TreeEnsembleRegressor`, and `TreeEnsemble` of opset 5.

use millrace_core::LoadError;

use super::scores::Post;
use super::tree_nodes::{Columns, Frame, forest};
use super::tree_parts::Parts;
use crate::forest::{Aggregate, Forest, Numbers, Rows};
use crate::graph::fact::{Fact, Size};
use crate::graph::kernel::{Compiled, Fault, Inputs, Kernel, Scratch, elements};
use crate::graph::node::NodeView;
use crate::graph::value::{Data, Item, Kind, Sizes, Value};

/// What a forest asks of the value that it reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) features: usize,
    pub(super) input: Numbers,
    pub(super) height: Size,
    pub(super) is_mixed: bool,
}

impl Reading {
    /// What a forest reads whose nodes ask about features up to `greatest`.
    pub(super) fn new(node: &NodeView<'_>, greatest: i64) -> Result<Self, LoadError> {
        let fact = node.fact(0)?;
        let input = match fact.kind {
            Kind::F64 => Numbers::Double,
            Kind::F32 | Kind::I64 | Kind::I32 => Numbers::Single,
            Kind::Bool | Kind::Text => return Err(node.wrong_kind(fact.kind)),
        };
        if fact.rank().is_none_or(|rank| rank == 0 || rank > 2) {
            return Err(node.unsupported("an input that is neither a list nor a matrix"));
        }
        let asked = usize::try_from(greatest).ok().and_then(|greatest| greatest.checked_add(1));
        let asked = asked.ok_or_else(|| node.invalid(format_args!("it asks about feature {greatest}")))?;
        let features = fact.width().unwrap_or(asked);
        if features < asked {
            return Err(node.invalid(format_args!("it asks about feature {greatest} of {features}")));
        }
        Ok(Self { features, input, height: fact.height(), is_mixed: fact.is_list_of_rows() })
    }
}

/// Writes the sums of all rows of `input` into `scores`, and says how many rows there are.
pub(super) fn sums(
    forest: &Forest,
    input: &Value,
    scratch: &mut Scratch,
    scores: &mut Vec<f64>,
) -> Result<usize, Fault> {
    let (rows, width) = input.rows_and_width();
    let (features, targets) = (forest.config().features, forest.config().targets);
    if width < features {
        return Err(Fault::Input(format!("rows of {width} features; at least {features} are asked about")));
    }
    let count = elements(&[rows, targets])?;
    scores.clear();
    scores.resize(count, 0.0);
    let Scratch { forest: own, singles, doubles, .. } = scratch;
    match &input.data {
        Data::F32(items) if width == features => forest.scores(Rows::Single(items), own, scores),
        Data::F64(items) if width == features => forest.scores(Rows::Double(items), own, scores),
        Data::F64(items) => {
            doubles.clear();
            items.chunks_exact(width).for_each(|row| doubles.extend_from_slice(&row[..features]));
            forest.scores(Rows::Double(doubles), own, scores);
        }
        data => {
            fn narrowed<T: Item>(
                items: &[T],
                (width, features): (usize, usize),
                to: impl Fn(T) -> f32,
                singles: &mut Vec<f32>,
            ) {
                singles.clear();
                items.chunks_exact(width.max(1)).for_each(|row| singles.extend(row[..features].iter().map(|x| to(*x))));
            }
            let sizes = (width, features);
            #[expect(clippy::cast_precision_loss, reason = "whole numbers are compared as floats")]
            match data {
                Data::F32(items) => narrowed(items, sizes, |x| x, singles),
                Data::I64(items) => narrowed(items, sizes, |x| x as f32, singles),
                Data::I32(items) => narrowed(items, sizes, |x| x as f32, singles),
                Data::F64(_) | Data::Bool(_) | Data::Text(_) => return Err(Fault::shape("numbers were expected")),
            }
            forest.scores(Rows::Single(singles), own, scores);
        }
    }
    Ok(rows)
}

/// Sums, transformed and given out.
#[derive(Debug)]
struct Regressor {
    forest: Forest,
    post: Post,
    is_double: bool,
}

impl Kernel for Regressor {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], scratch: &mut Scratch) -> Result<(), Fault> {
        let output = &mut outputs[0];
        let targets = self.forest.config().targets;
        let mut scores = std::mem::take(&mut scratch.scores);
        let outcome = sums(&self.forest, inputs.get(0), scratch, &mut scores);
        if let Ok(rows) = outcome {
            output.shape = Sizes::from_slice(&[rows, targets]);
            if self.is_double {
                let items = f64::fresh(&mut output.data);
                items.extend_from_slice(&scores);
                self.post.rows(items, targets);
            } else {
                let items = f32::fresh(&mut output.data);
                #[expect(clippy::cast_possible_truncation, reason = "sums of floats become floats again")]
                items.extend(scores.iter().map(|score| *score as f32));
                self.post.rows(items, targets);
            }
        }
        scratch.scores = scores;
        outcome.map(|_| ())
    }

    fn bytes(&self) -> usize {
        self.forest.bytes()
    }

    fn n_trees(&self) -> usize {
        self.forest.n_trees()
    }
}

/// The number of targets as the file says it.
fn targets(node: &NodeView<'_>) -> Result<usize, LoadError> {
    let given = node.int("n_targets")?.unwrap_or(1);
    let count = usize::try_from(given).ok().filter(|count| (1..=1 << 20).contains(count));
    count.ok_or_else(|| node.invalid(format_args!("{given} targets")))
}

fn regressor(reading: Reading, forest: Forest, post: Post, is_double: bool) -> Compiled {
    let kind = if is_double { Kind::F64 } else { Kind::F32 };
    let sizes = vec![reading.height, Size::Fixed(forest.config().targets)];
    let made = Fact::new(kind, Some(sizes)).mixed_if(reading.is_mixed);
    Compiled::new(Regressor { forest, post, is_double }, [made])
}

pub(super) fn tree_ensemble_regressor(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=1, 1)?;
    let targets = targets(node)?;
    let aggregate = match node.word("aggregate_function", "SUM")? {
        "SUM" => Aggregate::Sum,
        "AVERAGE" => Aggregate::Average,
        "MIN" => Aggregate::Min,
        "MAX" => Aggregate::Max,
        other => return Err(node.invalid(format_args!("`{other}` of votes; expected SUM, AVERAGE, MIN or MAX"))),
    };
    let (base, _) = node.reals("base_values")?.unwrap_or_default();
    if !base.is_empty() {
        node.same_length("base_values", base.len(), targets)?;
    }
    let columns = Columns::read(node, "target")?;
    let reading = Reading::new(node, columns.greatest_feature())?;
    let is_double = columns.is_double || reading.input == Numbers::Double;
    let sums = if is_double { Numbers::Double } else { Numbers::Single };
    let frame = Frame { features: reading.features, targets, aggregate, input: reading.input, sums, base };
    let target = |given: i64| usize::try_from(given).ok().filter(|target| *target < targets);
    let forest = forest(node, frame, |visit| columns.for_each_tree(node, &target, visit))?;
    // The output is a float, whatever the sums are made in.
    Ok(regressor(reading, forest, Post::read(node)?, false))
}

pub(super) fn tree_ensemble(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=1, 1)?;
    let targets = targets(node)?;
    let aggregate = match node.int("aggregate_function")?.unwrap_or(1) {
        0 => Aggregate::Average,
        1 => Aggregate::Sum,
        2 => Aggregate::Min,
        3 => Aggregate::Max,
        other => return Err(node.invalid(format_args!("the aggregate function {other}; expected 0 to 3"))),
    };
    let post = match node.int("post_transform")?.unwrap_or(0) {
        0 => Post::None,
        // The specification has these two the other way round; ONNX Runtime, which everybody runs, has them so.
        1 => Post::Logistic,
        2 => Post::Softmax,
        3 => Post::SoftmaxZero,
        4 => Post::Probit,
        other => return Err(node.invalid(format_args!("the transform {other}; expected 0 to 4"))),
    };
    let parts = Parts::read(node)?;
    let reading = Reading::new(node, parts.greatest_feature())?;
    let is_double = reading.input == Numbers::Double;
    let sums = if is_double || parts.is_double { Numbers::Double } else { Numbers::Single };
    let frame = Frame { features: reading.features, targets, aggregate, input: reading.input, sums, base: Vec::new() };
    let forest = forest(node, frame, |visit| parts.for_each_tree(node, targets, visit))?;
    Ok(regressor(reading, forest, post, is_double))
}
