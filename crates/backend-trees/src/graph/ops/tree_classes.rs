//! `TreeEnsembleClassifier`: trees that vote for classes.
//!
//! What the operator means with two classes is settled by ONNX Runtime rather than by its specification: all votes may be
//! for one class and stand for the second; one base value is the first class's; which class wins is decided by 0.5 where no
//! vote is negative, and by 0 otherwise. All of that is followed here, with one exception: where a row's only score belongs
//! to neither reading, ONNX Runtime leaves the second undefined, and here it is 0.

use millrace_core::LoadError;

use super::encode::Labels;
use super::scores::{Post, Second};
use super::tree::{Reading, sums};
use super::tree_nodes::{Columns, Frame, forest};
use crate::forest::{Aggregate, Forest, Node, Numbers, Tree};
use crate::graph::fact::{Fact, Size};
use crate::graph::kernel::{Compiled, Fault, Inputs, Kernel, Scratch};
use crate::graph::node::NodeView;
use crate::graph::value::{Item, Kind, Sizes, Value};

/// Whether a class has a vote in the leaves that a row reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voted {
    Never,
    Always,
    /// Where its sum is above 0: all votes are.
    IfPositive,
    /// As the second forest, which counts votes, says.
    IfCounted,
}

#[derive(Debug)]
struct Classifier {
    forest: Forest,
    /// The same trees with every vote worth 1, where some class needs it.
    counts: Option<Forest>,
    voted: Vec<Voted>,
    base: Vec<f64>,
    labels: Labels,
    post: Post,
    /// Whether all votes of two classes are for one of them.
    is_one_sided: bool,
    is_positive: bool,
    is_single: bool,
}

/// The scores of a row before they are transformed, and the class that wins.
struct Decision {
    class: usize,
    /// How the second score follows, where there is but one: `Some(None)` where nothing says so.
    second: Option<Option<Second>>,
}

impl Classifier {
    /// A sum as the operator's own arithmetic has it.
    fn rounded(&self, x: f64) -> f64 {
        #[expect(clippy::cast_possible_truncation, reason = "floats are added up as floats")]
        if self.is_single { f64::from(x as f32) } else { x }
    }

    fn has(&self, class: usize, score: f64, counts: Option<&[f64]>) -> bool {
        match self.voted[class] {
            Voted::Never => false,
            Voted::Always => true,
            Voted::IfPositive => score > 0.0,
            Voted::IfCounted => counts.is_some_and(|counts| counts[class] > 0.0),
        }
    }

    fn decide(&self, row: &mut [f64], counts: Option<&[f64]>) -> Decision {
        match row {
            [_, _] => self.decide_two(row, counts),
            many => self.decide_many(many, counts),
        }
    }

    fn decide_many(&self, row: &mut [f64], counts: Option<&[f64]>) -> Decision {
        let mut best: Option<(usize, f64)> = None;
        for (class, score) in row.iter_mut().enumerate() {
            let mut has = self.has(class, *score, counts);
            if let Some(base) = self.base.get(class) {
                *score = self.rounded(*score + base);
                has = true;
            }
            if has && best.is_none_or(|(_, most)| *score > most) {
                best = Some((class, *score));
            }
        }
        Decision { class: best.map_or(0, |(class, _)| class), second: None }
    }

    fn decide_two(&self, row: &mut [f64], counts: Option<&[f64]>) -> Decision {
        let (has_first, has_second) = (self.has(0, row[0], counts), self.has(1, row[1], counts));
        let mut is_lone = !has_second;
        let mut winning = None;
        match self.base.as_slice() {
            [_, second] => {
                is_lone = false;
                if has_second {
                    let sum = self.rounded(second + row[0]);
                    // The first class's score is written only where it has votes, but the second's counts all the same.
                    (row[0], row[1]) = (if has_first { -sum } else { 0.0 }, sum);
                    winning = Some(sum);
                } else {
                    row[0] = if has_first { self.rounded(row[0] + self.base[0]) } else { 0.0 };
                    row[1] = 0.0;
                }
            }
            [first] if has_first => row[0] = self.rounded(row[0] + first),
            _ => {}
        }
        let decisive = winning.unwrap_or(if has_second {
            row[1]
        } else if has_first {
            row[0]
        } else {
            0.0
        });
        let limit = if self.is_one_sided && self.is_positive { 0.5 } else { 0.0 };
        let class = usize::from(decisive > limit);
        let second = is_lone.then_some(match (self.is_one_sided, self.is_positive) {
            (true, true) => Some(Second::Complement),
            (true, false) => Some(Second::Opposite),
            (false, _) if self.base.is_empty() => Some(Second::Opposite),
            (false, _) => None,
        });
        Decision { class, second }
    }

    fn write(&self, rows: usize, scratch: &mut Scratch, labels: &mut Value, probabilities: &mut Value) {
        let classes = self.forest.config().targets;
        let Scratch { scores, more_scores, .. } = scratch;
        let items = f32::fresh(&mut probabilities.data);
        items.reserve(rows * classes);
        let counts = |row: usize| self.counts.is_some().then(|| &more_scores[row * classes..(row + 1) * classes]);
        let winners = (0..rows).map(|index| {
            let row = &mut scores[index * classes..(index + 1) * classes];
            let decision = self.decide(row, counts(index));
            match decision.second {
                None => self.post.row(row),
                Some(Some(second)) => row.copy_from_slice(&self.post.pair(row[0], second)),
                Some(None) => {
                    self.post.row(&mut row[..1]);
                    row[1] = 0.0;
                }
            }
            #[expect(clippy::cast_possible_truncation, reason = "scores are given out as floats")]
            items.extend(row.iter().map(|score| *score as f32));
            decision.class
        });
        self.labels.write(winners, labels);
        probabilities.shape = Sizes::from_slice(&[rows, classes]);
    }
}

impl Kernel for Classifier {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Value], scratch: &mut Scratch) -> Result<(), Fault> {
        let [labels, probabilities] = outputs else { return Err(Fault::shape("two outputs were expected")) };
        let input = inputs.get(0);
        let mut scores = std::mem::take(&mut scratch.scores);
        let mut more = std::mem::take(&mut scratch.more_scores);
        let mut outcome = sums(&self.forest, input, scratch, &mut scores);
        if let (Ok(_), Some(counts)) = (&outcome, &self.counts) {
            outcome = sums(counts, input, scratch, &mut more);
        }
        (scratch.scores, scratch.more_scores) = (scores, more);
        self.write(outcome?, scratch, labels, probabilities);
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.forest.bytes() + self.counts.as_ref().map_or(0, Forest::bytes)
    }

    fn n_trees(&self) -> usize {
        self.forest.n_trees()
    }
}

/// For each class whether rows always, never or sometimes meet a vote for it.
fn voted(
    columns: &Columns,
    node: &NodeView<'_>,
    classes: usize,
    target: &dyn Fn(i64) -> Option<usize>,
) -> Result<Vec<Voted>, LoadError> {
    let rare = if columns.weights.iter().all(|weight| *weight > 0.0) { Voted::IfPositive } else { Voted::IfCounted };
    let mut voted = vec![Voted::Never; classes];
    let mut in_leaves = vec![0_usize; classes];
    let mut last_leaf = vec![usize::MAX; classes];
    columns.for_each_tree(node, target, &mut |tree: &Tree| {
        let mut n_leaves = 0;
        in_leaves.fill(0);
        last_leaf.fill(usize::MAX);
        for (place, tree_node) in tree.nodes.iter().enumerate() {
            let Node::Leaf(range) = tree_node else { continue };
            n_leaves += 1;
            for vote in &tree.votes[range.clone()] {
                if std::mem::replace(&mut last_leaf[vote.target], place) != place {
                    in_leaves[vote.target] += 1;
                }
            }
        }
        for (voted, in_leaves) in voted.iter_mut().zip(&in_leaves) {
            match *voted {
                _ if *in_leaves == n_leaves => *voted = Voted::Always,
                Voted::Never if *in_leaves > 0 => *voted = rare,
                _ => {}
            }
        }
        Ok(())
    })?;
    Ok(voted)
}

pub(super) fn tree_ensemble_classifier(node: &NodeView<'_>) -> Result<Compiled, LoadError> {
    node.expect(1..=1, 2)?;
    let labels = Labels::read(node, "classlabels")?.ok_or_else(|| node.invalid("it names no classes"))?;
    let classes = labels.len();
    if classes > 1 << 20 {
        return Err(node.too_large(format_args!("{classes} classes")));
    }
    let columns = Columns::read(node, "class")?;
    let reading = Reading::new(node, columns.greatest_feature())?;
    let (base, _) = node.reals("base_values")?.unwrap_or_default();
    if !base.is_empty() && base.len() != classes && !(classes == 2 && base.len() == 1) {
        return Err(node.invalid(format_args!("{} base values for {classes} classes", base.len())));
    }
    let is_single = reading.input == Numbers::Single && !columns.is_double;
    let target = |given: i64| usize::try_from(given).ok().filter(|class| *class < classes);
    let voted = voted(&columns, node, classes, &target)?;
    let frame = Frame {
        features: reading.features,
        targets: classes,
        aggregate: Aggregate::Sum,
        input: reading.input,
        sums: if is_single { Numbers::Single } else { Numbers::Double },
        base: Vec::new(),
    };
    let counts = if voted.contains(&Voted::IfCounted) {
        Some(forest(node, frame.clone(), |visit| {
            columns.for_each_tree(node, &target, &mut |tree| {
                let mut tree = tree.clone();
                tree.votes.iter_mut().for_each(|vote| vote.weight = 1.0);
                visit(&tree)
            })
        })?)
    } else {
        None
    };
    let forest = forest(node, frame, |visit| columns.for_each_tree(node, &target, visit))?;
    let first = columns.targets().first();
    let is_one_sided = classes == 2 && columns.targets().iter().all(|given| Some(given) == first);
    let is_positive = columns.weights.iter().all(|weight| *weight >= 0.0);
    let words = labels.words();
    let made = [
        Fact::new(labels.kind(), Some(vec![reading.height])).mixed_if(reading.is_mixed),
        Fact::new(Kind::F32, Some(vec![reading.height, Size::Fixed(classes)])).mixed_if(reading.is_mixed),
    ];
    let kernel = Classifier {
        forest,
        counts,
        voted,
        base,
        labels,
        post: Post::read(node)?,
        is_one_sided,
        is_positive,
        is_single,
    };
    let mut compiled = Compiled::new(kernel, made);
    compiled.classes = Some(words);
    Ok(compiled)
}
