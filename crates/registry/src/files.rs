//! The files of one version, as a backend gets them: listed once, read whole into memory, never mapped.
//!
//! A mapped file that somebody cuts short kills the process with a signal; a file that was read does not. What a
//! backend sees is what was listed: a file that changed in between fails to read.

use std::fs::{File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use bytes::Bytes;
use millrace_core::{LoadError, LoadErrorKind, ModelFiles, Quoted};

use crate::rooted::{Folder, is_link_refusal};

/// How deep folders inside a version may nest.
const DEEPEST: usize = 8;
/// How many files and folders a version may have. Bounds the walk where links make folders appear many times.
const MOST_ENTRIES: usize = 10_000;

/// What identifies the files of a version without reading them. Inode numbers are left out: some network and FUSE file
/// systems invent new ones at each look, and a version there would never hold still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    /// Names, sizes and times of last modification.
    pub(crate) contents: u64,
    /// The same and the times of last change, which no copying tool can set back.
    pub(crate) changes: u64,
}

/// The files of one version directory.
#[derive(Debug)]
pub(crate) struct VersionFiles {
    folder: Folder,
    list: Vec<(String, u64)>,
    fingerprint: Fingerprint,
    refused: Vec<String>,
}

/// Why a version's files cannot be listed at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListError {
    #[error("the version has more than {MOST_ENTRIES} files and folders")]
    TooMany,
    #[error("the version's files are {bytes} bytes together; the limit is {limit}")]
    TooLarge { bytes: u64, limit: u64 },
    #[error("the version's files cannot be listed")]
    Io(#[from] io::Error),
}

impl VersionFiles {
    /// Lists the files of `folder`, at most `limit` bytes of them together.
    pub(crate) fn list(folder: Folder, limit: u64) -> Result<Self, ListError> {
        Self::listed(folder, limit, None)
    }

    /// Lists the file `file` of `folder` and those whose names begin with its name, such as its external data.
    pub(crate) fn single(folder: Folder, file: &str, limit: u64) -> Result<Self, ListError> {
        let files = Self::listed(folder, limit, Some(file))?;
        let there = files.list.iter().any(|(name, _)| name == file) || !files.refused.is_empty();
        if there { Ok(files) } else { Err(io::Error::from(io::ErrorKind::NotFound).into()) }
    }

    fn listed(folder: Folder, limit: u64, only: Option<&str>) -> Result<Self, ListError> {
        let owner = folder.own_metadata()?.uid();
        let mut walk = Walk {
            root: &folder,
            owner,
            only,
            entries: 0,
            list: Vec::new(),
            refused: Vec::new(),
            contents: DefaultHasher::new(),
            changes: DefaultHasher::new(),
        };
        walk.folder(&folder, "", 0)?;
        walk.list.sort();
        let bytes = walk.list.iter().fold(0_u64, |sum, (_, size)| sum.saturating_add(*size));
        if bytes > limit {
            return Err(ListError::TooLarge { bytes, limit });
        }
        let fingerprint = Fingerprint { contents: walk.contents.finish(), changes: walk.changes.finish() };
        let Walk { list, refused, .. } = walk;
        Ok(Self { folder, list, fingerprint, refused })
    }

    /// What the files looked like when they were listed.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Entries that are not served, each with the rule that it breaks.
    pub(crate) fn refused(&self) -> &[String] {
        &self.refused
    }
}

impl ModelFiles for VersionFiles {
    fn list(&self) -> &[(String, u64)] {
        &self.list
    }

    fn read(&self, name: &str) -> io::Result<Bytes> {
        let index = self.list.binary_search_by(|(known, _)| known.as_str().cmp(name));
        let (name, size) = index.ok().map(|index| &self.list[index]).ok_or(io::ErrorKind::NotFound)?;
        let (file, metadata) = self.folder.file(name)?;
        let changed = || io::Error::other("the file changed while the version was loading");
        if metadata.len() != *size {
            return Err(changed());
        }
        let bytes = read_whole(file, *size)?;
        if bytes.len() as u64 == *size { Ok(Bytes::from(bytes)) } else { Err(changed()) }
    }
}

/// The same files without other models: those at the top that end as the named one does.
#[derive(Debug)]
pub(crate) struct OneModel {
    files: Arc<VersionFiles>,
    list: Vec<(String, u64)>,
}

impl OneModel {
    /// Only the model `name` of `files`.
    ///
    /// # Errors
    /// [`LoadError`] (`Missing`) where it is not there.
    pub(crate) fn new(files: Arc<VersionFiles>, name: &str) -> Result<Self, LoadError> {
        let is_other = |other: &str| other != name && !other.contains('/') && ending(other) == ending(name);
        let list: Vec<(String, u64)> = files.list().iter().filter(|(other, _)| !is_other(other)).cloned().collect();
        if list.iter().any(|(other, _)| other == name) {
            return Ok(Self { files, list });
        }
        let text = format!("there is no file {}, which the model's configuration names", Quoted(name));
        Err(LoadError::new(LoadErrorKind::Missing, text))
    }
}

impl ModelFiles for OneModel {
    fn list(&self) -> &[(String, u64)] {
        &self.list
    }

    fn read(&self, name: &str) -> io::Result<Bytes> {
        if self.list.iter().any(|(known, _)| known == name) {
            self.files.read(name)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }
}

fn ending(name: &str) -> Option<&str> {
    name.rsplit_once('.').map(|(_, ending)| ending)
}

/// Reads at most one byte more than `size`, so that a growing file is noticed and bounded.
pub(crate) fn read_whole(file: File, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let expected = usize::try_from(size).map_err(|_| io::ErrorKind::OutOfMemory)?;
    bytes.try_reserve_exact(expected.saturating_add(1)).map_err(|_| io::ErrorKind::OutOfMemory)?;
    file.take(size.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

struct Walk<'f> {
    root: &'f Folder,
    owner: u32,
    /// A file beside which nothing counts but what belongs to it.
    only: Option<&'f str>,
    entries: usize,
    list: Vec<(String, u64)>,
    refused: Vec<String>,
    contents: DefaultHasher,
    changes: DefaultHasher,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Folder, prefix: &str, depth: usize) -> Result<(), ListError> {
        let mut below = Vec::new();
        for name in folder.names()? {
            if self.only.is_some_and(|only| name.as_ref().is_ok_and(|name| !belongs(name, only)) || name.is_err()) {
                continue;
            }
            self.entries += 1;
            if self.entries > MOST_ENTRIES {
                return Err(ListError::TooMany);
            }
            let path = match name {
                Ok(name) => format!("{prefix}{name}"),
                Err(escaped) => {
                    self.refused.push(format!("{}: the name is not UTF-8", Quoted(&escaped)));
                    continue;
                }
            };
            let metadata = match self.root.metadata(&path) {
                Ok(metadata) => metadata,
                // It went between the listing and the look: as if it had never been listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) if is_link_refusal(&error) => {
                    self.refused.push(format!("{}: the link leads out of its version directory", Quoted(&path)));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if metadata.is_dir() {
                if self.only.is_none() {
                    below.push(path);
                }
            } else {
                self.file(path, &metadata);
            }
        }
        for path in below {
            if depth + 1 >= DEEPEST {
                self.refused.push(format!("{}: folders nest deeper than {DEEPEST}", Quoted(&path)));
                continue;
            }
            match self.root.folder(&path) {
                Ok(child) => self.folder(&child, &format!("{path}/"), depth + 1)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn file(&mut self, path: String, metadata: &Metadata) {
        if !metadata.is_file() {
            self.refused.push(format!("{}: it is neither a file nor a folder", Quoted(&path)));
            return;
        }
        if !links_are_harmless(metadata.nlink(), metadata.uid(), self.owner) {
            let rule = "it is a hard link to a file of another user than its version directory's";
            self.refused.push(format!("{}: {rule}", Quoted(&path)));
            return;
        }
        let contents = (&path, metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        contents.hash(&mut self.contents);
        (contents, metadata.ctime(), metadata.ctime_nsec()).hash(&mut self.changes);
        self.list.push((path, metadata.len()));
    }
}

/// Whether `name` is the file `only` or, like `model.onnx.data` of `model.onnx`, belongs to it and is no other model.
fn belongs(name: &str, only: &str) -> bool {
    name == only || (name.starts_with(only) && ending(name) != ending(only))
}

/// A hard link cannot be told from the file it was made of, and deduplicating stores and `cp -al` make them by the
/// thousand. What they must not do is lend this process's rights to whoever can write the repository but could not
/// read the file: such a link keeps its first owner, who is then not the owner of the version directory.
fn links_are_harmless(links: u64, file_owner: u32, folder_owner: u32) -> bool {
    links <= 1 || file_owner == folder_owner
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use millrace_core::ModelFiles;

    use super::{ListError, VersionFiles, links_are_harmless};
    use crate::rooted::Folder;

    fn list(path: &Path) -> VersionFiles {
        VersionFiles::list(Folder::open(path).unwrap(), u64::MAX).unwrap()
    }

    #[test]
    fn files_are_listed_by_relative_name_and_read_whole() {
        let version = tempfile::tempdir().unwrap();
        fs::create_dir(version.path().join("a")).unwrap();
        fs::write(version.path().join("a/w.bin"), "weights").unwrap();
        fs::write(version.path().join("a.txt"), "text").unwrap();
        fs::write(version.path().join(".hidden"), "no").unwrap();
        let files = list(version.path());
        assert_eq!(files.list(), [("a.txt".to_owned(), 4), ("a/w.bin".to_owned(), 7)]);
        assert_eq!(files.read("a/w.bin").unwrap(), "weights");
        for absent in ["a", "b", "../x", "/etc/passwd", ".hidden", ""] {
            assert!(files.read(absent).is_err(), "{absent}");
        }
        assert!(matches!(
            VersionFiles::list(Folder::open(version.path()).unwrap(), 10),
            Err(ListError::TooLarge { bytes: 11, limit: 10 })
        ));
    }

    /// Kubernetes mounts a ConfigMap this way.
    #[test]
    fn links_within_the_version_are_followed_and_links_out_of_it_are_not_there() {
        let model = tempfile::tempdir().unwrap();
        fs::write(model.path().join("secret.bin"), "secret").unwrap();
        let version = model.path().join("1");
        fs::create_dir_all(version.join("..2024")).unwrap();
        fs::write(version.join("..2024/model.onnx"), "model").unwrap();
        symlink("..2024", version.join("..data")).unwrap();
        symlink("..data/model.onnx", version.join("model.onnx")).unwrap();
        symlink("../secret.bin", version.join("weights.bin")).unwrap();
        symlink("/etc/passwd", version.join("passwd")).unwrap();
        symlink("loop", version.join("loop")).unwrap();
        let files = list(&version);
        assert_eq!(files.list(), [("model.onnx".to_owned(), 5)]);
        assert_eq!(files.read("model.onnx").unwrap(), "model");
        assert_eq!(files.refused().len(), 3, "{:?}", files.refused());
        assert!(files.refused().iter().any(|text| text.starts_with("`weights.bin`: the link leads out")));
    }

    #[test]
    fn a_single_file_comes_with_what_belongs_to_it() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.onnx", "a.onnx.data", "a.onnx_data", "a.onnx2.onnx", "b.onnx", "a.txt"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        fs::create_dir(folder.path().join("a.onnx.d")).unwrap();
        let single = |file: &str| VersionFiles::single(Folder::open(folder.path()).unwrap(), file, 100);
        let files = single("a.onnx").unwrap();
        let names: Vec<&str> = files.list().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a.onnx", "a.onnx.data", "a.onnx_data"]);
        assert!(files.read("b.onnx").is_err());
        let before = files.fingerprint();
        fs::write(folder.path().join("b.onnx"), "changed").unwrap();
        assert_eq!(single("a.onnx").unwrap().fingerprint(), before);
        assert!(matches!(single("c.onnx"), Err(ListError::Io(_))));
    }

    #[test]
    fn hard_links_count_only_where_their_owner_is_the_directory_s() {
        assert!(links_are_harmless(1, 0, 1000));
        assert!(links_are_harmless(7, 1000, 1000));
        assert!(!links_are_harmless(2, 0, 1000));
    }

    #[test]
    fn a_file_that_changed_after_listing_does_not_read() {
        let version = tempfile::tempdir().unwrap();
        let path = version.path().join("m");
        fs::write(&path, "one").unwrap();
        let files = list(version.path());
        fs::write(&path, "longer").unwrap();
        assert!(files.read("m").is_err());
        assert_ne!(files.fingerprint(), list(version.path()).fingerprint());
        fs::remove_file(&path).unwrap();
        assert!(files.read("m").is_err());
    }

    #[test]
    fn the_same_files_have_the_same_fingerprint() {
        let version = tempfile::tempdir().unwrap();
        fs::write(version.path().join("m"), "one").unwrap();
        assert_eq!(list(version.path()).fingerprint(), list(version.path()).fingerprint());
    }
}
