//! Reads the `[options]` of a `model.toml`: what one engine or one pipeline understands, and nothing else.
//!
//! Values arrive as text: strings without their quotes, everything else as the TOML file has it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::{LoadError, LoadErrorKind, Quoted, nearest};

/// The options for `engine`: those that begin with its name and a dot, without that, and those that begin with the name of
/// none of the engines `all`.
pub fn own_options(options: &BTreeMap<String, String>, engine: &str, all: &[&str]) -> BTreeMap<String, String> {
    let own = |(key, value): (&String, &String)| {
        let (owner, short) = key.split_once('.').filter(|(owner, _)| all.contains(owner)).unwrap_or((engine, key));
        (owner == engine).then(|| (short.to_owned(), value.clone()))
    };
    options.iter().filter_map(own).collect()
}

/// Takes options one by one, and refuses those that nobody took: an option that does nothing would be taken for one that
/// works.
///
/// Every error is a [`LoadErrorKind::Invalid`] that names the option, what was expected and what was given.
///
/// ```
/// # use millrace_core::OptionReader;
/// let options = [("threads".to_owned(), "4".to_owned())].into();
/// let mut reader = OptionReader::new(&options);
/// let threads = reader.number("threads", 1, 1..=64)?;
/// let fast = reader.flag("fast", false)?;
/// reader.finish()?;
/// assert_eq!((threads, fast), (4, false));
/// # Ok::<(), millrace_core::LoadError>(())
/// ```
#[derive(Debug)]
pub struct OptionReader<'a> {
    options: &'a BTreeMap<String, String>,
    known: Vec<&'static str>,
}

impl<'a> OptionReader<'a> {
    /// A reader that has taken nothing yet.
    pub fn new(options: &'a BTreeMap<String, String>) -> Self {
        Self { options, known: Vec::new() }
    }

    /// The text of `name`, where it is said.
    pub fn text(&mut self, name: &'static str) -> Option<&'a str> {
        self.known.push(name);
        self.options.get(name).map(String::as_str)
    }

    /// True or false.
    ///
    /// # Errors
    /// Another text.
    pub fn flag(&mut self, name: &'static str, default: bool) -> Result<bool, LoadError> {
        let Some(text) = self.text(name) else { return Ok(default) };
        text.parse().map_err(|_| wrong(name, "true or false", text))
    }

    /// One of several words.
    ///
    /// # Errors
    /// Another word.
    pub fn word<T: Copy>(
        &mut self,
        name: &'static str,
        default: T,
        words: &[(&'static str, T)],
    ) -> Result<T, LoadError> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        found.ok_or_else(|| {
            let list: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            wrong(name, &format!("one of {}", list.join(", ")), text)
        })
    }

    /// A list of strings, as TOML writes it: `["a", "b"]`.
    ///
    /// # Errors
    /// A text that is no such list.
    pub fn words(&mut self, name: &'static str) -> Result<Option<Vec<&'a str>>, LoadError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let unquoted = |item: &'a str| {
            let quote = item.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
            let inner = item.strip_prefix(quote)?.strip_suffix(quote)?;
            (!inner.contains([quote, '\\'])).then_some(inner)
        };
        let words = items(text).and_then(|items| items.map(unquoted).collect());
        words.map(Some).ok_or_else(|| wrong(name, "a list of strings, such as [\"a\", \"b\"]", text))
    }

    /// A number in `range`.
    ///
    /// # Errors
    /// Another text; NaN is in no range.
    pub fn number<T>(&mut self, name: &'static str, default: T, range: RangeInclusive<T>) -> Result<T, LoadError>
    where
        T: FromStr + PartialOrd + Display,
    {
        let Some(text) = self.text(name) else { return Ok(default) };
        in_range(text, &range).ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            wrong(name, &format!("a number from {least} to {most}"), text)
        })
    }

    /// A list of exactly `N` numbers, each in `range`, as TOML writes it.
    ///
    /// # Errors
    /// Another text.
    pub fn numbers<T, const N: usize>(
        &mut self,
        name: &'static str,
        default: [T; N],
        range: RangeInclusive<T>,
    ) -> Result<[T; N], LoadError>
    where
        T: FromStr + PartialOrd + Display,
    {
        let Some(text) = self.text(name) else { return Ok(default) };
        let numbers = || {
            let numbers: Option<Vec<T>> = items(text)?.map(|item| in_range(item, &range)).collect();
            numbers?.try_into().ok()
        };
        numbers().ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            wrong(name, &format!("a list of {N} numbers from {least} to {most}"), text)
        })
    }

    /// Refuses every option that has not been taken.
    ///
    /// # Errors
    /// The first of those, with the one that was probably meant.
    pub fn finish(self) -> Result<(), LoadError> {
        let Some(unknown) = self.options.keys().find(|name| !self.known.contains(&name.as_str())) else {
            return Ok(());
        };
        let hint = match nearest(unknown, self.known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if self.known.is_empty() => "there are none here".to_owned(),
            None => format!("expected one of {}", self.known.join(", ")),
        };
        Err(LoadError::new(LoadErrorKind::Invalid, format!("unknown option {}; {hint}", Quoted(unknown))))
    }
}

fn wrong(name: &str, expected: &str, got: &str) -> LoadError {
    LoadError::new(LoadErrorKind::Invalid, format!("option `{name}`: expected {expected}, got {}", Quoted(got)))
}

/// The items of a list as TOML writes it, which may have a comma behind the last one.
fn items(text: &str) -> Option<impl Iterator<Item = &str>> {
    let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?.trim();
    let inner = inner.strip_suffix(',').unwrap_or(inner);
    let is_empty = inner.is_empty();
    Some(inner.split(',').map(str::trim).filter(move |_| !is_empty))
}

/// The number, unless it is none or out of range; NaN is. TOML allows underscores between digits.
fn in_range<T: FromStr + PartialOrd>(text: &str, range: &RangeInclusive<T>) -> Option<T> {
    text.replace('_', "").parse().ok().filter(|number| range.contains(number))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{OptionReader, own_options};
    use crate::LoadError;

    fn options(said: &[(&str, &str)]) -> BTreeMap<String, String> {
        said.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn text(error: Result<impl Sized, LoadError>) -> String {
        error.map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn an_engine_gets_its_own_options_and_those_for_all() {
        let all = options(&[("a", "1"), ("tract.b", "2"), ("trees.c", "3"), ("x.y", "4")]);
        let keys = |engine: &str| own_options(&all, engine, &["trees", "tract"]).into_keys().collect::<Vec<_>>();
        assert_eq!(keys("tract"), ["a", "b", "x.y"]);
        assert_eq!(keys("trees"), ["a", "c", "x.y"]);
    }

    #[test]
    fn what_is_said_is_read_and_the_rest_has_its_default() {
        let said = options(&[("flag", "true"), ("size", "1_000"), ("share", "0.5"), ("list", "[1, 2,]")]);
        let mut reader = OptionReader::new(&said);
        assert!(reader.flag("flag", false).unwrap());
        assert!(!reader.flag("other", false).unwrap());
        assert_eq!(reader.number("size", 1, 1..=4096).unwrap(), 1000);
        assert_eq!(reader.number("share", 0.1, 0.0..=1.0).unwrap(), 0.5);
        assert_eq!(reader.numbers("list", [0, 0], 0..=9).unwrap(), [1, 2]);
        assert_eq!(reader.numbers("none", [3, 4], 0..=9).unwrap(), [3, 4]);
        reader.finish().unwrap();
    }

    #[test]
    fn words_are_one_of_a_few_or_a_list_of_strings() {
        let said = options(&[("level", "all"), ("order", "[\"cuda\", 'cpu']"), ("empty", "[ ]")]);
        let mut reader = OptionReader::new(&said);
        assert_eq!(reader.word("level", 0, &[("none", 1), ("all", 2)]).unwrap(), 2);
        assert_eq!(reader.words("order").unwrap().unwrap(), ["cuda", "cpu"]);
        assert!(reader.words("empty").unwrap().unwrap().is_empty());
        assert_eq!(reader.words("absent").unwrap(), None);
        reader.finish().unwrap();
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        let said = options(&[("a", "x"), ("b", "[cpu]"), ("c", "NaN"), ("d", "[1]")]);
        let mut reader = OptionReader::new(&said);
        assert_eq!(text(reader.flag("a", true)), "option `a`: expected true or false, got `x`");
        assert_eq!(
            text(reader.word("a", 0, &[("y", 1), ("z", 2)])),
            "option `a`: expected one of \"y\", \"z\", got `x`"
        );
        assert_eq!(
            text(reader.words("b")),
            "option `b`: expected a list of strings, such as [\"a\", \"b\"], got `[cpu]`"
        );
        assert_eq!(text(reader.number("c", 0.0, 0.0..=1.0)), "option `c`: expected a number from 0 to 1, got `NaN`");
        assert_eq!(
            text(reader.numbers("d", [0, 0], 0..=9)),
            "option `d`: expected a list of 2 numbers from 0 to 9, got `[1]`"
        );
    }

    #[test]
    fn an_option_that_nobody_took_is_refused() {
        let said = options(&[("thread", "2")]);
        let mut reader = OptionReader::new(&said);
        assert_eq!(text(OptionReader::new(&said).finish()), "unknown option `thread`; there are none here");
        reader.text("colour");
        assert_eq!(text(reader.finish()), "unknown option `thread`; expected one of colour");
        let mut reader = OptionReader::new(&said);
        reader.text("threads");
        assert_eq!(text(reader.finish()), "unknown option `thread`; did you mean `threads`?");
    }
}
