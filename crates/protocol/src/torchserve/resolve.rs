//! Version strings, and from a model's name to a servable in TorchServe's words.
//!
//! TorchServe's versions are strings such as `1.0`; ours are whole numbers. `1` and `1.0` both mean version 1, which is
//! written `1.0`; any other string is an alias.

use std::sync::Arc;

use millrace_core::{ModelRef, ModelStatus, Reason, Refusal, RequestContext, Resolver, Servable, VersionChoice};

use super::failure::Failure;
use crate::tfs::Bare;

/// Version `number` as TorchServe's clients expect it: `1.0`.
pub fn written_version(number: u64) -> String {
    format!("{number}.0")
}

/// The number that a version string means, if it means one.
fn number(text: &str) -> Option<u64> {
    let digits = text.strip_suffix(".0").unwrap_or(text);
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    digits.parse().ok().filter(|_| is_plain)
}

/// The version that `model` means now; no `version`, or an empty one, means the default version.
///
/// # Errors
/// A [`Failure`] in TorchServe's words. A model that is known but cannot serve now has no worker.
pub fn resolve(
    resolver: &dyn Resolver,
    model: &str,
    version: Option<&str>,
    context: &RequestContext,
) -> Result<Arc<dyn Servable>, Failure> {
    let version = version.filter(|text| !text.is_empty());
    let label = |text| resolver.resolve(&ModelRef::with_label(model, text), context);
    let found = match version {
        None => resolver.resolve(&ModelRef { name: model, version: VersionChoice::Default }, context),
        Some(text) => match number(text) {
            None => label(text),
            Some(number) => match resolver.resolve(&ModelRef::with_version(model, number), context) {
                // Aliases may look like numbers, `2.0` for version 7, say; a version of that number goes first.
                Err(refusal) if refusal.reason() == Reason::VersionUnknown => label(text).map_err(|_| refusal),
                found => found,
            },
        },
    };
    found.map_err(|refusal| not_resolved(refusal, model, version))
}

fn not_resolved(refusal: Refusal, model: &str, version: Option<&str>) -> Failure {
    let name = Bare(model);
    match (refusal.reason(), version) {
        (Reason::ModelUnknown, _) => Failure::reworded(refusal, format!("Model not found: {name}")),
        (Reason::VersionUnknown | Reason::LabelUnknown, Some(version)) => {
            let version = Bare(version);
            Failure::reworded(refusal, format!("Model version: {version} does not exist for model: {name}"))
        }
        _ => not_served(refusal, model, version),
    }
}

/// The failure of a request that was refused by the version it is for, or on the way there: one that cannot serve now has
/// no worker, in TorchServe's words.
pub fn not_served(refusal: Refusal, model: &str, version: Option<&str>) -> Failure {
    if !matches!(refusal.reason(), Reason::NotReady | Reason::Loading) {
        return refusal.into();
    }
    // The stray quote is TorchServe's.
    let version = version.map(|version| format!(" Version {}\"", Bare(version))).unwrap_or_default();
    let message = format!(
        "Model \"{}\"{version} has no worker to serve inference request. \
         Please use scale workers API to add workers. ({refusal})",
        Bare(model)
    );
    Failure::reworded(refusal, message)
}

/// The version of `model` that the string `version` means, among all that are known.
pub fn find_version(model: &ModelStatus, version: &str) -> Option<u64> {
    let is_known = |number: &u64| model.versions.iter().any(|known| known.version == *number);
    number(version).filter(is_known).or_else(|| model.aliases.get(version).copied().filter(is_known))
}

#[cfg(test)]
mod tests {
    use millrace_core::{ModelStatus, VersionState, VersionStatus};

    use super::{find_version, number, written_version};

    #[test]
    fn a_version_is_a_number_with_or_without_point_zero_and_nothing_else_is() {
        for (text, expected) in [
            ("1", Some(1)),
            ("1.0", Some(1)),
            ("0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("01", None),
            ("1.00", None),
            ("1.1", None),
            ("1.0.0", None),
            ("-1", None),
            ("+1", None),
            ("", None),
            (".0", None),
            ("\u{661}", None),
            ("stable", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
        assert_eq!(number(&written_version(7)), Some(7));
    }

    #[test]
    fn an_alias_that_looks_like_a_number_counts_where_no_version_has_it() {
        let mut model = ModelStatus::new("m".parse().unwrap());
        model.versions = [1, 7].map(|version| VersionStatus::new(version, VersionState::Available)).into();
        model.aliases = [("2.0".parse().unwrap(), 7), ("1.0".parse().unwrap(), 7), ("gone".parse().unwrap(), 3)].into();
        let found = ["1.0", "2.0", "2", "gone", "7"].map(|text| find_version(&model, text));
        assert_eq!(found, [Some(1), Some(7), None, None, Some(7)]);
    }
}
