//! Tables of batching rules under simulated load, as Markdown.
//!
//! `--quick` plays millrace's own rule only, `--few` a few fixed settings beside it, `--sweep` all of them; without any of
//! these the rules of others are played as well. `--engine NAME` keeps to one engine, `--requests N` cuts each load off at so
//! many requests, `--draws N` plays each load with so many seeds and tells the median (1), `--seed N` is the first of them
//! (11), `--json FILE` writes the rows to a file too.

use std::io::{self, Write as _};

use millrace_simulation::{
    Cost, Effort, Fairness, LOADS, Overload, Process, Row, Rule, Urgency, closed_loop, json, markdown,
};

/// How many requests a load is cut off at.
const REQUESTS: usize = 20_000;

fn rows(cost: Cost, effort: Effort, most: usize, seeds: &[u64]) -> Vec<Row> {
    let cells: Vec<_> = Process::ALL.iter().flat_map(|&process| LOADS.map(|load| (process, load))).collect();
    std::thread::scope(|scope| {
        let play = |part: &[(Process, f64)]| -> Vec<Row> {
            part.iter().map(|&(process, load)| Row::typical(cost, process, load, most, seeds, effort)).collect()
        };
        let halves = cells.split_at(cells.len() / 2);
        let second = scope.spawn(move || play(halves.1));
        let mut rows = play(halves.0);
        rows.extend(second.join().unwrap_or_default());
        rows
    })
}

/// Priorities, fairness and overload, one line for each engine.
fn scenes(out: &mut impl io::Write, costs: &[Cost]) -> io::Result<()> {
    writeln!(
        out,
        "## Urgent requests beside bulk\n\n| engine | p99 alone, ms | beside bulk | one batch | beyond it | of what it can do |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    for &cost in costs {
        let scene = Urgency::play(cost, 4.0 * cost.plain(1));
        let [alone, beside, batch, excess] =
            [scene.alone, scene.beside, scene.batch, scene.excess()].map(|seconds| seconds * 1e3);
        writeln!(
            out,
            "| {} | {alone:.2} | {beside:.2} | {batch:.2} | {excess:.2} | {:.2} |",
            cost.name, scene.throughput
        )?;
    }
    writeln!(
        out,
        "\n## A modest caller beside a greedy one\n\n| engine | p99 before, ms | beside | one batch | ratio |"
    )?;
    writeln!(out, "|---|---|---|---|---|")?;
    for &cost in costs {
        let scene = Fairness::play(cost);
        let [before, beside, batch] = [scene.before, scene.beside, scene.batch].map(|seconds| seconds * 1e3);
        writeln!(out, "| {} | {before:.2} | {beside:.2} | {batch:.2} | {:.2} |", cost.name, scene.ratio())?;
    }
    writeln!(
        out,
        "\n## The same with nothing set\n\n| engine | p99 alone, ms | beside | best batch | ratio |\n|---|---|---|---|---|"
    )?;
    for &cost in costs {
        let scene = Fairness::play_unset(cost);
        let [before, beside, batch] = [scene.before, scene.beside, scene.batch].map(|seconds| seconds * 1e3);
        writeln!(out, "| {} | {before:.2} | {beside:.2} | {batch:.2} | {:.2} |", cost.name, scene.ratio())?;
    }
    writeln!(
        out,
        "\n## A second of too much\n\n| engine | times | goodput | p99 of deadline | given up | obeying | recovery, s |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|")?;
    for &cost in costs {
        for times in [2.0, 5.0, 10.0] {
            let Overload { goodput, p99, given_up, obeying, recovery } = Overload::play(cost, times);
            writeln!(
                out,
                "| {} | {times} | {goodput:.3} | {p99:.2} | {given_up:.3} | {obeying:.3} | {recovery:.1} |",
                cost.name
            )?;
        }
    }
    writeln!(out)
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let after = |flag: &str| arguments.iter().skip_while(|argument| *argument != flag).nth(1);
    let effort = if has("--quick") {
        Effort::Own
    } else if has("--few") {
        Effort::Few
    } else if has("--sweep") {
        Effort::Sweep
    } else {
        Effort::All
    };
    let most = after("--requests").and_then(|text| text.parse().ok()).unwrap_or(REQUESTS);
    let seed: u64 = after("--seed").and_then(|text| text.parse().ok()).unwrap_or(11);
    let draws: usize = after("--draws").and_then(|text| text.parse().ok()).unwrap_or(1).max(1);
    let seeds: Vec<u64> = (seed..).take(draws).collect();
    let engine = after("--engine");
    let costs: Vec<Cost> = Cost::all().into_iter().filter(|cost| engine.is_none_or(|name| cost.name == name)).collect();
    let mut out = io::stdout().lock();
    if !has("--loads") {
        // A tiny model's loads are millions of requests a second; one that changes has no one capacity.
        let is_fit = |cost: &Cost| cost.plain(1) > 1e-4 && cost.change.is_none();
        let slow: Vec<Cost> = costs.iter().copied().filter(is_fit).collect();
        scenes(&mut out, &slow)?;
    }
    let mut all = Vec::new();
    if !has("--scenes") {
        for cost in costs {
            let rows = rows(cost, effort, most, &seeds);
            writeln!(out, "{}", markdown(&rows))?;
            let alone = closed_loop(cost, Rule::Auto, 1, 2000, 1.0);
            writeln!(out, "One client waits {:.1} us for its runs.\n", alone.wait * 1e6)?;
            all.extend(rows);
        }
    }
    match after("--json") {
        Some(path) => std::fs::write(path, json(&all)),
        None => Ok(()),
    }
}
