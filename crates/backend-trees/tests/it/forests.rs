//! Forests at random, written as files, against an evaluator that follows the operator's words one by one.

use millrace_backend_trees::TreesBackend;
use millrace_core::{Backend, Tensor};
use proptest::prelude::*;

use crate::builder::{Attribute, Node, model};
use crate::support::{arranged, run, source};

const FEATURES: usize = 4;
const MODES: [&str; 6] = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"];

#[derive(Debug, Clone)]
enum Tree {
    Leaf(Vec<f32>),
    Split { feature: usize, mode: usize, value: f32, tracks: bool, yes: Box<Self>, no: Box<Self> },
}

impl Tree {
    fn leaf(&self, row: &[f32]) -> &[f32] {
        match self {
            Self::Leaf(weights) => weights,
            Self::Split { feature, mode, value, tracks, yes, no } => {
                let x = row[*feature];
                let holds = match MODES[*mode] {
                    "BRANCH_LEQ" => x <= *value,
                    "BRANCH_LT" => x < *value,
                    "BRANCH_GTE" => x >= *value,
                    "BRANCH_GT" => x > *value,
                    "BRANCH_EQ" => x == *value,
                    _ => x != *value,
                };
                if holds || (*tracks && x.is_nan()) { yes.leaf(row) } else { no.leaf(row) }
            }
        }
    }
}

/// The lists of the operator, filled tree by tree.
#[derive(Debug, Default)]
struct Lists {
    trees: Vec<i64>,
    nodes: Vec<i64>,
    features: Vec<i64>,
    values: Vec<f32>,
    modes: Vec<&'static str>,
    yes: Vec<i64>,
    no: Vec<i64>,
    tracks: Vec<i64>,
    vote_trees: Vec<i64>,
    vote_nodes: Vec<i64>,
    targets: Vec<i64>,
    weights: Vec<f32>,
}

impl Lists {
    /// Writes `node` of `tree` under the number `start + step * k`, k its place; gives back that number.
    fn add(&mut self, tree: i64, node: &Tree, count: &mut i64, step: i64) -> i64 {
        let id = *count * step;
        *count += 1;
        let place = self.trees.len();
        self.trees.push(tree);
        self.nodes.push(id);
        match node {
            Tree::Leaf(weights) => {
                self.features.push(0);
                self.values.push(0.0);
                self.modes.push("LEAF");
                self.yes.push(0);
                self.no.push(0);
                self.tracks.push(0);
                for (target, weight) in weights.iter().enumerate() {
                    self.vote_trees.push(tree);
                    self.vote_nodes.push(id);
                    self.targets.push(i64::try_from(target).unwrap());
                    self.weights.push(*weight);
                }
            }
            Tree::Split { feature, mode, value, tracks, yes, no } => {
                self.features.push(i64::try_from(*feature).unwrap());
                self.values.push(*value);
                self.modes.push(MODES[*mode]);
                self.yes.push(0);
                self.no.push(0);
                self.tracks.push(i64::from(*tracks));
                self.yes[place] = self.add(tree, yes, count, step);
                self.no[place] = self.add(tree, no, count, step);
            }
        }
        id
    }

    fn node(self, operator: &'static str, prefix: &str) -> Node {
        Node::new("ai.onnx.ml", operator)
            .with("nodes_treeids", Attribute::Ints(self.trees))
            .with("nodes_nodeids", Attribute::Ints(self.nodes))
            .with("nodes_featureids", Attribute::Ints(self.features))
            .with("nodes_values", Attribute::Floats(self.values))
            .with("nodes_modes", Attribute::Strings(self.modes))
            .with("nodes_truenodeids", Attribute::Ints(self.yes))
            .with("nodes_falsenodeids", Attribute::Ints(self.no))
            .with("nodes_missing_value_tracks_true", Attribute::Ints(self.tracks))
            .with(&format!("{prefix}_treeids"), Attribute::Ints(self.vote_trees))
            .with(&format!("{prefix}_nodeids"), Attribute::Ints(self.vote_nodes))
            .with(&format!("{prefix}_ids"), Attribute::Ints(self.targets))
            .with(&format!("{prefix}_weights"), Attribute::Floats(self.weights))
    }
}

/// A number among those that rows and thresholds share, so that equality happens.
fn number() -> impl Strategy<Value = f32> {
    prop_oneof![(-6_i8..6).prop_map(|n| f32::from(n) / 2.0), Just(0.1), Just(-0.0), Just(f32::MAX)]
}

fn value() -> impl Strategy<Value = f32> {
    prop_oneof![8 => number(), 1 => Just(f32::NAN), 1 => Just(f32::INFINITY)]
}

fn tree(targets: usize) -> impl Strategy<Value = Tree> {
    let weight = (-40_i8..40).prop_map(|n| f32::from(n) / 64.0);
    let leaf = prop::collection::vec(weight, targets).prop_map(Tree::Leaf);
    leaf.prop_recursive(7, 96, 2, |inner| {
        (0..FEATURES, 0..MODES.len(), number(), any::<bool>(), inner.clone(), inner).prop_map(
            |(feature, mode, value, tracks, yes, no)| Tree::Split {
                feature,
                mode,
                value,
                tracks,
                yes: Box::new(yes),
                no: Box::new(no),
            },
        )
    })
}

fn forest(targets: std::ops::Range<usize>) -> impl Strategy<Value = (usize, Vec<Tree>)> {
    targets.prop_flat_map(|targets| (Just(targets), prop::collection::vec(tree(targets), 1..12)))
}

fn lists(trees: &[Tree], step: i64) -> Lists {
    let mut lists = Lists::default();
    for (number, tree) in (0..).zip(trees) {
        lists.add(number * 3 - 1, tree, &mut 0, step);
    }
    lists
}

fn ask(file: Vec<u8>, rows: &[Vec<f32>]) -> Vec<Tensor> {
    let model = TreesBackend::default().load(&source("model.onnx", file)).unwrap_or_else(|error| panic!("{error}"));
    let x = Tensor::from_vec(&[rows.len(), FEATURES], rows.concat()).unwrap();
    let (inputs, _) = arranged(&*model, &[("x".to_owned(), x)]);
    run(&*model, &[inputs]).unwrap().remove(0).into_iter().collect()
}

fn rows() -> impl Strategy<Value = Vec<Vec<f32>>> {
    prop::collection::vec(prop::collection::vec(value(), FEATURES), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_forest_of_any_kind_sums_as_the_operator_says((targets, trees) in forest(1..4), rows in rows(), step in 1_i64..3) {
        let node = lists(&trees, step).node("TreeEnsembleRegressor", "target");
        let node = node.with("n_targets", Attribute::Int(i64::try_from(targets).unwrap()));
        let answer = ask(model(&[node], FEATURES as u64, &["y"]), &rows);
        let got = answer[0].elements::<f32>().unwrap();
        for (row, got) in rows.iter().zip(got.chunks_exact(targets)) {
            for (target, got) in got.iter().enumerate() {
                // Weights are multiples of 1/64: sums are exact, whatever their order.
                let want: f32 = trees.iter().map(|tree| tree.leaf(row)[target]).sum();
                prop_assert_eq!(*got, want, "row {:?}, target {}", row, target);
            }
        }
    }

    #[test]
    fn a_class_wins_by_its_sum((classes, trees) in forest(3..5), rows in rows()) {
        let labels: Vec<i64> = (10..).take(classes).collect();
        let node = lists(&trees, 1).node("TreeEnsembleClassifier", "class");
        let node = node.with("classlabels_int64s", Attribute::Ints(labels.clone())).to("label").to("y");
        let answer = ask(model(&[node], FEATURES as u64, &["label", "y"]), &rows);
        let (got, scores) = (answer[0].elements::<i64>().unwrap(), answer[1].elements::<f32>().unwrap());
        for ((row, got), scores) in rows.iter().zip(got.iter()).zip(scores.chunks_exact(classes)) {
            let sums: Vec<f32> =
                (0..classes).map(|class| trees.iter().map(|tree| tree.leaf(row)[class]).sum()).collect();
            prop_assert_eq!(scores, &*sums);
            let best = (1..classes).fold(0, |best, class| if sums[class] > sums[best] { class } else { best });
            prop_assert_eq!(*got, labels[best]);
        }
    }

    #[test]
    fn arbitrary_bytes_load_or_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = TreesBackend::default().load(&source("model.onnx", bytes));
    }
}

#[test]
fn a_hundred_thousand_trees_are_summed_as_floats_one_after_another() {
    const TREES: u32 = 100_000;
    let weight = |number: u32| 1.0 / (1.0 + (number % 977) as f32 * 0.37) / 1000.0;
    let stump = |number: u32| Tree::Split {
        feature: (number % 4) as usize,
        mode: (number % 4) as usize,
        value: f32::from((number % 13) as u8) / 4.0 - 1.5,
        tracks: number.is_multiple_of(3),
        yes: Box::new(Tree::Leaf(vec![weight(number)])),
        no: Box::new(Tree::Leaf(vec![-weight(number + 1) / 2.0])),
    };
    let trees: Vec<Tree> = (0..TREES).map(stump).collect();
    let file = model(&[lists(&trees, 1).node("TreeEnsembleRegressor", "target")], FEATURES as u64, &["y"]);
    let rows: Vec<Vec<f32>> =
        (0..35_u8).map(|n| vec![f32::from(n % 7) - 3.0, f32::from(n) / 16.0, f32::NAN, -0.5]).collect();
    let want: Vec<f32> = rows.iter().map(|row| trees.iter().fold(0.0, |sum, tree| sum + tree.leaf(row)[0])).collect();
    assert_eq!(ask(file.clone(), &rows)[0].elements::<f32>().unwrap().as_ref(), want);
    assert_eq!(ask(file, &rows[..1])[0].elements::<f32>().unwrap().as_ref(), &want[..1]);
}
