//! Text that came from outside, made safe to repeat in messages and logs.

use std::fmt;

/// The most characters of foreign text that a message repeats.
const MOST: usize = 128;

/// Displays foreign text between backquotes: control characters and everything outside printable ASCII escaped, cut
/// at 128 characters, so that one bad name is one short log line.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`")?;
        let mut written = 0;
        for character in self.0.chars() {
            let plain = matches!(character, ' '..='~') && !matches!(character, '`' | '\\');
            let width = if plain { 1 } else { character.escape_default().count() };
            if written + width > MOST {
                f.write_str("…")?;
                break;
            }
            if plain {
                write!(f, "{character}")?;
            } else {
                write!(f, "{}", character.escape_default())?;
            }
            written += width;
        }
        f.write_str("`")
    }
}

#[cfg(test)]
mod tests {
    use super::Quoted;

    #[test]
    fn foreign_text_stays_on_one_short_line() {
        assert_eq!(Quoted("fraud").to_string(), "`fraud`");
        assert_eq!(Quoted("a\n\u{1b}[31m").to_string(), "`a\\n\\u{1b}[31m`");
        assert!(Quoted(&"x".repeat(10_000)).to_string().chars().count() <= 131);
    }
}
