//! Log lines: one per event, escaped, at most 2 KiB, as text for people and as JSON for machines.
//!
//! What is worth a line is decided where it happens; this file only writes. Spans are not followed: events carry their
//! own fields, so that a request costs nothing where nothing is logged.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write as _};
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::config::LogFormat;

/// The longest line, in bytes, its end included.
const LONGEST_LINE: usize = 2048;
/// The longest value of one field, in bytes before escaping.
const LONGEST_VALUE: usize = 512;

/// Which events are logged: a level (`info`), or levels by target (`warn,millrace_registry=debug`).
#[derive(Debug, Clone)]
pub(crate) struct Filter(Targets);

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{}` is not a level; write error, warn, info, debug, trace or off", text.escape_default());
        let known = |level: &str| {
            ["off", "error", "warn", "info", "debug", "trace"].contains(&level.to_ascii_lowercase().as_str())
        };
        // `Targets` takes any bare word for a target; a misspelled level must not silence the log.
        let fits = text.split(',').all(|part| known(part.split_once('=').map_or(part, |(_, level)| level).trim()));
        if !fits {
            return Err(wrong());
        }
        text.parse().map(Self).map_err(|_| wrong())
    }
}

/// Starts logging to standard error, for the whole process. A second call, or a subscriber of the embedder's, leaves
/// things as they are.
pub(crate) fn start(format: LogFormat, filter: &Filter) {
    let is_json = match format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let colour = !is_json && io::stderr().is_terminal();
    let subscriber = tracing_subscriber::registry().with(Lines { is_json, colour }.with_filter(filter.0.clone()));
    // Somebody else's subscriber is somebody else's decision.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// An error and its causes, in one line.
pub(crate) fn error_chain<'a>(error: &'a (dyn Error + 'static)) -> impl fmt::Display + 'a {
    Chain(error)
}

struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Writes each event as one line.
struct Lines {
    is_json: bool,
    colour: bool,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = timestamp(now.as_secs(), now.subsec_millis());
        let metadata = event.metadata();
        let line = if self.is_json {
            json_line(&time, *metadata.level(), metadata.target(), &fields)
        } else {
            text_line(&time, *metadata.level(), metadata.target(), &fields, self.colour)
        };
        // One write per line, so that lines of several threads do not mix. A broken log must not break serving.
        let _ = io::stderr().lock().write_all(line.as_bytes());
    }
}

/// An event's message and other fields, each cut to a bounded length.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

enum Value {
    Text(String),
    /// A number or a truth value, as JSON writes it.
    Plain(String),
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        match value {
            Value::Text(text) | Value::Plain(text) if field.name() == "message" => self.message = text,
            value => self.others.push((field.name(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Value::Text(bounded(format_args!("{value:?}"))));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Value::Text(bounded(format_args!("{value}"))));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.add(field, Value::Text(bounded(format_args!("{}", Chain(value)))));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Value::Plain(value.to_string()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::Plain(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Value::Plain(value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        let text = value.to_string();
        self.add(field, if value.is_finite() { Value::Plain(text) } else { Value::Text(text) });
    }
}

/// Formats into a bounded string, so that a huge value is never built.
fn bounded(value: fmt::Arguments<'_>) -> String {
    struct Bounded(String);
    impl fmt::Write for Bounded {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = LONGEST_VALUE - self.0.len();
            if text.len() <= room {
                self.0.push_str(text);
                return Ok(());
            }
            self.0.push_str(&text[..text.floor_char_boundary(room)]);
            self.0.push('…');
            Err(fmt::Error)
        }
    }
    let mut bounded = Bounded(String::new());
    // The error is the sign that the value was cut.
    let _ = bounded.write_fmt(value);
    bounded.0
}

fn text_line(time: &str, level: Level, target: &str, fields: &Fields, colour: bool) -> String {
    let (on, off) = if colour { (level_colour(level), "\x1b[0m") } else { ("", "") };
    let mut line = format!("{time} {on}{level:>5}{off} {target}: ");
    escape_into(&mut line, &fields.message);
    for (name, value) in &fields.others {
        let before = line.len();
        match value {
            Value::Plain(text) => {
                let _ = write!(line, " {name}={text}");
            }
            Value::Text(text) => {
                let _ = write!(line, " {name}=");
                escape_into(&mut line, text);
            }
        }
        if line.len() >= LONGEST_LINE - 4 {
            line.truncate(before);
            line.push_str(" …");
            break;
        }
    }
    line.truncate(line.floor_char_boundary(LONGEST_LINE - 1));
    line.push('\n');
    line
}

/// Control characters, bidirectional overrides and the like as escapes; other text as it is.
fn escape_into(line: &mut String, text: &str) {
    for character in text.chars() {
        let invisible = matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if character.is_control() || invisible {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
}

fn json_line(time: &str, level: Level, target: &str, fields: &Fields) -> String {
    let mut line = format!("{{\"time\":\"{time}\",\"level\":\"{level}\",\"target\":\"{target}\",\"message\":");
    line.push_str(&quoted(&fields.message));
    for (name, value) in &fields.others {
        let before = line.len();
        let value = match value {
            Value::Plain(text) => text.clone(),
            Value::Text(text) => quoted(text),
        };
        let _ = write!(line, ",\"{name}\":{value}");
        if line.len() > LONGEST_LINE - 24 {
            line.truncate(before);
            line.push_str(",\"cut\":true");
            break;
        }
    }
    line.push_str("}\n");
    line
}

/// A JSON string, cut so that one field alone, every character of it escaped, still leaves room on the line.
fn quoted(text: &str) -> String {
    let mut cut = text;
    loop {
        let json = serde_json::to_string(cut).unwrap_or_else(|_| "\"\"".to_owned());
        if json.len() <= LONGEST_LINE / 2 {
            return json;
        }
        cut = &cut[..cut.floor_char_boundary(cut.len() / 2)];
    }
}

fn level_colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG | Level::TRACE => "\x1b[2m",
    }
}

/// `2026-07-31T12:34:56.789Z`, from seconds since 1970.
fn timestamp(seconds: u64, millis: u32) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Civil date from a day count, with years that begin in March so that leap days come last.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::{Fields, Filter, LONGEST_LINE, LONGEST_VALUE, Value, bounded, json_line, text_line, timestamp};

    fn fields(value: &str, count: usize) -> Fields {
        let others = (0..count).map(|_| ("model", Value::Text(bounded(format_args!("{value}"))))).collect();
        Fields { message: bounded(format_args!("{value}")), others }
    }

    #[test]
    fn an_event_is_one_escaped_line_whatever_is_in_it() {
        let fields = fields("a\n\u{1b}[31mred\r\u{202e}", 1);
        for line in [text_line("t", Level::INFO, "x", &fields, false), json_line("t", Level::INFO, "x", &fields)] {
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            assert!(!line.contains('\u{1b}') && !line.contains('\r'), "{line:?}");
        }
        assert!(!text_line("t", Level::INFO, "x", &fields, false).contains('\u{202e}'));
    }

    #[test]
    fn a_line_has_a_longest_length_and_stays_json() {
        for text in ["x".repeat(100_000), "\u{1}".repeat(100_000), "é".repeat(100_000)] {
            let fields = fields(&text, 100);
            assert!(fields.message.len() <= LONGEST_VALUE + 3);
            assert!(text_line("t", Level::WARN, "x", &fields, false).len() <= LONGEST_LINE);
            let line = json_line("t", Level::WARN, "x", &fields);
            assert!(line.len() <= LONGEST_LINE, "{}", line.len());
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(value["cut"], true);
        }
    }

    #[test]
    fn a_misspelled_level_is_refused() {
        for good in ["info", "WARN", "off", "warn,millrace_registry=debug"] {
            assert!(good.parse::<Filter>().is_ok(), "{good}");
        }
        for bad in ["inof", "", "info,millrace_http=loud"] {
            assert!(bad.parse::<Filter>().is_err(), "{bad}");
        }
    }

    #[test]
    fn timestamps_are_civil_dates() {
        assert_eq!(timestamp(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp(951_782_400, 7), "2000-02-29T00:00:00.007Z");
        assert_eq!(timestamp(1_767_225_599, 999), "2025-12-31T23:59:59.999Z");
    }
}
