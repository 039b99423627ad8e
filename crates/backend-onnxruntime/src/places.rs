//! Where a library may lie on this machine. Only the file system is looked at; no program is run.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A file or a folder in which a library may lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    /// What named it, in words.
    pub(crate) named_by: &'static str,
}

/// The usual places, in order: folders of the system's loader, the folder of this program, Python's folders of packages.
pub(crate) fn usual(environment: &dyn Fn(&str) -> Option<OsString>) -> Vec<Place> {
    const SYSTEM: [&str; 6] =
        ["/usr/local/lib", "/usr/lib", "/usr/lib64", "/lib", "/opt/onnxruntime/lib", "/opt/homebrew/lib"];
    let mut places = Vec::new();
    let mut add = |path: PathBuf, named_by| places.push(Place { path, named_by });
    for variable in ["LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"] {
        let list = environment(variable).unwrap_or_default();
        std::env::split_paths(&list).filter(|path| path.is_absolute()).for_each(|path| add(path, "the loader's path"));
    }
    let multiarch = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    SYSTEM.into_iter().chain([&*multiarch]).for_each(|path| add(PathBuf::from(path), "a folder of the system"));
    let own = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.to_owned()));
    if let Some(own) = own {
        add(own.join("lib"), "beside the program");
        add(own, "beside the program");
    }
    for variable in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
        let Some(prefix) = environment(variable).map(PathBuf::from).filter(|path| path.is_absolute()) else { continue };
        packages(&prefix).into_iter().for_each(|path| add(path, "the active Python environment"));
        add(prefix.join("lib"), "the active Python environment");
    }
    if let Some(home) = environment("HOME").map(PathBuf::from).filter(|path| path.is_absolute()) {
        packages(&home.join(".local")).into_iter().for_each(|path| add(path, "Python's packages of the user"));
    }
    let path = environment("PATH").unwrap_or_default();
    let python = std::env::split_paths(&path).map(|folder| folder.join("python3")).find(|file| file.is_file());
    if let Some(python) = python {
        // As it is called, for an environment on the path, and as it is, for what a link leads to.
        let real = python.canonicalize().ok();
        for program in std::iter::once(python).chain(real) {
            let Some(prefix) = program.parent().and_then(Path::parent) else { continue };
            packages(prefix).into_iter().for_each(|path| add(path, "Python's packages"));
        }
    }
    places
}

/// The folders under `prefix` into which pip would put the library.
fn packages(prefix: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for lib in [prefix.join("lib"), prefix.join("local/lib")] {
        let Ok(entries) = lib.read_dir() else { continue };
        let mut versions: Vec<PathBuf> = entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
            .map(|entry| entry.path())
            .collect();
        versions.sort();
        for version in versions.into_iter().rev() {
            for folder in ["site-packages", "dist-packages"] {
                found.push(version.join(folder).join("onnxruntime").join("capi"));
            }
        }
    }
    found
}

/// The libraries in `folder`, the newest by name first.
pub(crate) fn libraries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let mut found: Vec<(Vec<u32>, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let numbers = version_of(entry.file_name().to_str()?)?;
            // A link is followed: packages of the system have one.
            entry.path().is_file().then(|| (numbers, entry.path()))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

/// The numbers in the name of a library: `libonnxruntime.so.1.31.1`, `libonnxruntime.1.31.1.dylib`. Its companions
/// (`libonnxruntime_providers_shared.so`) are none.
fn version_of(name: &str) -> Option<Vec<u32>> {
    let rest = name.strip_prefix(DLL_PREFIX)?.strip_prefix("onnxruntime")?;
    let suffix = rest.find(DLL_SUFFIX)?;
    let numbers = format!("{}{}", &rest[..suffix], &rest[suffix + DLL_SUFFIX.len()..]);
    numbers.split('.').filter(|number| !number.is_empty()).map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};

    use super::{libraries, usual, version_of};

    fn touch(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"").unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn names_of_libraries_are_told_from_those_of_their_companions() {
        assert_eq!(version_of("libonnxruntime.so"), Some(vec![]));
        assert_eq!(version_of("libonnxruntime.so.1.31.1"), Some(vec![1, 31, 1]));
        for other in ["libonnxruntime_providers_shared.so", "libonnx.so", "libonnxruntime.so.old", "onnxruntime.so"] {
            assert_eq!(version_of(other), None, "{other}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_newest_of_several_comes_first_and_folders_are_none() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["libonnxruntime.so.1.9.0", "libonnxruntime.so.1.31.1", "libonnxruntime.so.1.22.0"] {
            touch(&folder.path().join(name));
        }
        std::fs::create_dir(folder.path().join("libonnxruntime.so.2.0.0")).unwrap();
        let names: Vec<String> = libraries(folder.path())
            .into_iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["libonnxruntime.so.1.31.1", "libonnxruntime.so.1.22.0", "libonnxruntime.so.1.9.0"]);
    }

    #[test]
    fn pythons_folders_are_found_without_running_it() {
        let folder = tempfile::tempdir().unwrap();
        let (environment, other) = (folder.path().join("env"), folder.path().join("other"));
        touch(&environment.join("lib/python3.11/site-packages/onnxruntime/capi/here"));
        touch(&other.join("lib/python3/dist-packages/onnxruntime/capi/here"));
        touch(&other.join("bin/python3"));
        let variables: HashMap<&str, OsString> = HashMap::from([
            ("VIRTUAL_ENV", environment.clone().into_os_string()),
            ("PATH", std::env::join_paths([folder.path().join("none"), other.join("bin")]).unwrap()),
            ("LD_LIBRARY_PATH", OsString::from("relative:/some/libraries")),
        ]);
        let places: Vec<PathBuf> =
            usual(&|name| variables.get(name).cloned()).into_iter().map(|place| place.path).collect();
        let at = |path: PathBuf| places.iter().position(|place| *place == path);
        let first = at("/some/libraries".into()).expect("the loader's path");
        let second = at(environment.join("lib/python3.11/site-packages/onnxruntime/capi")).expect("the environment");
        let third = at(other.join("lib/python3/dist-packages/onnxruntime/capi")).expect("the program on the path");
        assert!(first < second && second < third);
        assert_eq!(at("relative".into()), None);
    }
}
