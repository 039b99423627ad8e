//! Forests that the engine would load and then get wrong.

use std::collections::{HashMap, HashSet};

use millrace_core::LoadError;
use tract_onnx::pb::{GraphProto, NodeProto};

use super::{Checker, called, graph};

/// Checks every forest of the graph and of the graphs inside it.
///
/// # Errors
/// [`LoadError`] naming the node.
pub(super) fn check(checker: &Checker<'_>, graph: &GraphProto) -> Result<(), LoadError> {
    let mut outcome = Ok(());
    graph::for_each_node(graph, &mut |node| {
        if outcome.is_ok() && node.op_type == "TreeEnsembleClassifier" {
            outcome = check_classes(checker, node).and_then(|()| check_links(checker, node));
        }
    });
    outcome
}

fn ints<'a>(node: &'a NodeProto, name: &str) -> &'a [i64] {
    node.attribute.iter().find(|attribute| attribute.name == name).map_or(&[], |attribute| &attribute.ints)
}

fn n_strings(node: &NodeProto, name: &str) -> usize {
    node.attribute.iter().find(|attribute| attribute.name == name).map_or(0, |attribute| attribute.strings.len())
}

/// Two classes whose votes all name one class: the other's probability is the rest. The engine chooses the label before
/// it has computed that rest, so that every answer carries the first label.
fn check_classes(checker: &Checker<'_>, node: &NodeProto) -> Result<(), LoadError> {
    let n_classes = ints(node, "classlabels_int64s").len().max(n_strings(node, "classlabels_strings"));
    let votes = ints(node, "class_ids");
    if n_classes == 2 && votes.iter().all(|vote| Some(vote) == votes.first()) {
        return Err(checker.unsupported(format_args!(
            "{}: a forest of two classes whose votes all name one class; this engine would answer the \
             first label always; the engine `trees` runs it",
            called(node)
        )));
    }
    Ok(())
}

/// A forest whose branches form a loop would make a run last for ever.
fn check_links(checker: &Checker<'_>, node: &NodeProto) -> Result<(), LoadError> {
    let (trees, ids) = (ints(node, "nodes_treeids"), ints(node, "nodes_nodeids"));
    let (yes, no) = (ints(node, "nodes_truenodeids"), ints(node, "nodes_falsenodeids"));
    let modes = node.attribute.iter().find(|attribute| attribute.name == "nodes_modes");
    let modes: &[Vec<u8>] = modes.map_or(&[], |attribute| &attribute.strings);
    let count = ids.len();
    if [trees.len(), yes.len(), no.len(), modes.len()].iter().any(|&length| length != count) {
        return Err(checker.invalid(format_args!("{}: its lists of branches differ in length", called(node))));
    }
    let mut sizes: HashMap<i64, i64> = HashMap::new();
    trees.iter().for_each(|tree| *sizes.entry(*tree).or_insert(0) += 1);
    let known: HashSet<(i64, i64)> = trees.iter().copied().zip(ids.iter().copied()).collect();
    let mut children: HashSet<(i64, i64)> = HashSet::new();
    for index in 0..count {
        // The engine finds a branch by its place, so that the places of a tree must be 0, 1, 2, …
        let is_place = (0..sizes.get(&trees[index]).copied().unwrap_or(0)).contains(&ids[index]);
        let branches: &[i64] = if modes[index] == b"LEAF" { &[] } else { &[yes[index], no[index]] };
        let leads_on = |&branch: &i64| branch != 0 && known.contains(&(trees[index], branch));
        // Nobody has two parents and the root has none: then no way leads back.
        let sound =
            branches.iter().all(leads_on) && branches.iter().all(|&branch| children.insert((trees[index], branch)));
        if !is_place || !sound {
            let (tree, id) = (trees[index], ids[index]);
            return Err(
                checker.invalid(format_args!("{}: branch {id} of tree {tree} leads nowhere or back", called(node)))
            );
        }
    }
    if known.len() != count {
        return Err(checker.invalid(format_args!("{}: two branches of one tree have one number", called(node))));
    }
    Ok(())
}
