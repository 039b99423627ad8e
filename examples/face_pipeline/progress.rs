//! What is said on standard error: how far it is, rewritten in place, and only where somebody looks; errors always.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

/// Where progress is shown.
pub(crate) struct Progress<W> {
    to: W,
    is_terminal: bool,
    is_shown: bool,
}

impl<W: Write> Progress<W> {
    pub(crate) fn new(to: W, is_terminal: bool) -> Self {
        Self { to, is_terminal, is_shown: false }
    }

    /// After each photograph of several.
    pub(crate) fn show(&mut self, done: usize, of: usize, file: &Path, milliseconds: Option<f64>) -> io::Result<()> {
        if !self.is_terminal || of < 2 {
            return Ok(());
        }
        self.is_shown = true;
        let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
        match milliseconds {
            Some(milliseconds) => write!(self.to, "[{done}/{of}] {name} {milliseconds} ms")?,
            None => write!(self.to, "[{done}/{of}] {name} failed")?,
        }
        self.to.flush()
    }

    /// Takes away what was shown, before something else is printed.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.is_shown) {
            // To the first column, and empty to the end of the line.
            write!(self.to, "\r\x1b[K")?;
            self.to.flush()?;
        }
        Ok(())
    }

    pub(crate) fn photo_failed(&mut self, file: &Path, error: &str) {
        self.line(&format_args!("error: {}: {error}", file.display()));
    }

    pub(crate) fn failed(&mut self, error: &dyn Error) {
        self.line(&format_args!("error: {error}"));
    }

    /// Where standard error is closed there is nobody to tell; the exit code still does.
    fn line(&mut self, text: &dyn Display) {
        let _ = writeln!(self.to, "{text}");
    }
}
