//! How much memory is free, as the machine tells it, so that tests can say so themselves.

use std::fmt;
use std::fs;
use std::sync::Arc;

/// What tells how many bytes of memory are free. The default asks the machine, where it has `/proc/meminfo`.
#[derive(Clone)]
pub struct Available(Arc<dyn Fn() -> Option<u64> + Send + Sync>);

impl Available {
    /// Free bytes are what `bytes` gives whenever it is asked; `None` where nobody knows.
    pub fn new(bytes: impl Fn() -> Option<u64> + Send + Sync + 'static) -> Self {
        Self(Arc::new(bytes))
    }

    pub(crate) fn bytes(&self) -> Option<u64> {
        (self.0)()
    }
}

impl Default for Available {
    fn default() -> Self {
        Self::new(|| available(&fs::read_to_string("/proc/meminfo").ok()?))
    }
}

impl fmt::Debug for Available {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Available")
    }
}

/// The line `MemAvailable:  123 kB`, in bytes.
fn available(text: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::available;

    #[test]
    fn the_line_is_found_and_anything_else_is_not_known() {
        let text = "MemTotal:       16316412 kB\nMemFree:          500000 kB\nMemAvailable:   12000000 kB\n";
        assert_eq!(available(text), Some(12_000_000 * 1024));
        for text in
            ["", "MemTotal: 5 kB", "MemAvailable: many kB", "MemAvailable: 5", "MemAvailable: 99999999999999999 kB"]
        {
            assert_eq!(available(text), None, "{text}");
        }
    }
}
