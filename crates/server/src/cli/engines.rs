//! The choice among engines, as `inspect` and `check` print it.

use std::fmt::Write as _;
use std::time::Duration;

use millrace_core::{EngineChoice, EngineOutcome, EngineTrial, ModelStatus, VersionStatus};

use super::table::{bytes, columns};

/// A table of the engines that were tried: which row counts each serves, how long one row takes in runs of so many, how far
/// it is from the one that others were compared with. Below it, why the others were dropped.
pub(super) fn table(choice: &EngineChoice) -> String {
    let mut counts: Vec<usize> = choice.engines.iter().flat_map(|trial| &trial.times).map(|run| run.rows).collect();
    counts.sort_unstable();
    counts.dedup();
    let mut head = vec!["ENGINE".to_owned(), "SERVES".to_owned()];
    head.extend(counts.iter().map(|rows| if *rows == 1 { "1 ROW".to_owned() } else { format!("{rows} ROWS") }));
    head.extend(["DIFFERENCE", "MEMORY", "LOAD"].map(str::to_owned));
    let mut rows = vec![head];
    let tried = choice.engines.iter().filter(|trial| is_loaded(trial));
    rows.extend(tried.map(|trial| row(choice, trial, &counts)));
    let mut text = columns(&rows);
    if !counts.is_empty() && counts != [1] {
        text.push_str("times are of one row, in runs of so many\n");
    }
    for trial in &choice.engines {
        if let EngineOutcome::Dropped(reason) = &trial.outcome {
            let _ = writeln!(text, "{} does not serve: {reason}", trial.engine);
        }
    }
    text
}

fn row(choice: &EngineChoice, trial: &EngineTrial, counts: &[usize]) -> Vec<String> {
    let time = |rows: &usize| {
        let run = trial.times.iter().find(|run| run.rows == *rows);
        run.map_or_else(|| "-".to_owned(), |run| per_row(run.time, run.rows))
    };
    let difference = match &trial.difference {
        Some(found) if found.largest == 0.0 => "none".to_owned(),
        Some(found) => format!("{:.1e} of {:.3} in {}", found.largest, found.scale, found.output),
        None => "-".to_owned(),
    };
    let mut cells = vec![trial.engine.to_string(), serves(choice, &trial.engine)];
    cells.extend(counts.iter().map(time));
    cells.extend([difference, bytes(trial.memory_bytes), short(trial.load_time)]);
    cells
}

/// The row counts that `engine` serves: `all`, `1-7`, `8-`, `1-3 64-`, or `-` for none.
fn serves(choice: &EngineChoice, engine: &str) -> String {
    let ranges = &choice.ranges;
    if let [only] = ranges.as_slice() {
        return if *only.engine == *engine { "all" } else { "-" }.to_owned();
    }
    let part = |(index, range): (usize, &millrace_core::EngineRange)| {
        let end = ranges.get(index + 1).map(|next| next.rows_from - 1);
        (*range.engine == *engine).then(|| match end {
            Some(end) if end == range.rows_from => end.to_string(),
            Some(end) => format!("{}-{end}", range.rows_from),
            None => format!("{}-", range.rows_from),
        })
    };
    let parts: Vec<String> = ranges.iter().enumerate().filter_map(part).collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join(" ") }
}

/// One line for each version that several engines loaded, and one for each of these that was dropped. An engine that does
/// not load a model is nothing to report as long as another does.
pub(super) fn lines(models: &[ModelStatus]) -> Vec<String> {
    let mut lines = Vec::new();
    for (model, version) in models.iter().flat_map(|model| model.versions.iter().map(move |version| (model, version))) {
        let Some(choice) = chosen(version) else { continue };
        let when = if choice.is_remembered { ", measured before" } else { "" };
        let name = format!("{} version {}", model.name, version.version);
        lines.push(format!("{name}: {} ({}{when})", choice.names(), choice.reason));
        for trial in &choice.engines {
            if let EngineOutcome::Dropped(reason) = &trial.outcome
                && is_loaded(trial)
            {
                lines.push(format!("{name}: not by {}: {reason}", trial.engine));
            }
        }
    }
    lines
}

/// The choice of a version, where there was one.
fn chosen(version: &VersionStatus) -> Option<&EngineChoice> {
    version.choice.as_deref().filter(|choice| choice.engines.iter().filter(|trial| is_loaded(trial)).count() > 1)
}

/// Whether the engine loaded the model at all.
fn is_loaded(trial: &EngineTrial) -> bool {
    trial.load_time > Duration::ZERO
}

/// The time of one row in a run of `rows`.
pub(super) fn per_row(time: Duration, rows: usize) -> String {
    let rows = u32::try_from(rows.max(1)).unwrap_or(u32::MAX);
    seconds(time.as_secs_f64() / f64::from(rows))
}

/// A time with three digits.
pub(super) fn short(time: Duration) -> String {
    seconds(time.as_secs_f64())
}

fn seconds(seconds: f64) -> String {
    let (value, unit) = match seconds {
        _ if seconds < 1e-6 => (seconds * 1e9, "ns"),
        _ if seconds < 1e-3 => (seconds * 1e6, "µs"),
        _ if seconds < 1.0 => (seconds * 1e3, "ms"),
        _ => (seconds, "s"),
    };
    let digits = match value {
        _ if value < 10.0 => 2,
        _ if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millrace_core::{EngineChoice, EngineOutcome, EngineRange, EngineTrial, OutputDifference, RunTime};

    use super::{per_row, serves, short, table};

    fn trial(engine: &str, outcome: EngineOutcome, micros: [u64; 2], difference: Option<f64>) -> EngineTrial {
        let times = [1, 16].into_iter().zip(micros);
        let times = times.map(|(rows, time)| RunTime { rows, time: Duration::from_micros(time) }).collect();
        EngineTrial {
            engine: engine.into(),
            outcome,
            load_time: Duration::from_millis(12),
            memory_bytes: 1536,
            times,
            difference: difference.map(|largest| OutputDifference { output: "y".into(), largest, scale: 2.5 }),
        }
    }

    #[test]
    fn the_table_says_who_serves_what_how_fast_and_how_exactly() {
        let range = |rows_from, engine: &str| EngineRange { rows_from, engine: engine.into() };
        let mut failed = trial("onnxruntime", EngineOutcome::Dropped("no operator X".to_owned()), [1, 1], None);
        (failed.load_time, failed.times) = (Duration::ZERO, Vec::new());
        let choice = EngineChoice {
            ranges: vec![range(1, "trees"), range(4, "tract")],
            engines: vec![
                failed,
                trial("trees", EngineOutcome::Chosen, [2, 400], None),
                trial("tract", EngineOutcome::Chosen, [5, 80], Some(1.25e-7)),
            ],
            ..EngineChoice::default()
        };
        let expected = "\
ENGINE  SERVES  1 ROW    16 ROWS  DIFFERENCE             MEMORY   LOAD
trees   1-3     2.00 µs  25.0 µs  -                      1.5 KiB  12.0 ms
tract   4-      5.00 µs  5.00 µs  1.2e-7 of 2.500 in y   1.5 KiB  12.0 ms
times are of one row, in runs of so many
onnxruntime does not serve: no operator X
";
        let squeezed = |text: &str| text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        assert_eq!(squeezed(&table(&choice)), squeezed(expected));
    }

    #[test]
    fn row_counts_are_short() {
        let choice = |ranges: &[(usize, &str)]| EngineChoice {
            ranges: ranges
                .iter()
                .map(|(rows_from, engine)| EngineRange { rows_from: *rows_from, engine: (*engine).into() })
                .collect(),
            ..EngineChoice::default()
        };
        let three = choice(&[(1, "a"), (4, "b"), (5, "c"), (64, "a")]);
        assert_eq!(["a", "b", "c", "d"].map(|engine| serves(&three, engine)), ["1-3 64-", "4", "5-63", "-"]);
        assert_eq!(["a", "b"].map(|engine| serves(&choice(&[(1, "a")]), engine)), ["all", "-"]);
    }

    #[test]
    fn times_have_three_digits() {
        let texts = [400, 1_234, 56_700, 890_000_000, 1_500_000_000].map(|nanos| short(Duration::from_nanos(nanos)));
        assert_eq!(texts, ["400 ns", "1.23 µs", "56.7 µs", "890 ms", "1.50 s"]);
        assert_eq!(per_row(Duration::from_micros(64), 64), "1.00 µs");
    }
}
