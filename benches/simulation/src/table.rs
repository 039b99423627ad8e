//! One load under every rule, and the tables of many loads.

use std::fmt::Write as _;

use crate::{Cost, Outcome, Play, Process, Rule, play};

/// Load, as a share of what the engine could do at best within the goal.
pub const LOADS: [f64; 8] = [0.1, 0.3, 0.5, 0.7, 0.85, 1.0, 1.3, 2.0];
/// Rows in a batch that the sweep tries.
const SIZES: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
/// Shares of the goal that a batch may wait for company, as the sweep tries them.
const WAITS: [f64; 6] = [0.0, 0.02, 0.05, 0.1, 0.2, 0.4];
/// Some of both, for a quick look.
const FEW_SIZES: [usize; 4] = [4, 16, 64, 256];
const FEW_WAITS: [f64; 3] = [0.0, 0.1, 0.4];
/// Seconds that a load lasts.
const SECONDS: f64 = 20.0;

/// The names of the rules of others, in their order.
pub const PEERS: [&str; 5] = ["no batching", "TFS 1000, 1 ms", "Triton 128, 0", "BentoML 100", "deferred 256"];

/// Rules of others, as they come.
fn peers() -> [Rule; 5] {
    [
        Rule::Queue { size: 1, delay: 0.0 },
        Rule::Queue { size: 1000, delay: 0.001 },
        Rule::Queue { size: 128, delay: 0.0 },
        Rule::Bento { size: 100 },
        Rule::Deferred { size: 256 },
    ]
}

/// How much is tried at each load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Only millrace's own rule.
    Own,
    /// A few fixed settings as well.
    Few,
    /// The sweep of fixed settings as well.
    Sweep,
    /// All rules of others too, those with settings in a sweep of their own.
    All,
}

/// What came of one load.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The load.
    pub given: Play,
    /// The load as a share of what the engine could do at best.
    pub load: f64,
    /// millrace's own rule.
    pub auto: Outcome,
    /// The fixed setting of millrace's queue with the most answers in time.
    pub fixed: Option<(Rule, Outcome)>,
    /// The same of a queue that neither refuses nor drops: TensorFlow Serving's and Triton's with the best settings.
    pub tuned: Option<(Rule, Outcome)>,
    /// The shares of answers in time of [`PEERS`].
    pub peers: Vec<f64>,
    /// [`Row::ratio`] of every draw, ascending.
    pub ratios: Vec<f64>,
}

impl Row {
    /// The draw with the median [`Row::ratio`] of those with `seeds`, each with the fixed setting that was best in it: an
    /// overload goes on in one of two ways, and which is often luck. The rules of others are played in that draw only.
    pub fn typical(cost: Cost, process: Process, load: f64, most: usize, seeds: &[u64], effort: Effort) -> Self {
        let own = if effort == Effort::All { Effort::Sweep } else { effort };
        let mut rows: Vec<_> = seeds.iter().map(|&seed| Self::play(cost, process, load, most, seed, own)).collect();
        rows.sort_by(|left, right| left.ratio().total_cmp(&right.ratio()));
        let ratios: Vec<f64> = rows.iter().map(Self::ratio).collect();
        let median = rows.swap_remove((rows.len() - 1) / 2);
        let others = if effort == Effort::All { median.others() } else { (None, Vec::new()) };
        Self { tuned: others.0, peers: others.1, ratios, ..median }
    }

    /// Plays `process` at `load` on `cost`, cut off at `most` requests, with the numbers of `seed`.
    pub fn play(cost: Cost, process: Process, load: f64, most: usize, seed: u64, effort: Effort) -> Self {
        let given = Play { seed, ..Play::at_load(cost, process, load, SECONDS, most) };
        let is_few = effort == Effort::Few;
        let (sizes, waits) = if is_few { (&FEW_SIZES[..], &FEW_WAITS[..]) } else { (&SIZES[..], &WAITS[..]) };
        let fixed = match effort {
            Effort::Own => None,
            _ => best(&given, sizes, waits, |size, timeout| Rule::Fixed { size, timeout }),
        };
        let auto = play(&given, Rule::Auto);
        let mut row = Self { given, load, auto, fixed, tuned: None, peers: Vec::new(), ratios: Vec::new() };
        if effort == Effort::All {
            (row.tuned, row.peers) = row.others();
        }
        row.ratios = vec![row.ratio()];
        row
    }

    /// What the rules of others make of the same load.
    fn others(&self) -> (Option<(Rule, Outcome)>, Vec<f64>) {
        let tuned = best(&self.given, &SIZES, &WAITS, |size, delay| Rule::Queue { size, delay });
        (tuned, peers().map(|rule| play(&self.given, rule).share).to_vec())
    }

    /// What the row is judged by: answers in time against the best fixed setting where one was sought, or else against the
    /// engine.
    pub fn ratio(&self) -> f64 {
        self.against_fixed().unwrap_or_else(|| self.against_engine())
    }

    /// Answers in time as a share of those of the best fixed setting.
    pub fn against_fixed(&self) -> Option<f64> {
        self.fixed.map(|(_, best)| if best.goodput > 0.0 { self.auto.goodput / best.goodput } else { 1.0 })
    }

    /// Answers in time as a share of those that were asked for and could be given by an engine that runs batches of half of
    /// the goal one after the other.
    pub fn against_engine(&self) -> f64 {
        self.auto.goodput / self.given.rate.min(self.given.cost.capacity(self.given.goal / 2.0))
    }
}

/// The setting of `rule` with the most answers in time.
fn best(given: &Play, sizes: &[usize], waits: &[f64], rule: fn(usize, f64) -> Rule) -> Option<(Rule, Outcome)> {
    let settings = sizes.iter().flat_map(|&size| waits.iter().map(move |wait| (size, wait * given.goal)));
    let played = settings.map(|(size, wait)| (rule(size, wait), play(given, rule(size, wait))));
    played.max_by(|left, right| left.1.goodput.total_cmp(&right.1.goodput))
}

/// The rows of one engine as a Markdown table.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = String::new();
    let Some(first) = rows.first() else { return text };
    let Play { cost, goal, .. } = first.given;
    let capacity = cost.capacity(goal / 2.0);
    // Writing to a string does not fail.
    let _ = writeln!(text, "## {}\n\nGoal {:.1} ms, at best {capacity:.0} rows/s.\n", cost.name, goal * 1e3);
    let mut head = vec!["arrivals", "load", "auto: in time", "p99 ms", "rows"];
    if first.fixed.is_some() {
        head.extend(["best fixed", "auto / best"]);
    } else {
        head.push("of the engine");
    }
    if first.tuned.is_some() {
        head.push("TFS, Triton tuned");
        head.extend(PEERS);
    }
    let _ = writeln!(text, "| {} |\n|{}", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        let Outcome { share, p99, rows, .. } = row.auto;
        let mut cells = vec![
            row.given.process.name().to_owned(),
            row.load.to_string(),
            format!("{share:.3}"),
            format!("{:.2}", p99 * 1e3),
            format!("{rows:.1}"),
        ];
        match (row.fixed, row.against_fixed()) {
            (Some((rule, best)), Some(ratio)) => {
                cells.extend([format!("{:.3} ({rule})", best.share), format!("{ratio:.3}")]);
            }
            _ => cells.push(format!("{:.3}", row.against_engine())),
        }
        if let Some((rule, best)) = row.tuned {
            cells.push(format!("{:.2} ({rule})", best.share));
            cells.extend(row.peers.iter().map(|share| format!("{share:.2}")));
        }
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

/// All rows as JSON: of each engine its name, its goal and what it could do at best, and of each load the shares of requests
/// answered in time.
pub fn json(rows: &[Row]) -> String {
    let mut engines: Vec<String> = Vec::new();
    for rows in rows.chunk_by(|left, right| left.given.cost.name == right.given.cost.name) {
        let Play { cost, goal, .. } = rows[0].given;
        let lines: Vec<String> = rows.iter().map(json_row).collect();
        engines.push(format!(
            "{{\"engine\":\"{}\",\"goal_ms\":{:.3},\"rows_per_second\":{:.0},\"loads\":[\n{}\n]}}",
            cost.name,
            goal * 1e3,
            cost.capacity(goal / 2.0),
            lines.join(",\n")
        ));
    }
    format!("[\n{}\n]\n", engines.join(",\n"))
}

fn json_row(row: &Row) -> String {
    let Outcome { share, refused, late, p99, rows, .. } = row.auto;
    let mut fields = vec![
        format!("\"arrivals\":\"{}\",\"load\":{}", row.given.process.name(), row.load),
        format!("\"auto\":{share:.4},\"refused\":{refused:.4},\"late\":{late:.4}"),
        format!("\"p99_ms\":{:.3},\"rows\":{rows:.1}", p99 * 1e3),
    ];
    if let (Some((rule, best)), Some(ratio)) = (row.fixed, row.against_fixed()) {
        fields.push(format!("\"fixed\":{:.4},\"setting\":\"{rule}\",\"ratio\":{ratio:.4}", best.share));
        let all: Vec<String> = row.ratios.iter().map(|ratio| format!("{ratio:.4}")).collect();
        fields.push(format!("\"ratios\":[{}]", all.join(",")));
    }
    if let Some((rule, best)) = row.tuned {
        fields.push(format!("\"tuned\":{:.4},\"tuned_setting\":\"{rule}\"", best.share));
        let peers = PEERS.iter().zip(&row.peers).map(|(name, share)| format!("\"{name}\":{share:.3}"));
        fields.push(format!("\"peers\":{{{}}}", peers.collect::<Vec<_>>().join(",")));
    }
    format!("{{{}}}", fields.join(","))
}
