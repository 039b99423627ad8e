//! Durations and byte counts as people write them in configuration: `5s`, `1m30s`, `0.5ms`, `512MiB`.

use std::time::Duration;

/// Text that is not a duration or a byte count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub(crate) struct UnitError {
    expected: &'static str,
}

/// Parses numbers with the units `us`, `ms`, `s`, `m`, `h`, one after the other; `0` needs none.
pub(crate) fn duration(text: &str) -> Result<Duration, UnitError> {
    let wrong = UnitError { expected: "a duration such as \"500us\", \"20ms\", \"5s\" or \"1m30s\"" };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let factor = |unit: &str| match unit {
        "us" => Some(1_000),
        "ms" => Some(1_000_000),
        "s" => Some(1_000_000_000),
        "m" => Some(60_000_000_000),
        "h" => Some(3_600_000_000_000),
        _ => None,
    };
    let (mut rest, mut nanos) = (text, 0_u64);
    loop {
        let (part, tail) = quantity(rest, factor).ok_or_else(|| wrong.clone())?;
        nanos = nanos.checked_add(part).ok_or_else(|| wrong.clone())?;
        if tail.is_empty() {
            return Ok(Duration::from_nanos(nanos));
        }
        rest = tail;
    }
}

/// Parses a number with one of the units `B`, `KB`, `MB`, `GB`, `KiB`, `MiB`, `GiB`.
pub(crate) fn bytes(text: &str) -> Result<u64, UnitError> {
    let factor = |unit: &str| match unit {
        "B" => Some(1),
        "KB" => Some(1_000),
        "MB" => Some(1_000_000),
        "GB" => Some(1_000_000_000),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    match quantity(text, factor) {
        Some((bytes, "")) => Ok(bytes),
        _ => Err(UnitError { expected: "a size such as \"512MiB\", \"2GB\" or a number of bytes" }),
    }
}

/// The number at the beginning of `text` times its unit, rounded down, and what follows.
fn quantity(text: &str, factor: impl Fn(&str) -> Option<u64>) -> Option<(u64, &str)> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), digits);
    let unit_end = rest.find(|character: char| !character.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, tail) = rest.split_at(unit_end);
    let factor = factor(unit)?;
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let number: u128 = format!("{whole}{fraction}").parse().ok().filter(|_| !whole.is_empty())?;
    let value = number.checked_mul(u128::from(factor))? / scale;
    Some((u64::try_from(value).ok()?, tail))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{bytes, duration};

    #[test]
    fn units_are_read_and_anything_else_is_refused() {
        assert_eq!(duration("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("0.5ms"), Ok(Duration::from_micros(500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(bytes("2MiB"), Ok(2 << 20));
        assert_eq!(bytes("1.5GB"), Ok(1_500_000_000));
        let long = format!("1.{}s", "0".repeat(100));
        for wrong in ["", "5", "ms", "-1s", "1.5", ".5s", "5S", "5s!", "99999999999999999999s", "9999999999h", &long] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "5", "5mb", "-1B", "99999999999999GiB", "1MB2KB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
