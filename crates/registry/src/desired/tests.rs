use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use millrace_core::Alias;
use proptest::prelude::*;

use super::{Overrides, wanted};
use crate::VersionPolicy;

fn latest(count: usize) -> VersionPolicy {
    VersionPolicy::Latest(NonZeroUsize::new(count).unwrap())
}

/// Checks what `policy` wants of versions 1 to 4, with alias `stable` at 2 if asked for, after `orders`: `+3` loads
/// version 3, `-3` unloads it, `+` and `-` mean the whole model.
fn check(policy: &VersionPolicy, stable: bool, orders: &str, expected: &[u64]) {
    let aliases: BTreeMap<Alias, u64> = stable.then(|| ("stable".parse().unwrap(), 2)).into_iter().collect();
    let overrides = orders.split_whitespace().fold(Overrides::default(), |overrides, order| {
        let version = order[1..].parse().ok();
        if order.starts_with('+') { overrides.with_load(version) } else { overrides.with_unload(version) }
    });
    let got = wanted(policy, &aliases, &overrides, &(1..=4).collect());
    assert_eq!(got.into_iter().collect::<Vec<_>>(), expected, "{policy:?} {orders}");
}

#[test]
fn policies_choose_among_what_is_present() {
    check(&latest(1), false, "", &[4]);
    check(&latest(2), false, "", &[3, 4]);
    check(&latest(9), false, "", &[1, 2, 3, 4]);
    check(&VersionPolicy::All, false, "", &[1, 2, 3, 4]);
    check(&VersionPolicy::Specific(vec![3, 1, 8]), false, "", &[1, 3]);
}

#[test]
fn an_aliased_version_is_kept() {
    check(&latest(1), true, "", &[2, 4]);
    check(&latest(1), true, "-2", &[4]);
}

#[test]
fn orders_go_before_the_policy_and_the_last_one_holds() {
    check(&latest(1), false, "+1", &[1, 4]);
    check(&latest(1), false, "-4", &[3]);
    check(&latest(1), false, "-", &[]);
    check(&latest(1), true, "- +3", &[3]);
    check(&latest(1), false, "-4 -3 +4", &[4]);
    check(&latest(1), false, "- +", &[4]);
    check(&latest(1), false, "-4 +", &[4]);
    check(&latest(1), false, "+1 -", &[]);
    check(&VersionPolicy::All, false, "-2 -3", &[1, 4]);
}

fn overrides() -> impl Strategy<Value = Overrides> {
    (any::<bool>(), prop::collection::btree_map(0..6_u64, any::<bool>(), 0..4))
        .prop_map(|(unloaded, versions)| Overrides { unloaded, versions, ..Overrides::default() })
}

fn policies() -> impl Strategy<Value = VersionPolicy> {
    prop_oneof![
        Just(VersionPolicy::All),
        (1..4_usize).prop_map(latest),
        prop::collection::vec(0..6_u64, 0..4).prop_map(VersionPolicy::Specific),
    ]
}

proptest! {
    #[test]
    fn nothing_absent_or_forbidden_is_ever_wanted(
        policy in policies(),
        overrides in overrides(),
        stable in prop::option::of(0..6_u64),
        present in prop::collection::btree_set(0..6_u64, 0..6),
    ) {
        let aliases = stable.map(|version| ("stable".parse().unwrap(), version)).into_iter().collect();
        let wanted: BTreeSet<u64> = wanted(&policy, &aliases, &overrides, &present);
        prop_assert!(wanted.is_subset(&present));
        prop_assert!(wanted.iter().all(|version| !overrides.forbids(*version)));
        // Orders to load hold for whatever is there, and without any order to unload the highest is always served.
        for (version, loaded) in &overrides.versions {
            prop_assert!(!loaded || !present.contains(version) || wanted.contains(version));
        }
        let forbidden = overrides.unloaded || overrides.versions.values().any(|loaded| !loaded);
        if !forbidden && matches!(policy, VersionPolicy::Latest(_) | VersionPolicy::All) {
            prop_assert_eq!(wanted.last(), present.last());
        }
    }

    #[test]
    fn loading_a_model_undoes_unloading_it(policy in policies(), present in prop::collection::btree_set(0..6_u64, 0..6)) {
        let before = wanted(&policy, &BTreeMap::new(), &Overrides::default(), &present);
        let overrides = Overrides::default().with_unload(None).with_load(None);
        prop_assert!(overrides.is_empty());
        prop_assert_eq!(wanted(&policy, &BTreeMap::new(), &overrides, &present), before);
    }
}
