//! Opens names below a folder and nowhere else.
//!
//! The kernel resolves each name with `openat2(RESOLVE_BENEATH)`: a symbolic link that stays below the folder is
//! followed (Kubernetes mounts files as `model.onnx -> ..data/model.onnx`), one that leads out of it is refused, and
//! no race between a check and its use exists. Kernels and sandboxes without that call get a walk that follows no link
//! at all.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};

use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder(File);

impl Folder {
    /// Opens a folder that the operator named: links in `path` are followed.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let fd = openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self(File::from(fd)))
    }

    /// Opens the folder `path` below this one.
    pub(crate) fn folder(&self, path: &str) -> io::Result<Self> {
        self.beneath(path, OFlags::RDONLY | OFlags::DIRECTORY).map(Self)
    }

    /// What lies at `path` below this folder, without opening it for reading.
    pub(crate) fn metadata(&self, path: &str) -> io::Result<Metadata> {
        self.beneath(path, OFlags::PATH)?.metadata()
    }

    /// What this folder itself is.
    pub(crate) fn own_metadata(&self) -> io::Result<Metadata> {
        self.0.metadata()
    }

    /// Opens the file `path` below this folder. Neither pipes nor devices hold the caller up.
    pub(crate) fn file(&self, path: &str) -> io::Result<(File, Metadata)> {
        let file = self.beneath(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let metadata = file.metadata()?;
        if metadata.is_file() { Ok((file, metadata)) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// The names in this folder that are not hidden, sorted; those that are not UTF-8 come as `Err`, escaped.
    pub(crate) fn names(&self) -> io::Result<Vec<Result<String, String>>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let bytes = entry.file_name().to_bytes();
            if bytes.starts_with(b".") {
                continue;
            }
            names.push(match std::str::from_utf8(bytes) {
                Ok(name) => Ok(name.to_owned()),
                Err(_) => Err(bytes.escape_ascii().to_string()),
            });
        }
        names.sort();
        Ok(names)
    }

    /// Whether both are one and the same folder.
    pub(crate) fn is(&self, other: &Self) -> io::Result<bool> {
        let (a, b) = (self.own_metadata()?, other.own_metadata()?);
        Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
    }

    fn beneath(&self, path: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        // A rename elsewhere in the tree may make the kernel unsure for a moment; it then asks to be asked again.
        for _ in 0..8 {
            match openat2(&self.0, path, flags, Mode::empty(), resolve) {
                Ok(fd) => return Ok(File::from(fd)),
                Err(Errno::AGAIN) => {}
                Err(Errno::NOSYS | Errno::PERM) => return self.walk(path, flags),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// The same without `openat2`: one component at a time, no link followed.
    fn walk(&self, path: &str, flags: OFlags) -> io::Result<File> {
        let mut components = Path::new(path).components().peekable();
        let mut at: Option<OwnedFd> = None;
        while let Some(component) = components.next() {
            let name: &OsStr = match component {
                Component::Normal(name) => name,
                Component::CurDir => continue,
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(Errno::XDEV.into()),
            };
            let last = components.peek().is_none();
            let flags = if last { flags } else { OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC };
            let flags = flags | OFlags::NOFOLLOW;
            let next = match &at {
                Some(fd) => openat(fd, name.as_bytes(), flags, Mode::empty()),
                None => openat(&self.0, name.as_bytes(), flags, Mode::empty()),
            };
            at = Some(next?);
        }
        let file = File::from(at.ok_or(Errno::INVAL)?);
        // Opened only as a place, a link is opened itself rather than followed.
        if file.metadata()?.is_symlink() { Err(Errno::LOOP.into()) } else { Ok(file) }
    }
}

/// Whether `error` says that a link led out of the folder or in a circle.
pub(crate) fn is_link_refusal(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::XDEV | Errno::LOOP))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::OFlags;

    use super::{Folder, is_link_refusal};

    #[test]
    fn names_stay_below_the_folder() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("sub/plain"), "plain").unwrap();
        symlink("sub/plain", at("inside")).unwrap();
        symlink(outside.path().join("secret"), at("absolute")).unwrap();
        symlink("../../etc/passwd", at("upwards")).unwrap();
        symlink("loop", at("loop")).unwrap();
        let folder = Folder::open(root.path()).unwrap();

        assert!(folder.file("sub/plain").is_ok());
        assert!(folder.file("inside").is_ok());
        for out in ["absolute", "upwards", "loop", "../x", "/etc/passwd"] {
            let error = folder.file(out).unwrap_err();
            assert!(is_link_refusal(&error), "{out}: {error}");
            assert!(folder.metadata(out).is_err(), "{out}");
        }
        assert!(folder.file("sub").is_err(), "a folder is no file");

        let walk = |name: &str| folder.walk(name, OFlags::RDONLY | OFlags::CLOEXEC);
        assert!(walk("sub/plain").is_ok());
        for out in ["inside", "absolute", "upwards", "loop", "../x", "/etc/passwd", "sub/../../x"] {
            assert!(walk(out).is_err(), "{out}");
        }
        assert!(folder.walk("inside", OFlags::PATH).is_err());
    }

    #[test]
    fn hidden_names_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(".hidden"), "").unwrap();
        fs::write(root.path().join("b"), "").unwrap();
        fs::write(root.path().join("a"), "").unwrap();
        let names = Folder::open(root.path()).unwrap().names().unwrap();
        assert_eq!(names, [Ok("a".to_owned()), Ok("b".to_owned())]);
    }
}
