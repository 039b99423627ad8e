//! What measured times hold for, in words: this processor as this process may use it, and this very program.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;
use std::time::UNIX_EPOCH;

/// One line that changes whenever times may.
pub(crate) fn description() -> String {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    // Engines are linked into the program.
    let program = std::env::current_exe().map(|path| file(&path)).unwrap_or_default();
    format!("{}; {cores} cores; millrace {}; {program}", processor(&info), env!("CARGO_PKG_VERSION"))
}

/// The processor's names and features as the system tells them.
fn processor(info: &str) -> String {
    let field = |line: &str, names: &[&str]| {
        let (name, value) = line.split_once(':')?;
        names.contains(&name.trim()).then(|| value.trim().to_owned())
    };
    // By each name once: machines may have cores of two kinds.
    let models: BTreeSet<String> =
        info.lines().filter_map(|line| field(line, &["model name", "CPU implementer", "CPU part"])).collect();
    let features: BTreeSet<String> = info
        .lines()
        .filter_map(|line| field(line, &["flags", "Features"]))
        .flat_map(|list| list.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    // FNV-1a: only whether it is the same matters.
    let digest = features
        .iter()
        .flat_map(|feature| feature.bytes().chain([0]))
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let models = models.into_iter().collect::<Vec<_>>().join(", ");
    format!("{} {models} {digest:016x}", std::env::consts::ARCH)
}

/// A file by path, size and time; nothing but its path where it cannot be looked at.
pub(crate) fn file(path: &Path) -> String {
    let built = fs::metadata(path).ok().and_then(|metadata| {
        let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(format!(" of {} bytes at {}", metadata.len(), modified.as_secs()))
    });
    format!("{}{}", path.display(), built.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{description, processor};

    #[test]
    fn another_processor_or_another_feature_is_another_machine() {
        let info = |model: &str, flags: &str| {
            format!(
                "processor: 0\nmodel name\t: {model}\nflags\t\t: {flags}\n\nprocessor: 1\nmodel name\t: {model}\nflags: {flags}\n"
            )
        };
        let one = processor(&info("Zen", "avx2 fma"));
        assert_eq!(one, processor(&info("Zen", "fma avx2")));
        assert!(one.contains(" Zen "), "{one}");
        assert_ne!(one, processor(&info("Zen", "avx2 fma avx512f")));
        assert_ne!(one, processor(&info("Lake", "avx2 fma")));
        assert_eq!(description(), description());
    }
}
