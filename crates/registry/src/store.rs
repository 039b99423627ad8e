//! Finds what an order names: a registration's path below the repository or a store, and the base path of a model that
//! is wanted in place of the configured ones.
//!
//! Everything is looked up below a folder that the operator configured and nowhere else. Nothing is ever fetched.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use millrace_core::{ModelName, Quoted, Reason, Refusal, Registration};

use crate::desired::Stored;
use crate::rooted::{Folder, is_link_refusal};
use crate::scan::{Place, version_number};

/// What a registration's path means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) name: ModelName,
    pub(crate) version: u64,
    pub(crate) place: Place,
    /// The folder whose configuration counts, below the same root.
    config: Option<String>,
}

impl Found {
    /// The version as it is kept, with what the order said about batching.
    pub(crate) fn stored(self, registration: &Registration) -> Result<Stored, Refusal> {
        let max_batch_size = match registration.max_batch_size {
            Some(size) => Some(size.try_into().map_err(|_| invalid("a batch has at least one row".to_owned()))?),
            None => None,
        };
        Ok(Stored { place: self.place, config: self.config, max_batch_size, batch_delay: registration.batch_delay })
    }
}

/// Looks for `registration` below each of `roots` in turn.
///
/// # Errors
/// `InvalidInput` for a path that is absolute, a URL or leads upwards; `ModelUnknown` where nothing is there;
/// `VersionUnknown` where the folder does not have the version asked for.
pub(crate) fn find(roots: &[PathBuf], registration: &Registration) -> Result<Found, Refusal> {
    let path = relative(&registration.path)?;
    for root in roots {
        match look(root, &path, registration) {
            Ok(found) => return found,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) if is_link_refusal(&error) => {
                return Err(invalid(format!("{} is a link that leads out of its store", Quoted(&registration.path))));
            }
            Err(error) => {
                let text = format!("{} cannot be read now", Quoted(&registration.path));
                let cause: Arc<dyn std::error::Error + Send + Sync> = Arc::new(error);
                return Err(Refusal::new(Reason::NotReady, text).with_cause(cause));
            }
        }
    }
    Err(not_found(&registration.path))
}

/// Where `base_path` lies below one of `roots`.
///
/// # Errors
/// `InvalidInput` where it is not absolute or no folder, `Forbidden` where it lies elsewhere.
pub(crate) fn locate(roots: &[PathBuf], model: &ModelName, base_path: &str) -> Result<Place, Refusal> {
    let path = Path::new(base_path);
    let shown = Quoted(base_path);
    if !path.is_absolute() || base_path.contains('\0') {
        // TensorFlow Serving's words.
        return Err(invalid(format!(
            "Expected model {model} to have an absolute path or URI; got base_path()={shown}"
        )));
    }
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(invalid(format!("model {model}: the base path {shown} must not lead upwards")));
    }
    let resolved = path.canonicalize().ok();
    for root in roots {
        // As written first: a link below the root that is moved later is followed then.
        let canonical = root.canonicalize().ok();
        let spellings = [(path, Some(root.as_path())), (path, canonical.as_deref())];
        let spellings = spellings.into_iter().chain(resolved.as_deref().map(|path| (path, canonical.as_deref())));
        for (path, root_path) in spellings {
            let Some(below) = root_path.and_then(|root| path.strip_prefix(root).ok()) else { continue };
            let Some(below) = below.to_str() else { continue };
            let place = Place { root: Arc::from(root.as_path()), below: below.to_owned(), file: None };
            return match place.folder() {
                Ok(_) => Ok(place),
                Err(error) if is_link_refusal(&error) => Err(forbidden(model)),
                Err(error) => {
                    let cause: Arc<dyn std::error::Error + Send + Sync> = Arc::new(error);
                    let text = format!("Could not find base path {shown} for servable {model}");
                    Err(invalid(text).with_cause(cause))
                }
            };
        }
    }
    Err(forbidden(model))
}

fn forbidden(model: &ModelName) -> Refusal {
    let text = format!("model {model}: the base path lies outside of the model repository and of every store");
    Refusal::new(Reason::Forbidden, text)
}

fn invalid(message: String) -> Refusal {
    Refusal::new(Reason::InvalidInput, message)
}

/// TorchServe's words.
fn not_found(path: &str) -> Refusal {
    Refusal::new(Reason::ModelUnknown, format!("Model not found at: {}", Quoted(path)))
}

/// The names of a path that stays below whatever it is looked up in, joined by `/`.
fn relative(path: &str) -> Result<String, Refusal> {
    let shown = Quoted(path);
    let scheme = path.split_once(':').map(|(scheme, _)| scheme);
    if scheme.is_some_and(|scheme| !scheme.contains('/')) {
        return Err(invalid(format!("{shown} is a URL; models come from the configured stores only")));
    }
    if path.contains(['\0', '\\']) {
        return Err(invalid(format!("{shown} is not a path")));
    }
    let mut names = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => names.extend(name.to_str()),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => {
                return Err(invalid(format!("{shown} is absolute; expected a path relative to a store")));
            }
            Component::ParentDir => return Err(invalid(format!("{shown} leads upwards, out of its store"))),
        }
    }
    if names.is_empty() { Err(invalid("the path is empty".to_owned())) } else { Ok(names.join("/")) }
}

/// What lies at `path` below `root`. The outer error says that it is not there, or not readable.
fn look(root: &Path, path: &str, registration: &Registration) -> io::Result<Result<Found, Refusal>> {
    let folder = Folder::open(root)?;
    let metadata = folder.metadata(path)?;
    let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
    let place = |below: &str, file: Option<&str>| Place {
        root: Arc::from(root),
        below: below.to_owned(),
        file: file.map(str::to_owned),
    };
    let made = |name: &str, version: u64, place: Place, config: Option<&str>| {
        let name = match &registration.name {
            Some(name) => name.clone(),
            None => name.parse().map_err(|error| invalid(format!("{error}; give a name")))?,
        };
        Ok(Found { name, version, place, config: config.map(str::to_owned) })
    };
    if metadata.is_file() {
        let stem = last.rsplit_once('.').map_or(last, |(stem, _)| stem);
        return Ok(made(stem, registration.version.unwrap_or(1), place(parent, Some(last)), None));
    }
    let names: Vec<String> = folder.folder(path)?.names()?.into_iter().flatten().collect();
    let mut versions = BTreeMap::new();
    for name in &names {
        let below = format!("{path}/{name}");
        if let Some(number) = version_number(name)
            && folder.metadata(&below).is_ok_and(|metadata| metadata.is_dir())
            // The canonical spelling counts, as in the repository.
            && (number.to_string() == *name || !versions.contains_key(&number))
        {
            versions.insert(number, below);
        }
    }
    if let Some((&highest, _)) = versions.last_key_value() {
        let version = registration.version.unwrap_or(highest);
        return Ok(match versions.get(&version) {
            Some(below) => made(last, version, place(below, None), Some(path)),
            None => {
                let text = format!("there is no version {version} in {}", Quoted(&registration.path));
                Err(Refusal::new(Reason::VersionUnknown, text))
            }
        });
    }
    if names.is_empty() {
        return Ok(Err(not_found(&registration.path)));
    }
    // A version's own folder, such as `fraud/2`: its number and its model's name are in the path.
    match version_number(last).filter(|_| !parent.is_empty()) {
        Some(number) if registration.version.is_some_and(|version| version != number) => {
            Ok(Err(invalid(format!("{} is version {number}", Quoted(&registration.path)))))
        }
        Some(number) => {
            let model = parent.rsplit_once('/').map_or(parent, |(_, name)| name);
            Ok(made(model, number, place(path, None), Some(parent)))
        }
        None => Ok(made(last, registration.version.unwrap_or(1), place(path, None), Some(path))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use millrace_core::{Reason, Registration};
    use tempfile::TempDir;

    use super::{find, locate};

    fn store(files: &[&str]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        root
    }

    /// What `path` means in the store: name, version, folder and file, configuration; or the reason of the refusal.
    fn check(roots: &[PathBuf], registration: &Registration) -> Result<String, Reason> {
        let found = find(roots, registration).map_err(|refusal| refusal.reason())?;
        let (file, config) = (found.place.file.unwrap_or_default(), found.config.unwrap_or_default());
        Ok(format!("{} {} {}|{file} {config}", found.name, found.version, found.place.below))
    }

    #[test]
    fn a_path_may_be_a_model_a_version_or_a_file() {
        let store =
            store(&["fraud/1/m.onnx", "fraud/12/m.onnx", "fraud/02/m.onnx", "zoo/cat/m.onnx", "zoo/dog.v2.onnx"]);
        let roots = [store.path().join("absent"), store.path().to_owned()];
        let plain = |path: &str| check(&roots, &Registration::new(path));
        assert_eq!(plain("fraud").unwrap(), "fraud 12 fraud/12| fraud");
        assert_eq!(plain("./fraud/").unwrap(), "fraud 12 fraud/12| fraud");
        assert_eq!(plain("fraud/1").unwrap(), "fraud 1 fraud/1| fraud");
        assert_eq!(plain("zoo/cat").unwrap(), "cat 1 zoo/cat| zoo/cat");
        assert_eq!(plain("zoo/dog.v2.onnx").unwrap(), "dog.v2 1 zoo|dog.v2.onnx ");
        let told = |path: &str, version| {
            let name = Some("told".parse().unwrap());
            check(&roots, &Registration { name, version, ..Registration::new(path) })
        };
        assert_eq!(told("fraud", Some(2)).unwrap(), "told 2 fraud/02| fraud");
        assert_eq!(told("fraud", Some(3)), Err(Reason::VersionUnknown));
        assert_eq!(told("fraud/1", Some(2)), Err(Reason::InvalidInput));
        assert_eq!(told("zoo/cat", Some(9)).unwrap(), "told 9 zoo/cat| zoo/cat");
        assert_eq!(told("zoo/dog.v2.onnx", None).unwrap(), "told 1 zoo|dog.v2.onnx ");
    }

    /// Row 55, as far as the registry goes.
    #[test]
    fn nothing_outside_of_the_stores_can_be_named() {
        let (store, outside) = (store(&["m/1/f", "empty/.hidden"]), store(&["n/1/f"]));
        symlink(outside.path().join("n"), store.path().join("out")).unwrap();
        let roots = [store.path().to_owned()];
        for (path, reason) in [
            ("", Reason::InvalidInput),
            (".", Reason::InvalidInput),
            ("/etc", Reason::InvalidInput),
            ("../n", Reason::InvalidInput),
            ("m/../../n", Reason::InvalidInput),
            ("http://localhost/m.mar", Reason::InvalidInput),
            ("file:///etc/passwd", Reason::InvalidInput),
            ("s3:bucket", Reason::InvalidInput),
            ("gopher://x/m", Reason::InvalidInput),
            ("m\0", Reason::InvalidInput),
            ("..\\n", Reason::InvalidInput),
            ("out", Reason::InvalidInput),
            ("out/1", Reason::InvalidInput),
            ("absent", Reason::ModelUnknown),
            ("m/1/f/g", Reason::ModelUnknown),
            ("empty", Reason::ModelUnknown),
        ] {
            assert_eq!(check(&roots, &Registration::new(path)), Err(reason), "{path:?}");
        }
    }

    #[test]
    fn a_base_path_lies_below_a_root_however_either_is_spelled() {
        let (store, outside) = (store(&["models/m/1/f"]), store(&["n/1/f"]));
        symlink("models", store.path().join("link")).unwrap();
        symlink(outside.path().join("n"), store.path().join("models/out")).unwrap();
        let roots = [store.path().join("link")];
        let model = "m".parse().unwrap();
        let at = |path: PathBuf| {
            let place = locate(&roots, &model, path.to_str().unwrap());
            place.map(|place| place.below).map_err(|refusal| refusal.reason())
        };
        assert_eq!(at(store.path().join("link/m")).unwrap(), "m");
        assert_eq!(at(store.path().join("models/m")).unwrap(), "m");
        assert_eq!(at(store.path().join("link")).unwrap(), "");
        assert_eq!(at(PathBuf::from("m")), Err(Reason::InvalidInput));
        assert_eq!(at(store.path().join("link/m/../../x")), Err(Reason::InvalidInput));
        assert_eq!(at(store.path().join("link/absent")), Err(Reason::InvalidInput));
        assert_eq!(at(store.path().join("link/m/1/f")), Err(Reason::InvalidInput));
        assert_eq!(at(store.path().join("link/out")), Err(Reason::Forbidden));
        assert_eq!(at(outside.path().join("n")), Err(Reason::Forbidden));
        assert_eq!(at(PathBuf::from("/etc")), Err(Reason::Forbidden));
    }
}
