//! Durations and byte counts as people write them in configuration: `5s`, `20ms`, `512MiB`.

use std::time::Duration;

/// Text that is not a duration or a byte count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub(crate) struct UnitError {
    expected: &'static str,
}

/// Parses a whole number with one of the units `us`, `ms`, `s`, `m`, `h`.
pub(crate) fn duration(text: &str) -> Result<Duration, UnitError> {
    let wrong = UnitError { expected: "a duration such as \"500us\", \"20ms\", \"5s\", \"2m\" or \"1h\"" };
    let (number, unit) = split(text);
    let number: u64 = number.parse().map_err(|_| wrong.clone())?;
    let micros = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        _ => return Err(wrong),
    };
    number.checked_mul(micros).map(Duration::from_micros).ok_or(wrong)
}

/// Parses a whole number with one of the units `B`, `KiB`, `MiB`, `GiB`, `KB`, `MB`, `GB`.
pub(crate) fn bytes(text: &str) -> Result<u64, UnitError> {
    let wrong = UnitError { expected: "a size such as \"512MiB\", \"2GB\" or a number of bytes" };
    let (number, unit) = split(text);
    let number: u64 = number.parse().map_err(|_| wrong.clone())?;
    let factor = match unit {
        "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong),
    };
    number.checked_mul(factor).ok_or(wrong)
}

fn split(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start_matches(' '))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{bytes, duration};

    #[test]
    fn units_are_read_and_anything_else_is_refused() {
        assert_eq!(duration("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(duration("5 s"), Ok(Duration::from_secs(5)));
        assert_eq!(bytes("2MiB"), Ok(2 << 20));
        for wrong in ["", "5", "ms", "-1s", "1.5s", "5S", "99999999999999999999s", "9999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "5", "5mb", "-1B", "99999999999999GiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
