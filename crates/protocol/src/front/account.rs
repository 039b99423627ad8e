//! What a request is told about itself beside its answer, where it asks: how long each stage took, in what company it ran,
//! and why its batch closed.
//!
//! An [`Inquiry`] is what it asked; an [`Account`] begins when the request goes to its model and is told once the answer is
//! written. Requests that ask nothing carry an empty pointer. Putting the words into headers is the front-ends'.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_core::{Catalog, InferRequest, Quoted, Reason, Refusal, RequestContext, Servable, Stages};

use super::clock::now;

/// The request's header that asks for [`SERVER_TIMING`].
pub const TIMING: &str = "x-millrace-timing";
/// The request's header that asks for the whole account, and the answer's that holds it: a JSON object in ASCII.
pub const EXPLAIN: &str = "x-millrace-explain";
/// The answer's header with the stages, as W3C's Server Timing has it.
pub const SERVER_TIMING: &str = "server-timing";

/// Characters of a text in an account: headers have limits at both ends.
const LONGEST_TEXT: usize = 256;
/// Readings of the clock that its cost is the mean of.
const READINGS: u32 = 64;

/// The stages in their order. Each ends where the next begins.
const STAGES: [&str; 8] = ["receive", "decode", "admit", "queue", "form", "compute", "wake", "encode"];

/// What a request wants to know about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inquiry {
    /// Whether the stages.
    pub timing: bool,
    /// Whether everything.
    pub explain: bool,
    /// The request's own name, as it was sent.
    pub request_id: Option<Box<[u8]>>,
}

impl Inquiry {
    /// What is asked, if anything is.
    pub fn new(timing: bool, explain: bool, request_id: Option<&[u8]>) -> Option<Box<Self>> {
        (timing || explain).then(|| Box::new(Self { timing, explain, request_id: request_id.map(Box::from) }))
    }
}

/// Reads what switches `name`, a header or a parameter, on or off.
///
/// # Errors
/// `InvalidInput` for anything but `1`, `0`, `true` and `false`.
pub fn switch(name: &str, value: &[u8]) -> Result<bool, Refusal> {
    match value {
        b"1" => Ok(true),
        b"0" => Ok(false),
        _ if value.eq_ignore_ascii_case(b"true") => Ok(true),
        _ if value.eq_ignore_ascii_case(b"false") => Ok(false),
        _ => {
            let text = String::from_utf8_lossy(value);
            Err(Refusal::new(Reason::InvalidInput, format!("{name}: expected 1 or 0, got {}", Quoted(&text))))
        }
    }
}

/// What is known of one request, for the answer's headers.
#[derive(Debug)]
pub struct Account {
    inquiry: Box<Inquiry>,
    servable: Arc<dyn Servable>,
    signature: usize,
    context: RequestContext,
    rows: usize,
    arrived: Instant,
    decoded: Instant,
    stages: Stages,
    answered: Instant,
}

impl Account {
    /// Begins the account of a request of `rows` rows that is about to go to `servable`: its body was whole at `arrived`
    /// and read at `decoded`.
    pub fn begin(
        inquiry: Box<Inquiry>,
        servable: &Arc<dyn Servable>,
        request: &InferRequest,
        rows: usize,
        [arrived, decoded]: [Instant; 2],
    ) -> Box<Self> {
        let (servable, stages, answered) = (Arc::clone(servable), Stages::immediate(decoded), decoded);
        let (signature, context) = (request.signature, request.context);
        Box::new(Self { inquiry, servable, signature, context, rows, arrived, decoded, stages, answered })
    }

    /// The model's answer was there at `answered`.
    pub fn ran(&mut self, stages: Stages, answered: Instant) {
        (self.stages, self.answered) = (stages, answered);
    }

    /// Gives the headers that were asked for, name by name. `encoded` is when the answer was written; `catalog` knows the
    /// engine.
    pub fn tell(&self, encoded: Instant, catalog: &dyn Catalog, mut give: impl FnMut(&'static str, String)) {
        let times = self.times(encoded);
        if self.inquiry.timing {
            give(SERVER_TIMING, self.server_timing(&times));
        }
        if self.inquiry.explain {
            give(EXPLAIN, self.explain(&times, catalog));
        }
    }

    /// How long each stage took. Together they are the time from the first byte to the written answer: an instant that
    /// lies before its neighbour's, as those of a pipeline's inner calls may, ends a stage of no length.
    fn times(&self, encoded: Instant) -> [Duration; STAGES.len()] {
        let Stages { queued, formed, started, finished, .. } = self.stages;
        let mut last = self.context.received;
        [self.arrived, self.decoded, queued, formed, started, finished, self.answered, encoded].map(|end| {
            let took = end.saturating_duration_since(last);
            last = last.max(end);
            took
        })
    }

    fn server_timing(&self, times: &[Duration]) -> String {
        let mut text = String::with_capacity(256);
        for (name, time) in STAGES.iter().zip(times) {
            push(&mut text, format_args!("{name};dur={}, ", Decimal(*time, 1_000_000)));
        }
        let total = Decimal(times.iter().sum(), 1_000_000);
        push(&mut text, format_args!("total;dur={total}"));
        if let Some(closed_by) = self.stages.closed_by {
            let (rows, name) = (self.stages.batch_rows, closed_by.name());
            push(&mut text, format_args!(", batch;desc=\"rows={rows} closed_by={name}\""));
        }
        text
    }

    fn explain(&self, times: &[Duration], catalog: &dyn Catalog) -> String {
        let (servable, stages) = (&*self.servable, &self.stages);
        let version = servable.version();
        let signature = servable.signatures().iter().nth(self.signature).map(|(name, _)| name.to_owned());
        let status = catalog.model(servable.model().as_str());
        let status = status.and_then(|model| model.versions.into_iter().find(|known| known.version == version));
        let engine = status.and_then(|status| {
            let chosen = status.choice.as_deref().and_then(|choice| choice.engine(stages.batch_rows + stages.padding));
            chosen.map(str::to_owned).or_else(|| status.backend.as_deref().map(str::to_owned))
        });
        let request_id = self.inquiry.request_id.as_deref().map(|id| String::from_utf8_lossy(id).into_owned());
        let deadline = self.context.deadline.map(|at| at.saturating_duration_since(self.context.received).as_millis());
        let mut text = String::with_capacity(768);
        push(&mut text, format_args!("{{\"request_id\":{}", Text(request_id.as_deref())));
        push(&mut text, format_args!(",\"model\":{},\"version\":{version}", Text(Some(servable.model().as_str()))));
        push(&mut text, format_args!(",\"signature\":{}", Text(signature.as_deref())));
        push(&mut text, format_args!(",\"engine\":{}", Text(engine.as_deref())));
        push(&mut text, format_args!(",\"protocol\":\"{}\"", self.context.protocol.name()));
        push(&mut text, format_args!(",\"priority\":{}", self.context.priority.0));
        match deadline {
            Some(deadline) => push(&mut text, format_args!(",\"deadline_ms\":{deadline}")),
            None => text.push_str(",\"deadline_ms\":null"),
        }
        push(&mut text, format_args!(",\"rows\":{},\"rows_ahead\":{}", self.rows, stages.ahead));
        match stages.closed_by {
            Some(closed_by) => push(
                &mut text,
                format_args!(
                    ",\"batch\":{{\"rows\":{},\"padding\":{},\"requests\":{},\"closed_by\":\"{}\"}}",
                    stages.batch_rows,
                    stages.padding,
                    stages.requests,
                    closed_by.name()
                ),
            ),
            None => text.push_str(",\"batch\":null"),
        }
        for (index, (name, time)) in STAGES.iter().zip(times).enumerate() {
            let before = if index == 0 { ",\"stages_us\":{" } else { "," };
            push(&mut text, format_args!("{before}\"{name}\":{}", Decimal(*time, 1000)));
        }
        push(&mut text, format_args!("}},\"total_us\":{}", Decimal(times.iter().sum(), 1000)));
        let (readings, each) = (STAGES.len() + 1, clock_cost());
        push(&mut text, format_args!(",\"clock\":{{\"readings\":{readings},\"each_us\":{}}}}}", Decimal(each, 1000)));
        text
    }
}

fn push(text: &mut String, words: fmt::Arguments<'_>) {
    text.write_fmt(words).expect("a String takes every character");
}

/// What one reading of the clock costs here and now.
fn clock_cost() -> Duration {
    let began = now();
    let ended = (0..READINGS).fold(began, |_, _| now());
    ended.saturating_duration_since(began) / READINGS
}

/// A time in units of so many nanoseconds, a power of ten; to the nanosecond, so that parts add up in text too.
struct Decimal(Duration, u32);

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nanoseconds, unit) = (self.0.as_nanos(), u128::from(self.1));
        let width = usize::try_from(self.1.ilog10()).unwrap_or_default();
        write!(f, "{}.{:0width$}", nanoseconds / unit, nanoseconds % unit)
    }
}

/// A JSON string in ASCII, or `null`.
struct Text<'a>(Option<&'a str>);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(text) = self.0 else { return f.write_str("null") };
        f.write_char('"')?;
        for character in text.chars().take(LONGEST_TEXT) {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                ' '..='~' => f.write_char(character)?,
                _ => character.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(f, "\\u{unit:04x}"))?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests;
