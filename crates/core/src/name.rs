//! Names of models and aliases, and how a request refers to a version.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::Quoted;

/// The longest model or alias name, in bytes.
const LONGEST: usize = 128;

/// Text that cannot be the name of a model or an alias.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} name {name} is not usable: expected 1 to {LONGEST} of A-Z a-z 0-9 _ - . and not a leading dot")]
pub struct NameError {
    what: &'static str,
    name: String,
}

fn check(what: &'static str, text: &str) -> Result<Arc<str>, NameError> {
    let fits = (1..=LONGEST).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    if fits { Ok(Arc::from(text)) } else { Err(NameError { what, name: Quoted(text).to_string() }) }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check($what, text).map(Self)
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The name that clients ask for. Safe as a file name and as a metric label: past its parser, nobody checks again.
    ModelName, "model"
}
name! {
    /// A movable name for a version, such as `stable`; TensorFlow Serving's version label.
    Alias, "alias"
}

impl Alias {
    /// The alias that overrides the default version where it is set.
    pub const DEFAULT: &'static str = "default";
    /// Reserved: always the highest available version; it cannot be set.
    pub const LATEST: &'static str = "latest";
}

/// What a request says about the model it wants. Borrowed text, not yet known to exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelRef<'a> {
    /// The model's name as the client wrote it.
    pub name: &'a str,
    /// Which of its versions.
    pub version: VersionChoice<'a>,
}

impl<'a> ModelRef<'a> {
    /// The default version of the model `name`.
    pub fn new(name: &'a str) -> Self {
        Self { name, version: VersionChoice::Default }
    }

    /// Version `number` of the model `name`.
    pub fn with_version(name: &'a str, number: u64) -> Self {
        Self { name, version: VersionChoice::Number(number) }
    }

    /// The version that alias `label` of the model `name` points at.
    pub fn with_label(name: &'a str, label: &'a str) -> Self {
        Self { name, version: VersionChoice::Label(label) }
    }
}

/// How a request picks a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionChoice<'a> {
    /// The alias `default` where set, else the highest available version.
    Default,
    /// That version and no other.
    Number(u64),
    /// The version that the alias points at; `latest` is the highest available.
    Label(&'a str),
}

/// A [`ModelRef`] that stands in a configuration: `fraud`, `fraud:3` for a version, `fraud@stable` for an alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedModelRef {
    name: ModelName,
    choice: Choice,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice {
    Default,
    Number(u64),
    Label(Alias),
}

/// Text that refers to no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelRefError {
    /// The part before `:` or `@` is no model name, or the part after `@` no alias.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The part after `:` is no version.
    #[error("{0} is no version: expected a number, as in `fraud:3`; an alias is written `fraud@stable`")]
    Version(String),
}

impl OwnedModelRef {
    /// What a resolver takes.
    pub fn borrowed(&self) -> ModelRef<'_> {
        let version = match &self.choice {
            Choice::Default => VersionChoice::Default,
            Choice::Number(number) => VersionChoice::Number(*number),
            Choice::Label(label) => VersionChoice::Label(label.as_str()),
        };
        ModelRef { name: self.name.as_str(), version }
    }

    /// The model's name.
    pub fn name(&self) -> &ModelName {
        &self.name
    }
}

impl FromStr for OwnedModelRef {
    type Err = ModelRefError;

    fn from_str(text: &str) -> Result<Self, ModelRefError> {
        if let Some((name, version)) = text.split_once(':') {
            let number = version.parse().map_err(|_| ModelRefError::Version(Quoted(version).to_string()))?;
            return Ok(Self { name: name.parse()?, choice: Choice::Number(number) });
        }
        match text.split_once('@') {
            Some((name, label)) => Ok(Self { name: name.parse()?, choice: Choice::Label(label.parse()?) }),
            None => Ok(Self { name: text.parse()?, choice: Choice::Default }),
        }
    }
}

/// As it is written.
impl fmt::Display for OwnedModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.choice {
            Choice::Default => write!(f, "{}", self.name),
            Choice::Number(number) => write!(f, "{}:{number}", self.name),
            Choice::Label(label) => write!(f, "{}@{label}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Alias, ModelName, OwnedModelRef, VersionChoice};

    #[test]
    fn a_written_reference_means_what_it_says() {
        let choice = |text: &str| match text.parse::<OwnedModelRef>().unwrap().borrowed().version {
            VersionChoice::Default => "default".to_owned(),
            VersionChoice::Number(number) => format!("number {number}"),
            VersionChoice::Label(label) => format!("label {label}"),
        };
        let texts = ["fraud", "fraud:3", "fraud@stable"];
        assert_eq!(texts.map(choice), ["default", "number 3", "label stable"]);
        assert_eq!(texts.map(|text| text.parse::<OwnedModelRef>().unwrap().to_string()), texts);
        for bad in ["", "fraud:", "fraud:x", "fraud:-1", "fraud@", "a/b", "a/b:1", "fraud@a b"] {
            assert!(bad.parse::<OwnedModelRef>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_names_that_are_safe_as_file_names_pass() {
        for good in ["fraud", "half_plus_two", "a.b-c", "7"] {
            assert_eq!(good.parse::<ModelName>().unwrap().as_str(), good);
        }
        for bad in
            ["", ".", "..", ".hidden", "a/b", "a\\b", "a\0", "a b", "\u{ff0e}\u{ff0e}", "a\r\nb", &"x".repeat(129)]
        {
            assert!(bad.parse::<ModelName>().is_err(), "{bad:?}");
            assert!(bad.parse::<Alias>().is_err(), "{bad:?}");
        }
    }
}
