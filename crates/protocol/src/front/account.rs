//! What a request is told about itself beside its answer or its refusal, where it asks: how long each stage took, in what
//! company it ran, why its batch closed, and where it was refused.
//!
//! An [`Inquiry`] is what it asked; an [`Account`] begins with it, is told what happens on the way and tells it in the end.
//! Requests that ask nothing carry an empty pointer. Putting the words into headers is the front-ends'.

use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use millrace_core::{
    Catalog, ClosedBy, InferRequest, Priority, Progress, Protocol, Quoted, Reason, Refusal, Servable, Stages,
};

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
/// What stands for the stages from `admit` to `wake` where the model did not say in which of them it refused.
const MODEL: &str = "model";

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

/// What is known of one request.
#[derive(Debug)]
pub struct Account {
    inquiry: Box<Inquiry>,
    protocol: Protocol,
    received: Instant,
    arrived: Option<Instant>,
    /// The model and the version that answer, once they are found. One account may be of several models.
    model: Option<Box<str>>,
    version: Option<u64>,
    asked: Option<Asked>,
    ran: Option<(Stages, Instant)>,
    /// How many parts of the request were answered and refused, where it had parts.
    parts: Option<[usize; 2]>,
}

/// What went to the model.
#[derive(Debug)]
struct Asked {
    decoded: Instant,
    signature: Option<Box<str>>,
    priority: Priority,
    deadline: Option<Instant>,
    rows: usize,
}

/// The stages of one request in their order, and how it ended.
struct Told {
    stages: Vec<(&'static str, Duration)>,
    refused: Option<Reason>,
}

impl Account {
    /// Begins the account of a request whose first byte came at `received`.
    pub fn begin(inquiry: Box<Inquiry>, protocol: Protocol, received: Instant) -> Box<Self> {
        let (arrived, model, version, asked, ran, parts) = (None, None, None, None, None, None);
        Box::new(Self { inquiry, protocol, received, arrived, model, version, asked, ran, parts })
    }

    /// What was asked.
    pub fn inquiry(&self) -> &Inquiry {
        &self.inquiry
    }

    /// It turns out to be of this protocol.
    pub fn is_of(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// Its body was whole at `at`.
    pub fn arrived(&mut self, at: Instant) {
        self.arrived = Some(at);
    }

    /// It is for this version.
    pub fn found(&mut self, servable: &dyn Servable) {
        self.model = Some(servable.model().as_str().into());
        self.version = Some(servable.version());
    }

    /// Its body was read at `decoded`, and `request`, of `rows` rows, is about to go to `servable`.
    pub fn asked(&mut self, servable: &dyn Servable, request: &InferRequest, rows: usize, decoded: Instant) {
        let signature = servable.signatures().iter().nth(request.signature).map(|(name, _)| name.into());
        let (priority, deadline) = (request.context.priority, request.context.deadline);
        self.asked = Some(Asked { decoded, signature, priority, deadline, rows });
    }

    /// The model's answer was there at `answered`.
    pub fn ran(&mut self, stages: Stages, answered: Instant) {
        self.ran = Some((stages, answered));
    }

    /// A part of the request came to its end; without an account it was refused. Together they are told as one request that
    /// was cut into pieces is: from the first that began a stage to the last that ended it, and of batches the largest.
    pub fn joined(&mut self, part: Option<&Self>) {
        let [answered, refused] = self.parts.get_or_insert_default();
        let Some(Self { model, version, asked: Some(asked), ran: Some((stages, at)), .. }) = part else {
            *refused += 1;
            return;
        };
        *answered += 1;
        let Some(((all, last), whole)) = self.ran.as_mut().zip(self.asked.as_mut()) else {
            (self.model, self.version) = (model.clone(), *version);
            self.asked = Some(Asked { signature: asked.signature.clone(), ..*asked });
            self.ran = Some((*stages, *at));
            return;
        };
        if self.model != *model {
            (self.model, self.version, whole.signature) = (None, None, None);
        }
        self.version = self.version.filter(|known| Some(*known) == *version);
        whole.signature = whole.signature.take().filter(|known| Some(known) == asked.signature.as_ref());
        whole.rows += asked.rows;
        whole.decoded = whole.decoded.min(asked.decoded);
        *last = (*last).max(*at);
        *all = Stages {
            queued: all.queued.min(stages.queued),
            formed: all.formed.min(stages.formed),
            started: all.started.min(stages.started),
            finished: all.finished.max(stages.finished),
            ..if all.batch_rows < stages.batch_rows { *stages } else { *all }
        };
    }

    /// Gives what was asked for, name by name, to a request whose answer was written at `encoded`. `catalog` knows the
    /// engine.
    pub fn tell(&self, encoded: Instant, catalog: &dyn Catalog, give: impl FnMut(&'static str, String)) {
        self.give(&Told { stages: self.stages(encoded), refused: None }, catalog, give);
    }

    /// The same to a request that was refused at `at`: the stages that it came through, the last of them the one that
    /// refused it.
    pub fn tell_refused(
        &self,
        refusal: &Refusal,
        at: Instant,
        catalog: &dyn Catalog,
        give: impl FnMut(&'static str, String),
    ) {
        let stages = self.stages_until(refusal.progress(), at);
        self.give(&Told { stages, refused: Some(refusal.reason()) }, catalog, give);
    }

    fn give(&self, told: &Told, catalog: &dyn Catalog, mut give: impl FnMut(&'static str, String)) {
        if self.inquiry.timing {
            give(SERVER_TIMING, self.server_timing(told));
        }
        if self.inquiry.explain {
            give(EXPLAIN, self.explain(told, catalog));
        }
    }

    /// How long each stage took. Together they are the time from the first byte to the written answer.
    fn stages(&self, encoded: Instant) -> Vec<(&'static str, Duration)> {
        let arrived = self.arrived.unwrap_or(self.received);
        let decoded = self.asked.as_ref().map_or(encoded, |asked| asked.decoded);
        let (stages, answered) = self.ran.unwrap_or_else(|| (Stages::immediate(decoded), decoded));
        let Stages { queued, formed, started, finished, .. } = stages;
        let ends = [arrived, decoded, queued, formed, started, finished, answered, encoded];
        chained(self.received, STAGES.into_iter().zip(ends))
    }

    /// The same up to the stage that refused it.
    fn stages_until(&self, progress: Option<Progress>, at: Instant) -> Vec<(&'static str, Duration)> {
        let mut ends = vec![self.arrived];
        if self.arrived.is_some() {
            ends.push(self.asked.as_ref().map(|asked| asked.decoded));
        }
        let is_asked = self.asked.is_some();
        match (self.ran, progress) {
            (Some((stages, answered)), _) => {
                let Stages { queued, formed, started, finished, .. } = stages;
                ends.extend([queued, formed, started, finished, answered, at].map(Some));
            }
            (None, Some(progress)) if is_asked => ends.extend(match progress {
                Progress::Door => vec![None],
                Progress::Queue { queued } => vec![Some(queued), None],
                Progress::Run { queued, formed, started } => vec![Some(queued), Some(formed), Some(started), None],
            }),
            (None, _) => {}
        }
        let mut stages: Vec<_> = STAGES.into_iter().zip(ends.into_iter().map(|end| end.unwrap_or(at))).collect();
        if is_asked && stages.len() == 2 {
            stages.push((MODEL, at));
        }
        chained(self.received, stages)
    }

    fn server_timing(&self, told: &Told) -> String {
        let mut text = String::with_capacity(256);
        for (name, time) in &told.stages {
            push(&mut text, format_args!("{name};dur={}, ", Decimal(*time, 1_000_000)));
        }
        push(&mut text, format_args!("total;dur={}", Decimal(told.total(), 1_000_000)));
        if let Some((stages, closed_by)) = self.batch() {
            let (rows, name) = (stages.batch_rows, closed_by.name());
            push(&mut text, format_args!(", batch;desc=\"rows={rows} closed_by={name}\""));
        }
        if let Some(reason) = told.refused {
            push(&mut text, format_args!(", refused;desc=\"stage={} reason={}\"", told.last(), reason.name()));
        }
        text
    }

    fn batch(&self) -> Option<(Stages, ClosedBy)> {
        let (stages, _) = self.ran?;
        Some((stages, stages.closed_by?))
    }

    /// What ran a batch of that size, or would have.
    fn engine(&self, catalog: &dyn Catalog) -> Option<String> {
        let (name, version) = (self.model.as_deref()?, self.version?);
        let status = catalog.model(name)?.versions.into_iter().find(|known| known.version == version)?;
        let rows = self.ran.map_or(1, |(stages, _)| stages.batch_rows + stages.padding);
        let chosen = status.choice.as_deref().and_then(|choice| choice.engine(rows));
        chosen.or(status.backend.as_deref()).map(str::to_owned)
    }

    fn explain(&self, told: &Told, catalog: &dyn Catalog) -> String {
        let request_id = self.inquiry.request_id.as_deref().map(|id| String::from_utf8_lossy(id).into_owned());
        let engine = self.engine(catalog);
        let asked = self.asked.as_ref();
        let signature = asked.and_then(|asked| asked.signature.as_deref());
        let deadline = asked.and_then(|asked| asked.deadline);
        let deadline = deadline.map(|at| at.saturating_duration_since(self.received).as_millis());
        let ahead = self.ran.map(|(stages, _)| stages.ahead);
        let mut text = String::with_capacity(768);
        push(&mut text, format_args!("{{\"request_id\":{}", Text(request_id.as_deref())));
        push(&mut text, format_args!(",\"model\":{}", Text(self.model.as_deref())));
        push(&mut text, format_args!(",\"version\":{}", OrNull(self.version)));
        push(&mut text, format_args!(",\"signature\":{}", Text(signature)));
        push(&mut text, format_args!(",\"engine\":{}", Text(engine.as_deref())));
        push(&mut text, format_args!(",\"protocol\":\"{}\"", self.protocol.name()));
        push(&mut text, format_args!(",\"priority\":{}", OrNull(asked.map(|asked| asked.priority.0))));
        push(&mut text, format_args!(",\"deadline_ms\":{}", OrNull(deadline)));
        push(&mut text, format_args!(",\"rows\":{}", OrNull(asked.map(|asked| asked.rows))));
        push(&mut text, format_args!(",\"rows_ahead\":{}", OrNull(ahead)));
        if let Some([answered, refused]) = self.parts {
            push(&mut text, format_args!(",\"parts\":{{\"answered\":{answered},\"refused\":{refused}}}"));
        }
        match self.batch() {
            Some((stages, closed_by)) => push(
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
        if let Some(reason) = told.refused {
            let (stage, reason) = (told.last(), reason.name());
            push(&mut text, format_args!(",\"refused\":{{\"stage\":\"{stage}\",\"reason\":\"{reason}\"}}"));
        }
        for (index, (name, time)) in told.stages.iter().enumerate() {
            let before = if index == 0 { ",\"stages_us\":{" } else { "," };
            push(&mut text, format_args!("{before}\"{name}\":{}", Decimal(*time, 1000)));
        }
        push(&mut text, format_args!("}},\"total_us\":{}", Decimal(told.total(), 1000)));
        let (readings, each) = (told.stages.len() + 1, clock_cost());
        push(&mut text, format_args!(",\"clock\":{{\"readings\":{readings},\"each_us\":{}}}}}", Decimal(each, 1000)));
        text
    }
}

impl Told {
    fn total(&self) -> Duration {
        self.stages.iter().map(|(_, time)| *time).sum()
    }

    /// The stage that refused it.
    fn last(&self) -> &'static str {
        self.stages.last().map_or(STAGES[0], |(name, _)| name)
    }
}

/// The times between instants from `begin` on. One that lies before its neighbour, as those of a pipeline's inner calls may,
/// ends a stage of no length.
fn chained(begin: Instant, ends: impl IntoIterator<Item = (&'static str, Instant)>) -> Vec<(&'static str, Duration)> {
    let mut last = begin;
    let between = |(name, end): (_, Instant)| {
        let took = end.saturating_duration_since(last);
        last = last.max(end);
        (name, took)
    };
    ends.into_iter().map(between).collect()
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

/// A number, or `null`.
struct OrNull<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for OrNull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(number) => number.fmt(f),
            None => f.write_str("null"),
        }
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
