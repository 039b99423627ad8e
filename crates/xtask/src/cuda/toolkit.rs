//! The CUDA toolkit that a build takes: where it is, and whether all of it is there.
//!
//! Nothing is downloaded. Which Python wheel brings each part is said where one is missing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The root of a toolkit whose parts have been seen.
#[derive(Debug)]
pub(super) struct Toolkit {
    pub(super) root: PathBuf,
    /// `libcudart_static.a`.
    pub(super) cudart: PathBuf,
}

/// One part of a toolkit.
struct Piece {
    /// Where it may lie, below the root.
    places: &'static [&'static str],
    /// The wheel that brings it.
    wheel: &'static str,
    is_program: bool,
}

const CUDART: Piece = Piece {
    places: &["lib/libcudart_static.a", "lib64/libcudart_static.a", "targets/x86_64-linux/lib/libcudart_static.a"],
    wheel: "nvidia-cuda-runtime==13.0.96",
    is_program: false,
};

const PIECES: &[Piece] = &[
    Piece { places: &["bin/nvcc"], wheel: "nvidia-cuda-nvcc==13.0.88", is_program: true },
    Piece { places: &["bin/ptxas"], wheel: "nvidia-cuda-nvcc==13.0.88", is_program: true },
    Piece { places: &["bin/fatbinary"], wheel: "nvidia-cuda-nvcc==13.0.88", is_program: true },
    Piece { places: &["bin/cudafe++"], wheel: "nvidia-cuda-nvcc==13.0.88", is_program: true },
    Piece { places: &["nvvm/bin/cicc"], wheel: "nvidia-nvvm==13.0.88", is_program: true },
    Piece { places: &["include/crt/host_config.h"], wheel: "nvidia-cuda-crt==13.0.88", is_program: false },
    Piece { places: &["include/cuda_runtime.h"], wheel: "nvidia-cuda-runtime==13.0.96", is_program: false },
    Piece {
        places: &["include/cccl/cuda/std/limits", "include/cuda/std/limits"],
        wheel: "nvidia-cuda-cccl==13.0.85",
        is_program: false,
    },
    CUDART,
];

impl Toolkit {
    /// The toolkit at `said`, or where the environment says it is.
    ///
    /// # Errors
    /// A text with every part that is missing and where to get it.
    pub(super) fn find(said: Option<OsString>) -> Result<Self, String> {
        let root = said.or_else(|| env::var_os("CUDA_HOME")).or_else(|| env::var_os("CUDA_PATH"));
        let root = root.filter(|root| !root.is_empty()).map(PathBuf::from).ok_or(
            "no CUDA toolkit: give its folder as `--cuda-home DIR` or in CUDA_HOME. docs/gpu.md says how to get one from \
             five Python wheels, without a driver or a card",
        )?;
        Self::at(&root)
    }

    fn at(root: &Path) -> Result<Self, String> {
        let root = fs::canonicalize(root).map_err(|error| format!("CUDA toolkit {}: {error}", root.display()))?;
        let missing: Vec<String> = PIECES.iter().filter_map(|piece| piece.complaint(&root)).collect();
        match CUDART.find(&root) {
            Some(cudart) if missing.is_empty() => Ok(Self { root, cudart }),
            _ => Err(format!(
                "the CUDA toolkit at {} is not complete:\n{}\ndocs/gpu.md says how to put one together",
                root.display(),
                missing.join("\n")
            )),
        }
    }
}

impl Piece {
    fn find(&self, root: &Path) -> Option<PathBuf> {
        self.places.iter().map(|place| root.join(place)).find(|path| path.is_file())
    }

    fn complaint(&self, root: &Path) -> Option<String> {
        let Some(path) = self.find(root) else {
            return Some(format!("  {} is not there; the wheel {} brings it", self.places[0], self.wheel));
        };
        // Wheels are zip files, and unpacking them by hand loses the mode.
        (self.is_program && !is_executable(&path))
            .then(|| format!("  {} cannot be executed: chmod +x it", self.places[0]))
    }
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|data| data.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(_path: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::{PIECES, Toolkit};

    #[test]
    fn what_is_missing_is_named_with_the_wheel_that_brings_it() {
        let root = std::env::temp_dir().join(format!("millrace-toolkit-{}", std::process::id()));
        for piece in PIECES.iter().filter(|piece| piece.places[0] != "nvvm/bin/cicc") {
            let path = root.join(piece.places[0]);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            let mode = if piece.is_program && piece.places[0] != "bin/ptxas" { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let error = Toolkit::at(&root).unwrap_err();
        assert!(error.contains("nvvm/bin/cicc is not there; the wheel nvidia-nvvm==13.0.88 brings it"), "{error}");
        assert!(error.contains("bin/ptxas cannot be executed"), "{error}");
        assert!(!error.contains("bin/nvcc"), "{error}");

        fs::create_dir_all(root.join("nvvm/bin")).unwrap();
        for program in ["nvvm/bin/cicc", "bin/ptxas"] {
            fs::write(root.join(program), "").unwrap();
            fs::set_permissions(root.join(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert!(Toolkit::at(&root).unwrap().cudart.ends_with("lib/libcudart_static.a"));
        fs::remove_dir_all(&root).unwrap();
        assert!(Toolkit::at(&root).unwrap_err().contains("CUDA toolkit"));
    }
}
