//! The path grammar, row by row.

use millrace_core::{ModelRef, VersionChoice};
use millrace_protocol::tfs::Verb;

use proptest::{prop_assert, proptest};

use super::{Route, Target, VersionTooLarge};
use crate::route::strip;

fn route(path: &str) -> Route<'_> {
    super::route(strip(path, "/v1/").unwrap())
}

fn inferred(path: &str) -> Option<(String, String, Verb)> {
    match route(path) {
        Route::Infer(target, verb) => {
            let model = target.model().unwrap();
            Some((model.name.to_owned(), format!("{:?}", model.version), verb))
        }
        _ => None,
    }
}

#[test]
fn verbs_match_with_and_without_version_or_label() {
    let cases = [
        ("/v1/models/m:predict", "Default", Verb::Predict),
        ("/v1/models/m/versions/3:predict", "Number(3)", Verb::Predict),
        ("/v1/models/m/versions/007:predict", "Number(7)", Verb::Predict),
        ("/v1/models/m/labels/stable:predict", "Label(\"stable\")", Verb::Predict),
        ("/v1/models/m:classify", "Default", Verb::Classify),
        ("/v1/models/m/labels/a%20b:regress", "Label(\"a b\")", Verb::Regress),
    ];
    for (path, version, verb) in cases {
        assert_eq!(inferred(path), Some(("m".to_owned(), version.to_owned(), verb)), "{path}");
    }
}

#[test]
fn paths_match_in_any_case_but_names_keep_theirs() {
    let (name, _, verb) = inferred("/V1/Models/MiXed/VERSIONS/1:PREDICT").unwrap();
    assert_eq!((name.as_str(), verb), ("MiXed", Verb::Predict));
}

#[test]
fn what_does_not_match_as_a_whole_is_malformed() {
    let paths = [
        "/v1/",
        "/v1/nothing",
        "/v1/models/",
        "/v1/models/m:",
        "/v1/models/m:foo",
        "/v1/models/m:predict/",
        "/v1/models/m:predict:predict",
        "/v1/models/:predict",
        "/v1/models/m/:predict",
        "/v1/models/m/versions/abc:predict",
        "/v1/models/m/versions/-1:predict",
        "/v1/models/m/versions/1.0:predict",
        "/v1/models/m/versions/\u{661}:predict",
        "/v1/models/m/versions/:predict",
        "/v1/models/m/versions:predict",
        "/v1/models/m/versions/1/labels/a:predict",
        "/v1/models/m/labels/a/versions/1:predict",
        "/v1/models/m/extra",
        "/v1/models/m/metadata/more",
        "/v1/models//metadata",
    ];
    for path in paths {
        assert_eq!(route(path), Route::Malformed, "{path}");
    }
}

#[test]
fn status_and_metadata_match() {
    let version = |route: Route<'_>| match route {
        Route::Status(target) => format!("status {:?}", target.model().unwrap().version),
        Route::Metadata(target) => format!("metadata {:?}", target.model().unwrap().version),
        other => format!("{other:?}"),
    };
    let cases = [
        ("/v1/models", "List"),
        ("/v1/models/m", "status Default"),
        ("/v1/models/metadata", "status Default"),
        ("/v1/models/m/versions/2", "status Number(2)"),
        ("/v1/models/m/labels/a", "status Label(\"a\")"),
        ("/v1/models/m/labels/metadata", "status Label(\"metadata\")"),
        ("/v1/models/m/metadata", "metadata Default"),
        ("/v1/models/m/versions/2/METADATA", "metadata Number(2)"),
        ("/v1/models/m/labels/a/metadata", "metadata Label(\"a\")"),
    ];
    for (path, expected) in cases {
        assert_eq!(version(route(path)), expected, "{path}");
    }
}

#[test]
fn names_are_decoded_after_matching() {
    for (path, name) in [
        ("/v1/models/a%2Fb:predict", "a/b"),
        ("/v1/models/..%2f..:predict", "../.."),
        ("/v1/models/%2e%2e:predict", ".."),
        ("/v1/models/a%3Apredict:predict", "a:predict"),
        ("/v1/models/%00:predict", "\0"),
        ("/v1/models/%c0%ae:predict", "\u{fffd}\u{fffd}"),
    ] {
        assert_eq!(inferred(path).unwrap().0, name, "{path}");
    }
}

#[test]
fn a_version_beyond_64_bits_is_told_apart_from_a_malformed_path() {
    for digits in ["9223372036854775808", "18446744073709551616", "99999999999999999999999999"] {
        let path = format!("/v1/models/m/versions/{digits}:predict");
        let Route::Infer(target, _) = route(&path) else { panic!("{path} is well formed") };
        assert_eq!(target.model(), Err(VersionTooLarge(digits)));
    }
    let Route::Infer(target, _) = route("/v1/models/m/versions/9223372036854775807:predict") else { panic!() };
    let largest = VersionChoice::Number(9_223_372_036_854_775_807);
    assert_eq!(target.model(), Ok(ModelRef { name: "m", version: largest }));
}

proptest! {
    #[test]
    fn no_path_upsets_the_grammar(rest in "(models/)?[a-zA-Z0-9:/%._\\-\u{e9}]{0,60}") {
        let named = |target: &Target<'_>| target.model().is_ok_and(|model| model.name.is_empty());
        match super::route(&rest) {
            Route::Infer(target, _) | Route::Explain(target) | Route::Status(target) | Route::Metadata(target) => {
                prop_assert!(strip(&rest, "models/").is_some());
                prop_assert!(!named(&target));
            }
            Route::List => prop_assert!(strip(&rest, "models").is_some()),
            Route::Malformed => {}
        }
    }
}
