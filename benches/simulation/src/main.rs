//! Tables of batching rules under simulated load. `--quick` compares with what the engine could do at best instead of with
//! every fixed setting.

use std::io::{self, Write as _};

use millrace_simulation::{Cost, Outcome, Play, Process, Rule, closed_loop, play};

/// Load, as a share of what the engine could do at best within the goal.
const LOADS: [f64; 8] = [0.1, 0.3, 0.5, 0.7, 0.85, 1.0, 1.3, 2.0];
const SIZES: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
/// Shares of the goal that a batch may wait for company.
const WAITS: [f64; 6] = [0.0, 0.02, 0.05, 0.1, 0.2, 0.4];
/// Seconds that a load lasts, and how many requests it is cut off at.
const SECONDS: f64 = 20.0;
const REQUESTS: f64 = 100_000.0;

/// The rules beside ours: no batching, TF Serving as it comes and tuned, Triton without delay, BentoML, deferred scheduling.
const COLUMNS: &str =
    "no batching | TFS 1000, 1 ms | TFS 32, tenth of goal | Triton 128, 0 | BentoML 100 | deferred 256";

fn others(goal: f64) -> [Rule; 6] {
    [
        Rule::Triton { size: 1, delay: 0.0 },
        Rule::TfServing { size: 1000, timeout: 0.001 },
        Rule::TfServing { size: 32, timeout: goal * 0.1 },
        Rule::Triton { size: 128, delay: 0.0 },
        Rule::Bento { size: 100 },
        Rule::Deferred { size: 256 },
    ]
}

/// Answers are of use for eight times as long as a lone row takes, or for 5 ms.
fn goal(cost: &Cost) -> f64 {
    (8.0 * cost.plain(1)).max(0.005)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of requests")]
fn count(requests: f64) -> usize {
    requests.min(REQUESTS) as usize
}

fn best_fixed(given: &Play) -> (Outcome, Rule) {
    let all = SIZES.iter().flat_map(|&size| WAITS.map(|wait| Rule::Fixed { size, timeout: wait * given.goal }));
    let played = all.map(|rule| (play(given, rule), rule));
    played
        .max_by(|left, right| left.0.goodput.total_cmp(&right.0.goodput))
        .unwrap_or_else(|| (Outcome::default(), Rule::Auto))
}

fn main() -> io::Result<()> {
    let is_quick = std::env::args().any(|arg| arg == "--quick");
    let mut out = io::stdout().lock();
    for cost in Cost::all() {
        let goal = goal(&cost);
        let capacity = cost.capacity(goal / 2.0);
        writeln!(out, "\n## {}\n\nGoal {:.1} ms, at best {capacity:.0} rows/s.\n", cost.name, goal * 1e3)?;
        let columns = if is_quick { "of what is possible" } else { "best fixed | auto / best" };
        writeln!(out, "| arrivals | load | auto: in time | p99 ms | rows | {columns} | {COLUMNS} |")?;
        writeln!(out, "|{}", "---|".repeat(if is_quick { 12 } else { 13 }))?;
        for process in Process::ALL {
            for load in LOADS {
                let rate = load * capacity;
                let given = Play { cost, process, rate, count: count(rate * SECONDS), goal, seed: 11 };
                let auto = play(&given, Rule::Auto);
                let beside = if is_quick {
                    format!("{:.3}", auto.goodput / rate.min(capacity))
                } else {
                    let (best, rule) = best_fixed(&given);
                    format!("{:.3} ({rule}) | {:.3}", best.share, auto.goodput / best.goodput)
                };
                let others = others(goal).map(|rule| format!("{:.2}", play(&given, rule).share)).join(" | ");
                let (name, p99) = (process.name(), auto.p99 * 1e3);
                writeln!(
                    out,
                    "| {name} | {load} | {:.3} | {p99:.2} | {:.1} | {beside} | {others} |",
                    auto.share, auto.rows
                )?;
            }
        }
        let alone = closed_loop(cost, Rule::Auto, 1, 2000, goal);
        writeln!(out, "\nOne client waits {:.1} us for its runs.", alone.wait * 1e6)?;
    }
    Ok(())
}
