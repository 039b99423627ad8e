//! LightGBM's text files, as `save_model` writes them: versions 2 to 4.
//!
//! A header, then one block for each tree, then parameters that are of no concern here. Numbers are `f64`: thresholds are
//! compared with FP32 rows as such, and sums are `f64`, as in the library. Trees with linear models in their leaves are
//! refused by name, and so are objectives that are not in [`link`].

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

use millrace_core::LoadError;

use super::model::{LibraryModel, Link, Parts};
use super::{invalid, unsupported};
use crate::forest::{Aggregate, Builder, ForestConfig, Missing, Node, Numbers, Split, Test, Tree, Values, Vote};

/// Reads a file.
pub(super) fn text(bytes: &[u8]) -> Result<LibraryModel, LoadError> {
    // Names of features may be in any encoding; numbers are ASCII.
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines().map(str::trim_end);
    let mut header = Block { what: "the header".to_owned(), entries: HashMap::new() };
    let mut trees: Vec<Block<'_>> = Vec::new();
    let mut is_whole = false;
    for line in &mut lines {
        if line == "end of trees" {
            is_whole = true;
            break;
        }
        if let Some(number) = line.strip_prefix("Tree=") {
            if number.parse() != Ok(trees.len()) {
                return Err(invalid(format!("expected `Tree={}`, got `{}`", trees.len(), shortened(line))));
            }
            trees.push(Block { what: format!("tree {number}"), entries: HashMap::new() });
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        trees.last_mut().unwrap_or(&mut header).entries.insert(key, value);
    }
    if !is_whole {
        return Err(invalid("the file ends before `end of trees`"));
    }
    model(&header, &trees)
}

/// Lines of `key=value`.
struct Block<'t> {
    what: String,
    entries: HashMap<&'t str, &'t str>,
}

impl<'t> Block<'t> {
    fn text(&self, key: &str) -> Option<&'t str> {
        self.entries.get(key).copied()
    }

    fn number<T: FromStr>(&self, key: &str) -> Result<T, LoadError> {
        let Some(text) = self.text(key) else {
            return Err(invalid(format!("{}: `{key}` is missing", self.what)));
        };
        text.trim().parse().map_err(|_| self.wrong(key, text))
    }

    /// The numbers of `key`, of which there must be `count`. Without numbers to list, the line may be missing.
    fn list<T: FromStr>(&self, key: &str, count: usize) -> Result<Vec<T>, LoadError> {
        let text = self.text(key).unwrap_or_default();
        let numbers = text.split_ascii_whitespace().map(|number| number.parse().map_err(|_| self.wrong(key, number)));
        let numbers = numbers.collect::<Result<Vec<T>, _>>()?;
        if numbers.len() != count {
            let text = format!("{}: expected {count} numbers in `{key}`, got {}", self.what, numbers.len());
            return Err(invalid(text));
        }
        Ok(numbers)
    }

    fn wrong(&self, key: &str, text: &str) -> LoadError {
        invalid(format!("{}: `{key}` has `{}`, which is not such a number", self.what, shortened(text)))
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

/// How sums become answers, from the words of the line `objective`.
fn link(objective: Option<&str>, targets: usize) -> Result<Link, LoadError> {
    let Some(objective) = objective else { return Ok(Link::Identity) };
    let mut words = objective.split_ascii_whitespace();
    let name = words.next().unwrap_or_default();
    let mut steepness = 1.0;
    let mut is_sqrt = false;
    for word in words {
        if word == "sqrt" {
            is_sqrt = true;
        } else if let Some(text) = word.strip_prefix("sigmoid:") {
            steepness = text.parse().ok().filter(|steepness: &f64| *steepness > 0.0).ok_or_else(|| {
                invalid(format!("the header: `objective` has `{}`, which is not a steepness", shortened(word)))
            })?;
        }
    }
    Ok(match name {
        "binary" if targets == 1 => Link::Binary { steepness },
        "multiclass" | "softmax" if targets > 1 => Link::Softmax,
        "multiclassova" | "multiclass_ova" | "ova" | "ovr" if targets > 1 => Link::OneVersusAll { steepness },
        "regression" | "regression_l2" | "mse" | "l2" if is_sqrt => Link::SignedSquare,
        "regression" | "regression_l2" | "regression_l1" | "mse" | "l2" | "l1" | "mae" | "huber" | "fair"
        | "quantile" | "mape" | "lambdarank" | "rank_xendcg" | "custom" | "none" | "" => Link::Identity,
        "poisson" | "gamma" | "tweedie" => Link::Exp,
        "cross_entropy" => Link::Sigmoid,
        "cross_entropy_lambda" => Link::SoftPlus,
        other => {
            let text = format!("LightGBM's objective `{}` over {targets} trees per iteration", shortened(other));
            return Err(unsupported(text));
        }
    })
}

fn model(header: &Block<'_>, trees: &[Block<'_>]) -> Result<LibraryModel, LoadError> {
    let targets: usize = header.number("num_tree_per_iteration")?;
    if targets == 0 {
        return Err(invalid("the header: `num_tree_per_iteration` is 0"));
    }
    let features = header.number::<usize>("max_feature_idx")?.saturating_add(1);
    let link = link(header.text("objective"), targets)?;
    // Forests are averaged over iterations. With several trees in each, the average over all trees is so many times too
    // small, so the votes are made larger by as much: exactly, but for a last bit where that is no power of two.
    let is_average = header.text("average_output").is_some();
    let mut builder = Builder::new(ForestConfig {
        features,
        targets,
        input: Numbers::Single,
        aggregate: if is_average { Aggregate::Average } else { Aggregate::Sum },
        sums: Numbers::Double,
        base: Vec::new(),
    })?;
    #[expect(clippy::cast_precision_loss, reason = "a number of classes")]
    let scale = if is_average { targets as f64 } else { 1.0 };
    for (number, block) in trees.iter().enumerate() {
        builder.push(&tree(block, number % targets, scale)?)?;
    }
    let names = header.text("feature_names").unwrap_or_default();
    let properties = BTreeMap::from([
        ("format".to_owned(), format!("LightGBM {}", shortened(header.text("version").unwrap_or_default()))),
        ("objective".to_owned(), shortened(header.text("objective").unwrap_or("none"))),
    ]);
    LibraryModel::new(Parts {
        forest: builder.build()?,
        link,
        weight_type: "FP64",
        properties,
        feature_names: names.split_ascii_whitespace().map(str::to_owned).collect(),
    })
}

/// Bits of `decision_type`.
const IS_CATEGORICAL: u8 = 1;
const DEFAULT_LEFT: u8 = 2;
const MISSING_SHIFT: u32 = 2;

/// A tree in our words: its splits first, as the file numbers them, then its leaves.
fn tree(block: &Block<'_>, target: usize, scale: f64) -> Result<Tree, LoadError> {
    if block.text("is_linear").is_some_and(|text| text.trim() != "0") {
        return Err(unsupported(format!("{}: LightGBM's trees with linear models in their leaves", block.what)));
    }
    let leaves: usize = block.number("num_leaves")?;
    if leaves == 0 {
        return Err(invalid(format!("{}: it has no leaves", block.what)));
    }
    let splits = leaves - 1;
    let weights: Vec<f64> = block.list("leaf_value", leaves)?;
    let mut tree = Tree::default();
    let features: Vec<usize> = block.list("split_feature", splits)?;
    let thresholds: Vec<f64> = block.list("threshold", splits)?;
    let kinds: Vec<u8> = block.list("decision_type", splits)?;
    let left: Vec<i64> = block.list("left_child", splits)?;
    let right: Vec<i64> = block.list("right_child", splits)?;
    let sets = sets(block, &mut tree.members)?;
    for node in 0..splits {
        let wrong = |what: &str| invalid(format!("{}, node {node}: {what}", block.what));
        // Leaves are counted down from -1.
        let child = |child: i64| match usize::try_from(child) {
            Ok(split) if split < splits => Ok(split),
            Err(_) => {
                usize::try_from(-1 - child).ok().filter(|leaf| *leaf < leaves).map(|leaf| splits + leaf).ok_or(())
            }
            Ok(_) => Err(()),
        };
        let child = |number: i64| child(number).map_err(|()| wrong(&format!("child {number}")));
        let kind = kinds[node];
        let goes_left = kind & DEFAULT_LEFT != 0;
        let (test, missing) = if kind & IS_CATEGORICAL == 0 {
            let missing = match (kind >> MISSING_SHIFT & 3, goes_left) {
                (0, _) => Missing::IsZero,
                (1, true) => Missing::ZeroYes,
                (1, false) => Missing::ZeroNo,
                (2, true) => Missing::Yes,
                (2, false) => Missing::No,
                _ => return Err(wrong("`decision_type` knows no such kind of missing values")),
            };
            (Test::AtMost(thresholds[node]), missing)
        } else {
            // The threshold is the number of the set. NaN is in none.
            let members = index(thresholds[node]).and_then(|set| sets.get(set));
            let members = members.ok_or_else(|| wrong("its set of categories is not there"))?;
            (Test::OneOf(members.clone(), Values::Cut), Missing::No)
        };
        let (yes, no) = (child(left[node])?, child(right[node])?);
        tree.nodes.push(Node::Split(Split { feature: features[node], test, missing, yes, no }));
    }
    for (leaf, weight) in weights.into_iter().enumerate() {
        tree.nodes.push(Node::Leaf(leaf..leaf + 1));
        tree.votes.push(Vote { target, weight: weight * scale });
    }
    Ok(tree)
}

/// A whole number that the file has as a threshold.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a number of sets")]
fn index(number: f64) -> Option<usize> {
    (0.0..f64::from(u32::MAX)).contains(&number).then_some(number as usize)
}

/// The members of each set of categories, as ranges of `members`.
fn sets(block: &Block<'_>, members: &mut Vec<f64>) -> Result<Vec<std::ops::Range<usize>>, LoadError> {
    let count: usize = if block.text("num_cat").is_some() { block.number("num_cat")? } else { 0 };
    if count == 0 {
        return Ok(Vec::new());
    }
    let wrong = || invalid(format!("{}: its sets of categories contradict each other", block.what));
    let bounds: Vec<usize> = block.list("cat_boundaries", count.checked_add(1).ok_or_else(wrong)?)?;
    let words: Vec<u32> = block.list("cat_threshold", bounds.last().copied().unwrap_or(0))?;
    let mut sets = Vec::with_capacity(bounds.len());
    for pair in bounds.windows(2) {
        let bits = words.get(pair[0]..pair[1]).ok_or_else(wrong)?;
        let start = members.len();
        for (place, word) in bits.iter().enumerate() {
            let place = u32::try_from(place).ok().and_then(|place| place.checked_mul(32)).ok_or_else(wrong)?;
            let of_word = (0..32).filter(|bit| word >> bit & 1 == 1).map(|bit| place + bit);
            members.extend(of_word.map(f64::from));
        }
        sets.push(start..members.len());
    }
    Ok(sets)
}
