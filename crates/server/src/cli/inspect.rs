//! `millrace inspect`: what a model takes and gives, and what it is made of.

use std::fmt::Write as _;
use std::io;

use super::args::InspectArgs;
use super::sample::{Sample, sample};
use super::table::bytes;
use super::{DONE, Failure, offline, say};

/// Runs the command.
pub(super) fn run(args: &InspectArgs) -> Result<i32, Failure> {
    let loaded = offline::load(&args.path)?;
    let signature = loaded.model.signature();
    if args.sample {
        return match sample(signature) {
            Sample::Body(body, _) => {
                say(&mut io::stdout(), format_args!("{body}\n"));
                Ok(DONE)
            }
            Sample::NoJson(dtype) => Err(Failure::failed(format!("TensorFlow Serving's JSON has no form for {dtype}"))),
            Sample::NoSize => Err(Failure::failed("no request of a reasonable size fits this model")),
        };
    }
    let facts = loaded.model.facts();
    let mut text = String::new();
    let _ = writeln!(text, "model     {}", loaded.name);
    let _ = writeln!(text, "version   {}", loaded.version);
    let _ = writeln!(text, "backend   {}", loaded.backend);
    for (label, specs) in [("inputs", signature.inputs()), ("outputs", signature.outputs())] {
        for (index, spec) in specs.iter().enumerate() {
            let _ = writeln!(text, "{:<9} {spec}", if index == 0 { label } else { "" });
        }
    }
    let _ = writeln!(
        text,
        "batching  {}",
        if signature.is_batched() { "rows of different requests share a run" } else { "never" }
    );
    match (facts.nodes, facts.nodes_optimised) {
        (Some(nodes), Some(optimised)) => {
            let _ = writeln!(text, "nodes     {nodes} in the file, {optimised} after optimisation");
        }
        (Some(nodes), None) => {
            let _ = writeln!(text, "nodes     {nodes}");
        }
        (None, _) => {}
    }
    if let Some(weights) = facts.weight_bytes {
        let _ = writeln!(text, "weights   {}", bytes(weights));
    }
    let _ = writeln!(text, "memory    {}", bytes(loaded.model.memory_bytes()));
    if !facts.operators.is_empty() {
        let operators: Vec<String> = facts.operators.iter().map(|(name, count)| format!("{name} ×{count}")).collect();
        let _ = writeln!(text, "operators {}", operators.join(", "));
    }
    for (name, value) in &facts.properties {
        // Names and values stand in the file: foreign text.
        let _ = writeln!(text, "{:<9} {}", name.escape_debug(), value.escape_debug());
    }
    say(&mut io::stdout(), text);
    Ok(DONE)
}
