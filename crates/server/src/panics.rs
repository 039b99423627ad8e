//! Panics as log lines: one bounded, escaped line each, in place of the standard library's several.
//!
//! Catching panics, and what a caller is told about one, is the work of those who run foreign code.

use std::panic::{self, PanicHookInfo};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

/// How many panics are logged per second; a model that panics at every request must not fill the log.
const MOST_PER_SECOND: u64 = 10;

/// Makes every panic of the process one `error` line. With `is_verbose` the standard library's report, which may hold
/// a backtrace, follows. For the binary alone: an embedder's hook is the embedder's decision.
pub(crate) fn log_all(is_verbose: bool) {
    let default = panic::take_hook();
    let limit = Limit { start: now(), window: AtomicU64::new(0) };
    panic::set_hook(Box::new(move |info| {
        if !limit.allows(limit.start.elapsed().as_secs()) {
            return;
        }
        log(info);
        if is_verbose {
            default(info);
        }
    }));
}

fn log(info: &PanicHookInfo<'_>) {
    let current = thread::current();
    let thread = current.name().unwrap_or("unnamed");
    let location = info.location().map(tracing::field::display);
    let text = info.payload_as_str().unwrap_or("no text");
    if tracing::dispatcher::has_been_set() {
        tracing::error!(thread, location, "a thread panicked: {text}");
    } else {
        // The commands that do not log have standard error to themselves.
        let text: String = text.chars().take(512).flat_map(char::escape_debug).collect();
        super::cli::complain(&format_args!("panic: thread {thread}: {text}"));
    }
}

/// So many events per second.
struct Limit {
    start: Instant,
    /// The second, times 2^16, and how many events it has seen.
    window: AtomicU64,
}

impl Limit {
    fn allows(&self, second: u64) -> bool {
        let next =
            |window: u64| if window >> 16 == second { (window + 1).min(window | 0xffff) } else { second << 16 | 1 };
        let before = self.window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |window| Some(next(window)));
        let (Ok(before) | Err(before)) = before;
        before >> 16 != second || before & 0xffff < MOST_PER_SECOND
    }
}

#[expect(clippy::disallowed_methods, reason = "panics happen on the real clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use super::{Limit, MOST_PER_SECOND, now};
    use crate::Environment;
    use crate::config::LogFormat;

    #[test]
    fn a_flood_of_panics_is_a_few_lines_per_second() {
        let limit = Limit { start: now(), window: AtomicU64::new(0) };
        for second in [0, 1, 7] {
            let allowed = (0..100_000).filter(|_| limit.allows(second)).count() as u64;
            assert_eq!(allowed, MOST_PER_SECOND, "in second {second}");
        }
    }

    #[test]
    #[ignore = "run by the test below in a process of its own: hooks and logs belong to a process"]
    fn child() {
        // As the binary does, with the shortest command that there is.
        assert_eq!(crate::run(vec!["millrace".into(), "--version".into()], &Environment::default()), 0);
        crate::log::start(LogFormat::Json, &"info".parse().unwrap());
        let poisoned = thread::Builder::new().name("poisoned".to_owned()).spawn(|| {
            let caught = std::panic::catch_unwind(|| panic!("two\nlines and \u{1b}[31m{}", "x".repeat(100_000)));
            assert!(caught.is_err());
        });
        poisoned.unwrap().join().unwrap();
    }

    #[test]
    fn a_caught_panic_is_one_bounded_escaped_line() {
        let this = std::env::current_exe().unwrap();
        let words = ["--ignored", "--exact", "panics::tests::child", "--nocapture"];
        let output = Command::new(this).args(words).env_clear().output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.matches('\n').count(), 1, "{said}");
        assert!(said.len() <= 2048 && !said.contains('\u{1b}'), "{said}");
        let event: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(event["level"], "ERROR");
        assert_eq!(event["thread"], "poisoned");
        assert!(event["location"].as_str().unwrap().contains("panics.rs:"), "{said}");
        assert!(event["message"].as_str().unwrap().starts_with("a thread panicked: two\nlines"), "{said}");
    }
}
