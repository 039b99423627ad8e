//! XGBoost's files, as `save_model` writes them: JSON since 1.0, UBJ since 1.6, up to 3.x.
//!
//! Read are `gbtree` and `dart` with one output per tree. As `XGBModel.predict` does, trees after `best_iteration` are left
//! out where the file has that attribute. What is refused is refused by name: linear boosters, trees with vectors in their
//! leaves, objectives that are not in [`link`].

use std::collections::BTreeMap;
use std::fmt;

use millrace_core::LoadError;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::model::{LibraryModel, Link, Parts};
use super::{invalid, ubj, unsupported};
use crate::forest::{Aggregate, Builder, ForestConfig, Missing, Node, Numbers, Split, Test, Tree, Values, Vote};

/// Reads the JSON form.
pub(super) fn json(bytes: &[u8]) -> Result<LibraryModel, LoadError> {
    let file: File = serde_json::from_slice(bytes).map_err(|error| {
        // A JSON file of something else is another engine's business; one that began as a model is a damaged one.
        match serde_json::from_slice::<Outline>(bytes) {
            Ok(Outline { learner: None }) => foreign(),
            Ok(_) | Err(_) => invalid(format!("XGBoost's JSON: {error}")).with_cause(error),
        }
    })?;
    model(file)
}

/// Reads the UBJ form.
pub(super) fn ubj(bytes: &[u8]) -> Result<LibraryModel, LoadError> {
    let file: File =
        ubj::from_slice(bytes).map_err(|error| invalid(format!("XGBoost's UBJ: {error}")).with_cause(error))?;
    model(file)
}

fn foreign() -> LoadError {
    LoadError::new(millrace_core::LoadErrorKind::Foreign, "JSON without a `learner`, so not of XGBoost")
}

/// Enough of a JSON file to tell whose it is.
#[derive(Deserialize)]
struct Outline {
    learner: Option<de::IgnoredAny>,
}

#[derive(Deserialize)]
struct File {
    learner: Learner,
    #[serde(default)]
    version: Vec<u32>,
}

#[derive(Deserialize)]
struct Learner {
    #[serde(default)]
    attributes: Attributes,
    #[serde(default)]
    feature_names: Vec<String>,
    gradient_booster: Booster,
    learner_model_param: LearnerParam,
    objective: Objective,
}

#[derive(Deserialize, Default)]
struct Attributes {
    best_iteration: Option<Number>,
}

#[derive(Deserialize)]
struct LearnerParam {
    base_score: Scores,
    #[serde(default)]
    num_class: Number,
    num_feature: Number,
    #[serde(default)]
    num_target: Number,
}

#[derive(Deserialize)]
struct Objective {
    name: String,
}

/// `gbtree` has a model; `dart` has a `gbtree` and a weight for each tree.
#[derive(Deserialize)]
struct Booster {
    name: String,
    model: Option<Model>,
    gbtree: Option<Gbtree>,
    weight_drop: Option<Vec<f32>>,
}

#[derive(Deserialize)]
struct Gbtree {
    model: Option<Model>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    gbtree_model_param: GbtreeParam,
    iteration_indptr: Option<Vec<usize>>,
    tree_info: Option<Vec<usize>>,
    trees: Option<Vec<RawTree>>,
}

#[derive(Deserialize, Default)]
struct GbtreeParam {
    #[serde(default)]
    num_parallel_tree: Number,
}

#[derive(Deserialize)]
struct RawTree {
    left_children: Vec<i64>,
    right_children: Vec<i64>,
    split_indices: Vec<i64>,
    split_conditions: Vec<f32>,
    default_left: Vec<Flag>,
    #[serde(default)]
    split_type: Vec<i64>,
    #[serde(default)]
    categories: Vec<i64>,
    #[serde(default)]
    categories_nodes: Vec<i64>,
    #[serde(default)]
    categories_segments: Vec<i64>,
    #[serde(default)]
    categories_sizes: Vec<i64>,
    #[serde(default)]
    tree_param: TreeParam,
}

#[derive(Deserialize, Default)]
struct TreeParam {
    #[serde(default)]
    size_leaf_vector: Number,
}

/// A count, which XGBoost writes as a string.
#[derive(Debug, Clone, Copy, Default)]
struct Number(usize);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a count")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
                let wrong = |_| E::invalid_value(de::Unexpected::Str(text), &self);
                text.trim().parse().map(Number).map_err(wrong)
            }

            fn visit_u64<E: de::Error>(self, count: u64) -> Result<Number, E> {
                let wrong = |_| E::invalid_value(de::Unexpected::Unsigned(count), &self);
                usize::try_from(count).map(Number).map_err(wrong)
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// One number, or since 3.1 a list of them, as text.
#[derive(Debug)]
struct Scores(Vec<f32>);

impl<'de> Deserialize<'de> for Scores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Scores;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a list of numbers")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scores, E> {
                let list = text.trim().trim_start_matches('[').trim_end_matches(']');
                let scores: Result<Vec<f32>, _> = list.split(',').map(|score| score.trim().parse()).collect();
                scores.map(Scores).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// A truth value: 0 and 1, or `true` and `false` in the oldest files.
#[derive(Debug, Clone, Copy)]
struct Flag(bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Truth;
        impl Visitor<'_> for Truth {
            type Value = Flag;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("0 or 1")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Flag, E> {
                Ok(Flag(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Flag, E> {
                Ok(Flag(value != 0))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Flag, E> {
                Ok(Flag(value != 0))
            }
        }
        deserializer.deserialize_any(Truth)
    }
}

/// What an objective makes of sums, and of the base score before it joins the sums.
struct Meaning {
    link: Link,
    /// From the base score in the file to what is added to the sums.
    base: fn(f32) -> f32,
}

/// The objectives that are known.
fn meaning(objective: &str) -> Result<Meaning, LoadError> {
    let same = |score: f32| score;
    let logit = |score: f32| -(1.0 / score - 1.0).ln();
    let (link, base): (Link, fn(f32) -> f32) = match objective {
        "binary:logistic" => (Link::Binary { steepness: 1.0 }, logit),
        "reg:logistic" => (Link::Sigmoid, logit),
        "multi:softprob" | "multi:softmax" => (Link::Softmax, same),
        "count:poisson" | "reg:gamma" | "reg:tweedie" => (Link::Exp, f32::ln),
        "binary:logitraw"
        | "reg:squarederror"
        | "reg:linear"
        | "reg:squaredlogerror"
        | "reg:absoluteerror"
        | "reg:pseudohubererror"
        | "reg:quantileerror"
        | "rank:pairwise"
        | "rank:ndcg"
        | "rank:map" => (Link::Identity, same),
        other => return Err(unsupported(format!("XGBoost's objective `{other}`"))),
    };
    Ok(Meaning { link, base })
}

fn model(file: File) -> Result<LibraryModel, LoadError> {
    let File { learner, version } = file;
    let Learner { attributes, feature_names, gradient_booster, learner_model_param: param, objective } = learner;
    let Meaning { link, base } = meaning(&objective.name)?;
    let booster = gradient_booster.name;
    let (model, weights) = match booster.as_str() {
        "gbtree" => (gradient_booster.model, None),
        "dart" => (gradient_booster.gbtree.and_then(|gbtree| gbtree.model), gradient_booster.weight_drop),
        other => return Err(unsupported(format!("XGBoost's booster `{other}`: only `gbtree` and `dart` are trees"))),
    };
    let model = model.ok_or_else(|| invalid(format!("the booster `{booster}` has no `model`")))?;
    let trees = model.trees.ok_or_else(|| invalid("the model has no `trees`"))?;
    let targets = param.num_class.0.max(param.num_target.0).max(1);
    if targets > 1 && matches!(link, Link::Binary { .. }) {
        return Err(unsupported(format!("XGBoost's objective `{}` over {targets} targets", objective.name)));
    }
    let info = model.tree_info.unwrap_or_default();
    if info.len() != trees.len() {
        return Err(invalid(format!("`tree_info` has {} entries for {} trees", info.len(), trees.len())));
    }
    if weights.as_ref().is_some_and(|weights| weights.len() != trees.len()) {
        return Err(invalid(format!("`weight_drop` is not one weight for each of the {} trees", trees.len())));
    }
    let used = match attributes.best_iteration {
        Some(best) => {
            used(best.0, model.iteration_indptr.as_deref(), &model.gbtree_model_param, targets)?.min(trees.len())
        }
        None => trees.len(),
    };
    let base = match param.base_score.0.as_slice() {
        [score] => vec![f64::from(base(*score)); targets],
        scores if scores.len() == targets => scores.iter().map(|score| f64::from(base(*score))).collect(),
        scores => return Err(invalid(format!("`base_score` has {} entries for {targets} targets", scores.len()))),
    };
    if base.iter().any(|base| !base.is_finite()) {
        return Err(invalid(format!("`base_score` is out of range for the objective `{}`", objective.name)));
    }
    let mut builder = Builder::new(ForestConfig {
        features: param.num_feature.0,
        targets,
        input: Numbers::Single,
        aggregate: Aggregate::Sum,
        // As XGBoost does, tree after tree.
        sums: Numbers::Single,
        base,
    })?;
    builder.start_with_base();
    let total = trees.len();
    for (number, (raw, target)) in trees.into_iter().zip(info).take(used).enumerate() {
        let weight = weights.as_ref().map(|weights| weights[number]);
        builder.push(&tree(&raw, number, target, weight)?)?;
    }
    let mut properties = BTreeMap::from([
        ("format".to_owned(), format!("XGBoost {}", dotted(&version))),
        ("booster".to_owned(), booster),
        ("objective".to_owned(), objective.name),
    ]);
    if used < total {
        properties.insert("trees left out".to_owned(), format!("{} after the best iteration", total - used));
    }
    let forest = builder.build()?;
    LibraryModel::new(Parts { forest, link, weight_type: "FP32", properties, feature_names })
}

fn dotted(version: &[u32]) -> String {
    let parts: Vec<String> = version.iter().take(4).map(ToString::to_string).collect();
    parts.join(".")
}

/// How many trees come before the end of iteration `best`.
fn used(best: usize, ends: Option<&[usize]>, param: &GbtreeParam, targets: usize) -> Result<usize, LoadError> {
    let wrong = || invalid(format!("`best_iteration` is {best}, beyond the iterations"));
    let iterations = best.checked_add(1).ok_or_else(wrong)?;
    match ends {
        Some(ends) => ends.get(iterations).copied().ok_or_else(wrong),
        None => iterations.checked_mul(param.num_parallel_tree.0.max(1) * targets).ok_or_else(wrong),
    }
}

/// A tree in our words.
fn tree(raw: &RawTree, number: usize, target: usize, weight: Option<f32>) -> Result<Tree, LoadError> {
    if raw.tree_param.size_leaf_vector.0 > 1 {
        return Err(unsupported("XGBoost's trees with vectors in their leaves (`multi_output_tree`)"));
    }
    let nodes = raw.left_children.len();
    let lists = [
        ("right_children", raw.right_children.len()),
        ("split_indices", raw.split_indices.len()),
        ("split_conditions", raw.split_conditions.len()),
        ("default_left", raw.default_left.len()),
    ];
    if let Some((name, length)) = lists.into_iter().find(|(_, length)| *length != nodes) {
        return Err(invalid(format!("tree {number}: `{name}` has {length} entries for {nodes} nodes")));
    }
    let mut tree = Tree { nodes: Vec::with_capacity(nodes), ..Tree::default() };
    let sets = sets(raw, number, &mut tree.members)?;
    for node in 0..nodes {
        let wrong = |what: &str, value: i64| invalid(format!("tree {number}, node {node}: {what} {value}"));
        let place = |what: &str, value: i64| usize::try_from(value).map_err(|_| wrong(what, value));
        if raw.left_children[node] == -1 {
            let value = raw.split_conditions[node];
            let weight = f64::from(weight.map_or(value, |weight| weight * value));
            tree.nodes.push(Node::Leaf(node..node + 1));
            tree.votes.push(Vote { target, weight });
            continue;
        }
        // Votes are numbered as nodes are; what no leaf refers to is never read.
        tree.votes.push(Vote { target, weight: 0.0 });
        let left = place("left child", raw.left_children[node])?;
        let right = place("right child", raw.right_children[node])?;
        let feature = place("feature", raw.split_indices[node])?;
        let goes_left = raw.default_left[node].0;
        tree.nodes.push(Node::Split(match raw.split_type.get(node).copied().unwrap_or(0) {
            0 => Split {
                feature,
                test: Test::Below(raw.split_conditions[node].into()),
                missing: if goes_left { Missing::Yes } else { Missing::No },
                yes: left,
                no: right,
            },
            // What is in the set goes right.
            1 => Split {
                feature,
                test: Test::OneOf(sets.get(&node).cloned().unwrap_or(0..0), Values::CutIfPositive),
                missing: if goes_left { Missing::No } else { Missing::Yes },
                yes: right,
                no: left,
            },
            other => return Err(wrong("split type", other)),
        }));
    }
    Ok(tree)
}

/// The categories of each node that has some, as ranges of `members`.
fn sets(
    raw: &RawTree,
    number: usize,
    members: &mut Vec<f64>,
) -> Result<BTreeMap<usize, std::ops::Range<usize>>, LoadError> {
    let wrong = || invalid(format!("tree {number}: its lists of categories contradict each other"));
    let count = raw.categories_nodes.len();
    if raw.categories_segments.len() != count || raw.categories_sizes.len() != count {
        return Err(wrong());
    }
    let mut sets = BTreeMap::new();
    for (index, node) in raw.categories_nodes.iter().enumerate() {
        let place = |value: i64| usize::try_from(value).ok();
        let range = place(raw.categories_segments[index])
            .zip(place(raw.categories_sizes[index]))
            .and_then(|(start, size)| Some(start..start.checked_add(size)?));
        let listed = range.and_then(|range| raw.categories.get(range)).ok_or_else(wrong)?;
        let start = members.len();
        if start + listed.len() > raw.categories.len() {
            return Err(wrong());
        }
        #[expect(clippy::cast_precision_loss, reason = "categories beyond 2^24 are never looked up")]
        members.extend(listed.iter().map(|category| *category as f64));
        sets.insert(place(*node).ok_or_else(wrong)?, start..members.len());
    }
    Ok(sets)
}
