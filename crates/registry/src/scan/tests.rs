use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use super::{Scan, Scanner, version_number};
use crate::desired::Orders;
use crate::{ListedModel, ModelSet};

/// A repository with these files (their text is their own name); a path that ends in `/` is an empty folder.
fn repository(paths: &[&str]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for path in paths {
        let full = root.path().join(path);
        if path.ends_with('/') {
            fs::create_dir_all(full).unwrap();
        } else {
            fs::create_dir_all(full.parent().unwrap()).unwrap();
            fs::write(full, path).unwrap();
        }
    }
    root
}

fn scan(root: &Path) -> Scan {
    Scanner::new(ModelSet::Repository(root.to_owned()), Vec::new(), u64::MAX).scan(&Orders::default()).unwrap()
}

fn shape(scan: &Scan) -> String {
    let model = |(name, model): (&_, &super::FoundModel)| {
        format!("{name}:{:?}", model.versions.keys().collect::<Vec<_>>()).replace(' ', "")
    };
    scan.models.iter().map(model).collect::<Vec<_>>().join(" ")
}

#[test]
fn folders_with_numbers_are_versions() {
    let root = repository(&["a/1/m", "a/00000123/m", "a/README.md", "a/assets/x", "b/7/m", ".git/1/m", "README.md"]);
    let scan = scan(root.path());
    assert_eq!(shape(&scan), "a:[1,123] b:[7]");
    assert_eq!(scan.warnings, Vec::<String>::new());
}

/// Row 61 of the robustness table.
#[test]
fn strange_version_names_are_ignored_with_one_warning_each() {
    let root = repository(&["m/1/f", "m/2", "m/01x/f", "m/-1/f", "m/123456789012345678901234/f", "m/1.0/f"]);
    let outside = repository(&["3/f"]);
    symlink(outside.path().join("3"), root.path().join("m/3")).unwrap();
    symlink("../../..", root.path().join("m/4")).unwrap();
    symlink("5", root.path().join("m/5")).unwrap();
    symlink(".", root.path().join("m/6")).unwrap();
    let scan = scan(root.path());
    assert_eq!(shape(&scan), "m:[1]");
    assert_eq!(scan.warnings.len(), 9, "{:#?}", scan.warnings);
    for name in ["2", "01x", "-1", "123456789012345678901234", "1.0", "3", "4", "5", "6"] {
        let about = |warning: &&String| warning.contains(&format!("/m/{name}`: ignored"));
        assert_eq!(scan.warnings.iter().filter(about).count(), 1, "{name}: {:#?}", scan.warnings);
    }
}

#[test]
fn links_between_versions_of_the_repository_are_versions() {
    let root = repository(&["m/1/f", "releases/m2/f"]);
    symlink("../releases/m2", root.path().join("m/2")).unwrap();
    assert_eq!(shape(&scan(root.path())), "m:[1,2]");
}

#[test]
fn of_two_spellings_of_one_number_the_plain_one_is_used() {
    let root = repository(&["m/01/f", "m/1/f", "m/001/f"]);
    let scan = scan(root.path());
    assert_eq!(shape(&scan), "m:[1]");
    assert_eq!(scan.models.values().next().unwrap().versions[&1].place.below, "m/1");
    assert_eq!(scan.warnings.len(), 2, "{:#?}", scan.warnings);
}

#[test]
fn models_that_cannot_be_are_explained() {
    let root = repository(&["no versions/", "empty/", "flat/model.onnx", "loose.onnx", "named/model.toml"]);
    fs::write(root.path().join("named/model.toml"), "versions = \"all\"").unwrap();
    let scan = scan(root.path());
    assert_eq!(shape(&scan), "named:[]");
    assert_eq!(scan.warnings.len(), 4, "{:#?}", scan.warnings);
}

#[test]
fn a_wrong_model_toml_is_that_model_s_alone() {
    let root = repository(&["good/1/f", "bad/1/f", "bad/model.toml"]);
    fs::write(root.path().join("bad/model.toml"), "verisons = 1").unwrap();
    let mut scanner = Scanner::new(ModelSet::Repository(root.path().to_owned()), Vec::new(), u64::MAX);
    let scan = scanner.scan(&Orders::default()).unwrap();
    assert!(scan.models["good"].config.is_ok());
    let message = scan.models["bad"].config.as_ref().unwrap_err();
    assert!(message.contains("line 1") && message.contains("`versions`"), "{message}");
    fs::write(root.path().join("bad/model.toml"), "versions = \"all\"").unwrap();
    assert!(scanner.scan(&Orders::default()).unwrap().models["bad"].config.is_ok());
}

#[test]
fn a_listed_model_lies_wherever_its_path_says() {
    let root = repository(&["deep/down/3/f", "model.toml"]);
    let model = |name: &str, path: &str| ListedModel::new(name.parse().unwrap(), root.path().join(path));
    let list = vec![model("a", "deep/down"), model("gone", "nowhere")];
    let scan = Scanner::new(ModelSet::Listed(list), Vec::new(), u64::MAX).scan(&Orders::default()).unwrap();
    assert_eq!(shape(&scan), "a:[3] gone:[]");
    assert_eq!(scan.warnings.len(), 1, "{:?}", scan.warnings);
}

#[test]
fn a_repository_that_is_gone_is_an_error_and_not_an_empty_one() {
    let root = repository(&["m/1/f"]);
    let mut scanner = Scanner::new(ModelSet::Repository(root.path().to_owned()), Vec::new(), u64::MAX);
    assert_eq!(shape(&scanner.scan(&Orders::default()).unwrap()), "m:[1]");
    drop(root);
    assert!(scanner.scan(&Orders::default()).is_err());
}

#[test]
fn version_numbers_are_what_the_wire_can_say() {
    assert_eq!(version_number("0"), Some(0));
    assert_eq!(version_number("00000123"), Some(123));
    assert_eq!(version_number("9223372036854775807"), Some(u64::try_from(i64::MAX).unwrap()));
    for wrong in ["", "-1", "+1", "1 ", "01x", "9223372036854775808", "١"] {
        assert_eq!(version_number(wrong), None, "{wrong}");
    }
}
