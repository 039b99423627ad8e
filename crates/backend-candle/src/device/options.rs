//! Where a model asks to be: `device`, `streams` and `device_memory` among the options of a `model.toml`.

use millrace_core::{LoadError, LoadErrorKind, OptionReader, Quoted};

/// What the options say about devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceOptions {
    /// `device`.
    pub(crate) wish: Wish,
    /// `streams`: how many streams of a card the model's instances are spread over. Each holds its own copy of the weights.
    pub(crate) streams: usize,
    /// `device_memory`: the most bytes of a card's memory that the model may hold, weights and runs of all its streams.
    pub(crate) memory: Option<u64>,
}

/// The device that a model asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Wish {
    /// The first card where there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The card of this number, and nothing else.
    Cuda(usize),
}

/// Streams beyond this would rather wait for each other than help.
const MOST_STREAMS: usize = 16;

/// No machine has more cards.
const MOST_CARDS: usize = 64;

impl DeviceOptions {
    /// Takes the options that are about devices.
    ///
    /// # Errors
    /// [`LoadError`] naming the option that is wrong.
    pub(crate) fn read(reader: &mut OptionReader<'_>) -> Result<Self, LoadError> {
        let wish = match reader.text("device") {
            None => Wish::Auto,
            Some(text) => wish(text).ok_or_else(|| {
                wrong("device", "\"auto\", \"cpu\", \"cuda\" or a card's number as in \"cuda:0\"", text)
            })?,
        };
        let streams = reader.number("streams", 1, 1..=MOST_STREAMS)?;
        let memory = match reader.text("device_memory") {
            None => None,
            Some(text) => {
                Some(bytes(text).ok_or_else(|| wrong("device_memory", "a size such as \"4GiB\" or \"512MiB\"", text))?)
            }
        };
        // An option that does nothing would be taken for one that works. Under `auto` it depends on the machine.
        if wish == Wish::Cpu && (streams > 1 || memory.is_some()) {
            let name = if streams > 1 { "streams" } else { "device_memory" };
            let message = format!("option `{name}`: it is about a card, and `device` says \"cpu\"");
            return Err(LoadError::new(LoadErrorKind::Invalid, message));
        }
        Ok(Self { wish, streams, memory })
    }
}

fn wish(text: &str) -> Option<Wish> {
    match text {
        "auto" => Some(Wish::Auto),
        "cpu" => Some(Wish::Cpu),
        "cuda" => Some(Wish::Cuda(0)),
        _ => {
            let number = text.strip_prefix("cuda:")?;
            let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
            let card = number.parse().ok().filter(|card| is_number && *card < MOST_CARDS)?;
            Some(Wish::Cuda(card))
        }
    }
}

/// A number of bytes with a unit, or without one.
fn bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 7] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("B", 1),
    ];
    let (number, unit) =
        UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit))).unwrap_or((text, 1));
    let number = number.trim_end();
    if !number.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    number.replace('_', "").parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| *bytes > 0)
}

fn wrong(name: &str, expected: &str, got: &str) -> LoadError {
    LoadError::new(LoadErrorKind::Invalid, format!("option `{name}`: expected {expected}, got {}", Quoted(got)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millrace_core::OptionReader;

    use super::{DeviceOptions, Wish};

    fn read(said: &[(&str, &str)]) -> Result<DeviceOptions, String> {
        let said: BTreeMap<String, String> =
            said.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let mut reader = OptionReader::new(&said);
        let options = DeviceOptions::read(&mut reader).map_err(|error| error.to_string())?;
        reader.finish().map_err(|error| error.to_string())?;
        Ok(options)
    }

    #[test]
    fn what_is_said_is_read_and_the_rest_has_its_default() {
        assert_eq!(read(&[]).unwrap(), DeviceOptions { wish: Wish::Auto, streams: 1, memory: None });
        let said = read(&[("device", "cuda:3"), ("streams", "2"), ("device_memory", "4GiB")]).unwrap();
        assert_eq!(said, DeviceOptions { wish: Wish::Cuda(3), streams: 2, memory: Some(4 << 30) });
        assert_eq!(read(&[("device", "cuda")]).unwrap().wish, Wish::Cuda(0));
        assert_eq!(read(&[("device", "cpu")]).unwrap().wish, Wish::Cpu);
        for (text, bytes) in [("512 MiB", 512 << 20), ("2GB", 2_000_000_000), ("1_000", 1000), ("7B", 7)] {
            assert_eq!(read(&[("device_memory", text)]).unwrap().memory, Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        for text in ["gpu", "cuda:", "cuda:-1", "cuda:+1", "cuda:64", "cuda0", "CPU", ""] {
            let error = read(&[("device", text)]).unwrap_err();
            assert!(error.starts_with("option `device`: expected \"auto\", \"cpu\", \"cuda\" or"), "{error}");
        }
        for text in ["", "GiB", "-1GiB", "+1", "1TiB", "0", "99999999999GiB", "1.5GiB", "4 G"] {
            let error = read(&[("device_memory", text)]).unwrap_err();
            assert!(error.starts_with("option `device_memory`: expected a size such as \"4GiB\""), "{text}: {error}");
        }
        assert_eq!(
            read(&[("streams", "17")]).unwrap_err(),
            "option `streams`: expected a number from 1 to 16, got `17`"
        );
        assert_eq!(
            read(&[("device", "cpu"), ("streams", "2")]).unwrap_err(),
            "option `streams`: it is about a card, and `device` says \"cpu\""
        );
        assert!(read(&[("device", "cpu"), ("device_memory", "1GiB")]).unwrap_err().contains("`device_memory`"));
    }
}
