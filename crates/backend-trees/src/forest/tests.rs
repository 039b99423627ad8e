//! A forest says what walking its trees one node at a time would say.

use proptest::prelude::*;

use super::*;

/// A small stream of numbers, the same for the same seed.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % most
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

/// What a value does at a split, in the words of `tree`.
fn says_yes(split: &Split, tree: &Tree, value: f64) -> bool {
    let is_zero = value.abs() <= f64::from(1e-35_f32);
    let value = match split.missing {
        Missing::Yes if value.is_nan() => return true,
        Missing::No if value.is_nan() => return false,
        Missing::ZeroYes if value.is_nan() || is_zero => return true,
        Missing::ZeroNo if value.is_nan() || is_zero => return false,
        Missing::IsZero if value.is_nan() => 0.0,
        _ => value,
    };
    match &split.test {
        Test::AtMost(threshold) => value <= *threshold,
        Test::Below(threshold) => value < *threshold,
        Test::AtLeast(threshold) => value >= *threshold,
        Test::Above(threshold) => value > *threshold,
        Test::OneOf(range, values) => {
            let value = match values {
                Values::Exact => value,
                Values::Cut => value.trunc(),
                Values::CutIfPositive if !(0.0..16_777_216.0).contains(&value) => return false,
                Values::CutIfPositive => value.trunc(),
            };
            tree.members[range.clone()].contains(&value)
        }
    }
}

/// The votes that a row meets.
fn votes<'t>(tree: &'t Tree, row: &[f64]) -> &'t [Vote] {
    let mut node = 0;
    loop {
        match &tree.nodes[node] {
            Node::Leaf(range) => return &tree.votes[range.clone()],
            Node::Split(split) => node = if says_yes(split, tree, row[split.feature]) { split.yes } else { split.no },
        }
    }
}

/// The scores of a row, in the plainest way.
fn naive(config: &ForestConfig, trees: &[Tree], row: &[f64]) -> Vec<f64> {
    let mut sums: Vec<Option<f64>> = vec![None; config.targets];
    for tree in trees {
        for vote in votes(tree, row) {
            let sum = &mut sums[vote.target];
            let weight = rounded(config, vote.weight);
            *sum = Some(match (*sum, config.aggregate) {
                (None, _) => weight,
                (Some(sum), Aggregate::Sum | Aggregate::Average) => rounded(config, sum + weight),
                (Some(sum), Aggregate::Min) => sum.min(weight),
                (Some(sum), Aggregate::Max) => sum.max(weight),
            });
        }
    }
    let score = |(target, sum): (usize, Option<f64>)| {
        let sum = sum.unwrap_or(0.0);
        let sum = match config.aggregate {
            Aggregate::Average => rounded(config, sum / trees.len().max(1) as f64),
            Aggregate::Sum | Aggregate::Min | Aggregate::Max => sum,
        };
        rounded(config, sum + config.base.get(target).map_or(0.0, |base| rounded(config, *base)))
    };
    sums.into_iter().enumerate().map(score).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "rounding is what is asked for")]
fn single(value: f64) -> f32 {
    value as f32
}

/// A sum in `f64` of two `f32`, rounded, is their sum in `f32`.
fn rounded(config: &ForestConfig, value: f64) -> f64 {
    match config.sums {
        Numbers::Single => f64::from(single(value)),
        Numbers::Double => value,
    }
}

/// Values that splits and rows share, so that ties, zeros and NaN are common.
const VALUES: [f64; 12] =
    [0.0, -0.0, 1.0, 2.0, 3.0, -1.5, 0.1, -0.5, f64::INFINITY, f64::NEG_INFINITY, 1e-40, 16_777_216.0];

#[derive(Debug, Clone, Copy)]
struct Shape {
    depth: usize,
    votes: usize,
    one_target: bool,
    sets: bool,
}

/// A random tree of uneven depth.
fn tree(dice: &mut Dice, config: &ForestConfig, shape: Shape) -> Tree {
    let mut tree = Tree::default();
    let target = dice.below(config.targets);
    grow(dice, config, shape, target, shape.depth, &mut tree);
    tree
}

fn grow(dice: &mut Dice, config: &ForestConfig, shape: Shape, target: usize, depth: usize, tree: &mut Tree) -> usize {
    let place = tree.nodes.len();
    if depth == 0 || dice.below(5) == 0 {
        let start = tree.votes.len();
        for _ in 0..if shape.one_target { 1 } else { dice.below(shape.votes + 1) } {
            let target = if shape.one_target { target } else { dice.below(config.targets) };
            tree.votes.push(Vote { target, weight: dice.below(2000) as f64 / 1000.0 - 1.0 });
        }
        tree.nodes.push(Node::Leaf(start..tree.votes.len()));
        return place;
    }
    tree.nodes.push(Node::Leaf(0..0));
    // Some thresholds lie between two `f32`.
    let threshold = dice.pick(&VALUES) + dice.pick(&[0.0, 0.0, 1e-12, -1e-12]);
    let start = tree.members.len();
    let test = match dice.below(if shape.sets { 6 } else { 4 }) {
        0 => Test::AtMost(threshold),
        1 => Test::Below(threshold),
        2 => Test::AtLeast(threshold),
        3 => Test::Above(threshold),
        _ => {
            for _ in 0..dice.below(4) {
                tree.members.push(dice.pick(&[0.0, 1.0, 2.0, 3.0, 70.0, -1.5, 0.1_f32.into()]));
            }
            Test::OneOf(start..tree.members.len(), dice.pick(&[Values::Exact, Values::Cut, Values::CutIfPositive]))
        }
    };
    let is_set = matches!(test, Test::OneOf(..));
    let all = [Missing::Yes, Missing::No, Missing::IsZero, Missing::ZeroYes, Missing::ZeroNo];
    let missing = dice.pick(if is_set { &all[..3] } else { &all });
    let feature = dice.below(config.features);
    let yes = grow(dice, config, shape, target, depth - 1, tree);
    let no = grow(dice, config, shape, target, depth - 1, tree);
    tree.nodes[place] = Node::Split(Split { feature, test, missing, yes, no });
    place
}

fn build(config: &ForestConfig, trees: &[Tree]) -> Forest {
    let mut builder = Builder::new(config.clone()).unwrap();
    for tree in trees {
        builder.push(tree).unwrap();
    }
    builder.build().unwrap()
}

/// Rows of values that the trees compare with, as `f64`; all of them are `f32` where the forest reads `f32`.
fn rows(dice: &mut Dice, config: &ForestConfig, count: usize) -> Vec<f64> {
    let value = |dice: &mut Dice| match dice.below(8) {
        0 => f64::NAN,
        1 => 70.0,
        _ => dice.pick(&VALUES) + dice.pick(&[0.0, 0.0, 0.5]),
    };
    let of_input = |value: f64| if config.input == Numbers::Single { f64::from(single(value)) } else { value };
    (0..count * config.features).map(|_| of_input(value(dice))).collect()
}

#[track_caller]
fn check(config: &ForestConfig, trees: &[Tree], rows: &[f64], scratch: &mut Scratch) {
    let forest = build(config, trees);
    let n_rows = rows.len() / config.features;
    let mut scores = vec![f64::NAN; n_rows * config.targets];
    match config.input {
        Numbers::Single => {
            let rows: Vec<f32> = rows.iter().map(|value| single(*value)).collect();
            forest.scores(Rows::Single(&rows), scratch, &mut scores);
        }
        Numbers::Double => forest.scores(Rows::Double(rows), scratch, &mut scores),
    }
    for (row, scores) in rows.chunks_exact(config.features).zip(scores.chunks_exact(config.targets)) {
        assert_eq!(scores, naive(config, trees, row), "{config:?}\n{:?}\n{row:?}", &trees[..trees.len().min(30)]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_forest_says_what_its_trees_say(
        seed in any::<u64>(),
        double in any::<(bool, bool)>(),
        aggregate in 0_usize..4,
        targets in 1_usize..4,
        n_trees in 0_usize..30,
        n_rows in 0_usize..40,
        form in (0_usize..9, 0_usize..4, any::<(bool, bool, bool)>()),
    ) {
        let (depth, votes, (one_target, sets, has_base)) = form;
        let mut dice = Dice::new(seed);
        let numbers = |double| if double { Numbers::Double } else { Numbers::Single };
        let config = ForestConfig {
            features: 1 + dice.below(6),
            targets,
            input: numbers(double.0),
            aggregate: [Aggregate::Sum, Aggregate::Average, Aggregate::Min, Aggregate::Max][aggregate],
            sums: numbers(double.1),
            base: if has_base { vec![0.25; targets] } else { Vec::new() },
        };
        let trees: Vec<Tree> = (0..n_trees).map(|_| tree(&mut dice, &config, Shape { depth, votes, one_target, sets })).collect();
        let rows = rows(&mut dice, &config, n_rows);
        check(&config, &trees, &rows, &mut Scratch::default());
    }
}

fn plain(features: usize, targets: usize) -> ForestConfig {
    ForestConfig {
        features,
        targets,
        input: Numbers::Single,
        aggregate: Aggregate::Sum,
        sums: Numbers::Double,
        base: Vec::new(),
    }
}

#[test]
fn a_scratch_serves_forests_of_other_widths() {
    let mut dice = Dice::new(1);
    let mut scratch = Scratch::default();
    for features in [5, 1, 9, 2] {
        let config = plain(features, 2);
        let shape = Shape { depth: 5, votes: 2, one_target: false, sets: true };
        let trees: Vec<Tree> = (0..20).map(|_| tree(&mut dice, &config, shape)).collect();
        let rows = rows(&mut dice, &config, 21);
        check(&config, &trees, &rows, &mut scratch);
    }
}

#[test]
fn a_hundred_thousand_trees_are_added_up_exactly() {
    let shape = Shape { depth: 3, votes: 1, one_target: true, sets: false };
    for (n_trees, sums, targets) in
        [(1_u32, Numbers::Double, 1), (10_000, Numbers::Single, 3), (100_000, Numbers::Double, 1)]
    {
        let config = ForestConfig { sums, targets, ..plain(4, targets) };
        let mut dice = Dice::new(n_trees.into());
        let trees: Vec<Tree> = (0..n_trees).map(|_| tree(&mut dice, &config, shape)).collect();
        let rows = rows(&mut dice, &config, 10);
        check(&config, &trees, &rows, &mut Scratch::default());
    }
}

#[test]
fn trees_may_be_added_to_the_base_values_in_order() {
    let config = ForestConfig { sums: Numbers::Single, base: vec![1000.0, -3.0], ..plain(1, 2) };
    let mut builder = Builder::new(config).unwrap();
    builder.start_with_base();
    let mut dice = Dice::new(5);
    let mut want = [1000.0_f32, -3.0];
    for number in 0..2000 {
        let (target, weight) = (number % 2, dice.below(1000) as f64 / 1e6);
        want[target] += single(weight);
        let votes = vec![Vote { target, weight }];
        builder.push(&Tree { nodes: vec![Node::Leaf(0..1)], votes, members: Vec::new() }).unwrap();
    }
    let forest = builder.build().unwrap();
    for n_rows in [1, 8, 11] {
        let mut scores = vec![0.0; 2 * n_rows];
        forest.scores(Rows::Single(&vec![0.5; n_rows]), &mut Scratch::default(), &mut scores);
        assert_eq!(scores, want.map(f64::from).repeat(n_rows));
    }
}

/// A chain of `splits` splits, each a step to the left of the last.
fn chain(splits: usize) -> Tree {
    let mut tree = Tree::default();
    for number in 0..splits {
        let test = Test::AtMost(-(number as f64));
        let split = Split { feature: 0, test, missing: Missing::Yes, yes: 2 * number + 2, no: 2 * number + 1 };
        tree.nodes.push(Node::Split(split));
        tree.nodes.push(Node::Leaf(number..number + 1));
        tree.votes.push(Vote { target: 0, weight: number as f64 });
    }
    tree.nodes.push(Node::Leaf(splits..splits + 1));
    tree.votes.push(Vote { target: 0, weight: -1.0 });
    tree
}

#[test]
fn a_tree_may_be_as_deep_as_it_likes() {
    let config = plain(1, 1);
    let rows = [1.0, 0.0, -5.5, -70_000.5, -1e9, f64::NAN, -99_998.5, -2.0, -3.0, -4.0];
    check(&config, &[chain(100_000), chain(3)], &rows, &mut Scratch::default());
}

#[test]
fn a_tree_may_have_more_nodes_than_short_steps_reach() {
    let config = plain(3, 1);
    let mut dice = Dice::new(3);
    // A full tree of 2^18 nodes: its lower levels are wider than 16 bits.
    let mut full = Tree::default();
    let inner = (1 << 17) - 1;
    for number in 0..inner {
        let test = Test::AtMost(dice.below(1000) as f64 / 1000.0);
        let split =
            Split { feature: dice.below(3), test, missing: Missing::No, yes: 2 * number + 1, no: 2 * number + 2 };
        full.nodes.push(Node::Split(split));
    }
    for leaf in 0..=inner {
        full.nodes.push(Node::Leaf(leaf..leaf + 1));
        full.votes.push(Vote { target: 0, weight: dice.below(1000) as f64 });
    }
    let rows: Vec<f64> = (0..60).map(|_| f64::from(single(dice.below(1000) as f64 / 1000.0))).collect();
    check(&config, &[full.clone(), full], &rows, &mut Scratch::default());
}

#[test]
fn a_feature_may_be_the_last_of_many() {
    let config = plain(70_000, 1);
    let split = |feature, threshold, yes, no| {
        Node::Split(Split { feature, test: Test::Below(threshold), missing: Missing::No, yes, no })
    };
    let mut tree = Tree::default();
    // One split on each feature: more columns than 16 bits count.
    for feature in 0..70_000 {
        tree.nodes.push(split(feature, 0.5, 2 * feature + 2, 2 * feature + 1));
        tree.nodes.push(Node::Leaf(feature..feature + 1));
        tree.votes.push(Vote { target: 0, weight: feature as f64 });
    }
    tree.nodes.push(Node::Leaf(0..1));
    let mut rows = vec![0.0; 70_000 * 9];
    rows[69_999] = 1.0;
    rows[70_000 + 40_000] = f64::NAN;
    check(&config, &[tree], &rows, &mut Scratch::default());
}

/// Refused, with this text.
#[track_caller]
fn refused(config: ForestConfig, trees: &[Tree], text: &str) {
    let attempt = Builder::new(config).and_then(|mut builder| {
        trees.iter().try_for_each(|tree| builder.push(tree))?;
        builder.build()
    });
    assert_eq!(attempt.expect_err("a forest").to_string(), text);
}

fn two_leaves(split: Split) -> Tree {
    let votes = vec![Vote { target: 0, weight: 1.0 }; 2];
    Tree { nodes: vec![Node::Split(split), Node::Leaf(0..1), Node::Leaf(1..2)], votes, members: vec![1.0] }
}

fn split(yes: usize, no: usize) -> Split {
    Split { feature: 0, test: Test::AtMost(0.5), missing: Missing::No, yes, no }
}

#[test]
fn what_is_not_a_forest_is_refused_by_tree_and_node() {
    let sound = two_leaves(split(1, 2));
    let with = |change: &dyn Fn(&mut Tree)| {
        let mut tree = sound.clone();
        change(&mut tree);
        vec![sound.clone(), tree]
    };
    let config = || plain(2, 1);
    refused(config(), &[Tree::default()], "tree 0: it has no nodes");
    refused(config(), &[two_leaves(split(1, 3))], "tree 0, node 0: child 3 of 3 nodes");
    refused(config(), &[two_leaves(split(1, 0))], "tree 0, node 0: child 0 is reached in two ways");
    refused(config(), &[two_leaves(split(1, 1))], "tree 0, node 0: child 1 is reached in two ways");
    let back = with(&|tree| tree.nodes[2] = Node::Split(split(1, 0)));
    refused(config(), &back, "tree 1, node 2: child 1 is reached in two ways");
    let wrong_feature = with(&|tree| tree.nodes[0] = Node::Split(Split { feature: 2, ..split(1, 2) }));
    refused(config(), &wrong_feature, "tree 1, node 0: feature 2 of 2");
    let wrong_target = with(&|tree| tree.votes[1].target = 1);
    refused(config(), &wrong_target, "tree 1, node 2: target 1 of 1");
    refused(config(), &with(&|tree| tree.votes[0].weight = f64::NAN), "tree 1, node 1: votes NaN");
    let wrong_votes = with(&|tree| tree.nodes[1] = Node::Leaf(1..3));
    refused(config(), &wrong_votes, "tree 1, node 1: votes 1..3 of 2");
    let nan = Test::AtMost(f64::NAN);
    let with_nan = with(&|tree| tree.nodes[0] = Node::Split(Split { test: nan.clone(), ..split(1, 2) }));
    refused(config(), &with_nan, "tree 1, node 0: compares with NaN");
    let members = Test::OneOf(0..2, Values::Exact);
    let with_members = with(&|tree| tree.nodes[0] = Node::Split(Split { test: members.clone(), ..split(1, 2) }));
    refused(config(), &with_members, "tree 1, node 0: members 0..2 of 1");
    refused(ForestConfig { base: vec![0.0; 2], ..config() }, &[], "base values are not one per target");
    refused(plain(0, 1), &[], "a forest needs a feature and a target");
}

#[test]
fn sets_that_would_fill_memory_are_refused() {
    // As many members as splits, each split with one: the bits grow with the square.
    const SPLITS: usize = 60_000;
    let mut tree = Tree::default();
    for number in 0..SPLITS {
        let test = Test::OneOf(number..number + 1, Values::Exact);
        let split = Split { feature: 0, test, missing: Missing::No, yes: 2 * number + 1, no: 2 * number + 2 };
        tree.nodes.push(Node::Split(split));
        tree.nodes.push(Node::Leaf(0..0));
        tree.members.push(number as f64);
    }
    tree.nodes.push(Node::Leaf(0..0));
    let words = SPLITS * (SPLITS + 2).div_ceil(32);
    let most = 1_u64 << 26;
    refused(
        plain(1, 1),
        &[tree],
        &format!("too large: words for the members of splits are {words}, at most {most} can be laid out"),
    );
}
