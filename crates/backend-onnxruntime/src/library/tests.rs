use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;

use super::{Availability, Found, OnnxRuntimeConfig, open, search_with};

fn found(library: Option<&Path>, variables: &[(&str, &Path)]) -> Found {
    let variables: HashMap<&str, OsString> =
        variables.iter().map(|(name, value)| (*name, value.as_os_str().to_owned())).collect();
    let config = OnnxRuntimeConfig { library: library.map(Path::to_owned) };
    search_with(&config, &|name| variables.get(name).cloned())
}

#[test]
fn configuration_comes_before_the_environment_and_both_before_the_usual_places() {
    let folder = tempfile::tempdir().unwrap();
    let usual = folder.path().join("libonnxruntime.so.1.31.1");
    std::fs::write(&usual, b"").unwrap();
    let path = [("LD_LIBRARY_PATH", folder.path())];
    let (own, other) = (Path::new("/own.so"), Path::new("/other.so"));
    let asked = [path[0], ("ORT_DYLIB_PATH", other)];
    assert!(matches!(found(Some(own), &asked), Found::Wanted(file) if file == own));
    assert!(matches!(found(None, &asked), Found::Wanted(file) if file == other));
    assert!(matches!(found(None, &path), Found::Some(files) if files[0] == usual));
}

#[test]
fn nothing_found_says_where_was_looked_and_what_to_do() {
    // Machines with a library of the system have something to find.
    if let Found::Nothing(why) = found(None, &[]) {
        for words in ["no library found", "a folder of the system", "ORT_DYLIB_PATH", "pip install onnxruntime"] {
            assert!(why.contains(words), "{why}");
        }
        assert_eq!(Found::Nothing(why.clone()).availability(), Availability::Absent(why));
    }
}

#[test]
fn what_is_no_library_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("libonnxruntime.so");
    std::fs::write(&text, b"not a library").unwrap();
    let refused = |file: &Path, words: &str| {
        let why = open(file).unwrap_err();
        assert!(why.contains(words), "{why}");
    };
    refused(&text, "cannot be loaded");
    refused(folder.path(), "not a regular file");
    refused(&folder.path().join("absent.so"), "not found");
    // A library, but not this one: the C library of this very process.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let libc = maps.lines().filter_map(|line| line.split_whitespace().last()).find(|file| file.contains("/libc.so"));
    if let Some(libc) = libc {
        refused(Path::new(libc), "does not export OrtGetApiBase");
    }
}
