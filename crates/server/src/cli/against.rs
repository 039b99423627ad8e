//! `millrace inspect MODEL --against OTHER`: what a model of reduced precision loses and gains.

use std::fmt::Write as _;
use std::io;

use millrace_backend_auto::{AutoConfig, against};

use super::engines::per_row;
use super::inspect::weights;
use super::offline::Loaded;
use super::table::{bytes, columns};
use super::{DONE, Failure, say};
use crate::parts::Choosing;

/// Prints the two side by side.
pub(super) fn print(model: &Loaded, original: &Loaded, choosing: &Choosing) -> Result<i32, Failure> {
    let config = AutoConfig { budget: choosing.engines.budget, ..AutoConfig::default() };
    let found = against(&model.model, &original.model, &config).map_err(Failure::failed)?;
    let mut text = String::new();
    for (label, loaded) in [("model", model), ("against", original)] {
        let backend = &loaded.backend;
        let _ = writeln!(text, "{label:<9} {} version {} by {backend}", loaded.name, loaded.version);
    }
    let cells = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
    let requests = found.requests;
    let _ =
        writeln!(text, "\n{requests} invented {} through both:", if requests == 1 { "request" } else { "requests" });
    let mut rows = vec![cells(&["OUTPUT", "RANGE", "LARGEST DIFFERENCE", "MEAN DIFFERENCE", "SAME ANSWER"])];
    for gap in &found.outputs {
        let (least, most) = gap.range;
        let width = most - least;
        let share = |difference: f64| {
            if width > 0.0 {
                format!("{difference:.2e} ({:.3} %)", difference / width * 100.0)
            } else {
                format!("{difference:.2e}")
            }
        };
        let agreement = gap.agreement.map_or_else(|| "-".to_owned(), |(rows, equal)| format!("{equal} of {rows}"));
        rows.push(vec![
            gap.output.to_string(),
            format!("{least:.3} to {most:.3}"),
            share(gap.largest),
            share(gap.mean),
            agreement,
        ]);
    }
    text.push_str(&columns(&rows));
    let facts = [model.model.facts(), original.model.facts()];
    let _ = writeln!(text);
    for (label, facts) in ["weights", "against"].into_iter().zip(&facts) {
        if let Some(line) = weights(facts) {
            let _ = writeln!(text, "{label:<9} {line}");
        }
    }
    let ratio = times_as(original.files, model.files, "as large", "smaller");
    let _ = writeln!(text, "files     {} against {}: {ratio}", bytes(model.files), bytes(original.files));
    let memory = [model, original].map(|loaded| bytes(loaded.model.memory_bytes()));
    let _ = writeln!(text, "memory    {} against {}", memory[0], memory[1]);
    let mut rows = vec![cells(&["ROWS", "TIME PER ROW", "AGAINST", ""])];
    for column in &found.times {
        rows.push(vec![
            column.rows.to_string(),
            per_row(column.model, column.rows),
            per_row(column.original, column.rows),
            times_as(nanos(column.original), nanos(column.model), "the time", "faster"),
        ]);
    }
    let _ = writeln!(text);
    text.push_str(&columns(&rows));
    say(&mut io::stdout(), text);
    Ok(DONE)
}

fn nanos(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// `3.98 times smaller`, or `1.20 times the time` where it is no gain.
fn times_as(other: u64, own: u64, loss: &str, gain: &str) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
    let ratio = other.max(1) as f64 / own.max(1) as f64;
    if ratio >= 1.0 { format!("{ratio:.2} times {gain}") } else { format!("{:.2} times {loss}", 1.0 / ratio) }
}

#[cfg(test)]
mod tests {
    use super::times_as;

    #[test]
    fn a_ratio_is_told_as_a_gain_or_a_loss() {
        assert_eq!(times_as(400, 100, "as large", "smaller"), "4.00 times smaller");
        assert_eq!(times_as(100, 120, "the time", "faster"), "1.20 times the time");
    }
}
