//! Durations, sizes and lists as operators write them: `"5s"`, `"20ms"`, `"64MiB"`, `4096`, `"tfs,triton"`.
//!
//! Reading only; what a value is good for is decided where it is used.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use serde::de::value::StrDeserializer;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A duration written as a number and a unit: `ns`, `us`, `ms`, `s`, `m`, `h` or `d`. Parts may follow one another
/// (`1m30s`); `0` needs no unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

/// A count of bytes: a number, or a number and a unit: `B`, `KB`, `MB`, `GB`, `KiB`, `MiB`, `GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

/// Several values: a list, or a text with commas between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct List<T>(pub(crate) Vec<T>);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{}` is not a duration; write a number and a unit, such as \"5s\", \"20ms\" or \"1m30s\"",
                text.escape_default()
            )
        };
        if text.trim() == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(wrong());
        }
        let mut total = Duration::ZERO;
        while !rest.is_empty() {
            let (number, unit, tail) = number_and_unit(rest).ok_or_else(wrong)?;
            let nanos: u64 = match unit {
                "ns" => 1,
                "us" | "µs" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" | "min" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                "d" => 86_400_000_000_000,
                _ => return Err(wrong()),
            };
            let part = number.nanos(nanos).ok_or_else(wrong)?;
            total = total.checked_add(part).ok_or_else(wrong)?;
            rest = tail.trim_start();
        }
        Ok(Self(total))
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{}` is not a size; write bytes, or a number and a unit, such as \"64MiB\"", text.escape_default())
        };
        let text = text.trim();
        if let Ok(bytes) = text.parse() {
            return Ok(Self(bytes));
        }
        let (number, unit, tail) = number_and_unit(text).ok_or_else(wrong)?;
        let factor: u64 = match unit {
            "B" => 1,
            "KB" | "kB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(wrong()),
        };
        if !tail.is_empty() || number.fraction_digits != 0 {
            return Err(wrong());
        }
        number.whole.checked_mul(factor).map(Self).ok_or_else(wrong)
    }
}

/// A decimal number without rounding: `whole` and `fraction` / 10^`fraction_digits`.
struct Decimal {
    whole: u64,
    fraction: u64,
    fraction_digits: u32,
}

impl Decimal {
    fn nanos(&self, unit: u64) -> Option<Duration> {
        let part = u128::from(self.fraction) * u128::from(unit) / 10_u128.pow(self.fraction_digits);
        let nanos = u128::from(self.whole) * u128::from(unit) + part;
        u64::try_from(nanos).ok().map(Duration::from_nanos)
    }
}

fn number_and_unit(text: &str) -> Option<(Decimal, &str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, rest) = text.split_at(end);
    let rest = rest.trim_start();
    let unit_end = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
    let (unit, tail) = rest.split_at(unit_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 9 {
        return None;
    }
    let decimal = Decimal {
        whole: whole.parse().ok()?,
        fraction: if fraction.is_empty() { 0 } else { fraction.parse().ok()? },
        fraction_digits: u32::try_from(fraction.len()).ok()?,
    };
    Some((decimal, unit, tail))
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"5s\", \"20ms\" or \"1m30s\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Span, E> {
                // A bare number could mean seconds or milliseconds to its reader; only zero is the same in both.
                if number == 0 {
                    return Ok(Span(Duration::ZERO));
                }
                Err(E::custom(format!("`{number}` has no unit; write \"{number}s\" or \"{number}ms\"")))
            }
        }
        deserializer.deserialize_any(Read)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"64MiB\" or a number of bytes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Bytes, E> {
                u64::try_from(number)
                    .map(Bytes)
                    .map_err(|_| E::custom(format!("`{number}` is negative; a size is not")))
            }
        }
        deserializer.deserialize_any(Read)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Read<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<List<T>, E> {
                // A variable's text that is a list in TOML; an IPv6 address has more behind its bracket.
                if text.starts_with('[') && text.ends_with(']') {
                    return Err(E::custom("a list stands where a text should"));
                }
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                parts.map(|part| T::deserialize(StrDeserializer::new(part))).collect::<Result<_, E>>().map(List)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<List<T>, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = sequence.next_element()? {
                    values.push(value);
                }
                Ok(List(values))
            }
        }
        deserializer.deserialize_any(Read(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::{Bytes, List, Span};

    #[test]
    fn lists_read_as_lists_and_as_texts_with_commas() {
        let list = |text: &str| List::<String>::deserialize(text.parse::<toml::Value>().unwrap()).map(|list| list.0);
        assert_eq!(list(r#""a, b,c""#).unwrap(), ["a", "b", "c"]);
        assert_eq!(list(r#"["a, b", "c"]"#).unwrap(), ["a, b", "c"]);
        assert_eq!(list(r#""""#).unwrap(), [""; 0]);
        assert!(list("7").is_err());
    }

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, millis) in
            [("5s", 5_000), ("20ms", 20), ("1m30s", 90_000), ("0", 0), ("1.5s", 1_500), ("2 h", 7_200_000)]
        {
            assert_eq!(text.parse::<Span>().unwrap().0.as_millis(), millis, "{text}");
        }
        for text in ["", "5", "s", "5 parsecs", "-5s", "1..5s", "99999999999999d", "5s x"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in [("64MiB", 64 << 20), ("4096", 4096), ("1 GB", 1_000_000_000), ("0", 0)] {
            assert_eq!(text.parse::<Bytes>().unwrap().0, bytes, "{text}");
        }
        for text in ["", "MiB", "-1", "1.5MiB", "99999999999GiB", "1 MiB of it"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }
}
