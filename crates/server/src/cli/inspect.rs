//! `millrace inspect`: what a model takes and gives, and what it is made of.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use millrace_core::{ModelFacts, Signature, Signatures, TENSORS, TextFacts, Truncation};

use super::args::InspectArgs;
use super::sample::{Sample, sample_of};
use super::table::bytes;
use super::together::{self, Described, Together};
use super::{DONE, Failure, against, engines, offline, say};
use crate::config::engines::EnginesConfig;
use crate::parts::Choosing;

/// Runs the command.
pub(super) fn run(args: &InspectArgs, engines: &EnginesConfig) -> Result<i32, Failure> {
    let choosing = Choosing { times_alone: !args.sample, ..Choosing::afresh(engines) };
    let described = together::described(&args.path)?;
    match described {
        Some(described) if described.config.pipeline.is_some() => pipeline(args, &described, &choosing),
        _ => model(args, &choosing),
    }
}

/// Prints a request, where there is one.
fn print_sample(signatures: &Signatures, maker: &str) -> Result<i32, Failure> {
    match sample_of(signatures, Some(maker)) {
        Some(Sample::Body(body, _)) => {
            say(&mut io::stdout(), format_args!("{body}\n"));
            Ok(DONE)
        }
        Some(Sample::NoJson(dtype)) => {
            Err(Failure::failed(format!("TensorFlow Serving's JSON has no form for {dtype}")))
        }
        Some(Sample::NoSize) | None => Err(Failure::failed("no request of a reasonable size fits this model")),
    }
}

/// A pipeline, which loads with all that it asks.
fn pipeline(args: &InspectArgs, described: &Described, choosing: &Choosing) -> Result<i32, Failure> {
    if args.against.is_some() || args.backend.is_some() {
        return Err(Failure::misused("a pipeline has no engine of its own; inspect the models that it asks"));
    }
    let Together { name, version, .. } = together::load(described, choosing)?;
    let maker = version.backend.as_deref().unwrap_or_default();
    let signatures = version.signatures.as_ref().ok_or_else(|| Failure::failed("the pipeline has no signature"))?;
    if args.sample {
        return print_sample(signatures, maker);
    }
    let mut text = String::new();
    let _ = writeln!(text, "model     {name}");
    let _ = writeln!(text, "version   {}", version.version);
    let _ = writeln!(text, "pipeline  {maker}");
    let models = described.config.pipeline.iter().flat_map(|pipeline| &pipeline.models);
    for (index, (role, model)) in models.enumerate() {
        let _ = writeln!(text, "{:<9} {role} = {model}", if index == 0 { "models" } else { "" });
    }
    for (option, value) in &described.config.options {
        let _ = writeln!(text, "option    {} = {}", option.escape_debug(), value.escape_debug());
    }
    for (_, signature) in signatures.iter() {
        write_signature(&mut text, signature);
    }
    let _ = writeln!(text, "batching  in the queues of its models");
    say(&mut io::stdout(), text);
    Ok(DONE)
}

/// Inputs and outputs, a line each.
fn write_signature(text: &mut String, signature: &Signature) {
    for (label, specs) in [("inputs", signature.inputs()), ("outputs", signature.outputs())] {
        for (index, spec) in specs.iter().enumerate() {
            let _ = writeln!(text, "{:<9} {spec}", if index == 0 { label } else { "" });
        }
    }
}

/// What is known about a text model beside its inputs and outputs.
fn write_text_facts(text: &mut String, facts: &TextFacts) {
    let mut about = vec![format!("{} by {}", facts.task.name(), facts.model_type.escape_debug())];
    if !facts.pooling.is_empty() {
        about.push(format!("{} of {} numbers", facts.pooling.escape_debug(), facts.dimension));
    }
    let longer = match facts.truncation {
        Truncation::Refuse => "longer ones are refused",
        Truncation::Right => "the end of longer ones is cut off",
        Truncation::Left => "the beginning of longer ones is cut off",
    };
    about.push(format!("at most {} tokens: {longer}", facts.max_tokens));
    let _ = writeln!(text, "text      {}", about.join(", "));
    if !facts.labels.is_empty() {
        // They stand in the files: foreign text.
        let labels: Vec<String> = facts.labels.iter().map(|label| label.escape_debug().to_string()).collect();
        let how = if facts.is_multi_label { "each by itself" } else { "one of them" };
        let _ = writeln!(text, "labels    {} ({how})", labels.join(", "));
    }
    for (name, prompt) in &facts.prompts {
        let default = if facts.default_prompt.as_ref() == Some(name) { " (where none is asked for)" } else { "" };
        let _ = writeln!(text, "prompt    {} = \"{}\"{default}", name.escape_debug(), prompt.escape_debug());
    }
}

/// A model with its network.
fn model(args: &InspectArgs, choosing: &Choosing) -> Result<i32, Failure> {
    let load = |path: &Path| offline::load_with(path, choosing, args.backend.as_deref());
    let loaded = load(&args.path)?;
    if let Some(other) = &args.against {
        return against::print(&loaded, &load(other)?, choosing);
    }
    let (network, signatures) = (loaded.model.signature(), &loaded.signatures);
    if args.sample {
        return print_sample(signatures, &loaded.backend);
    }
    let facts = loaded.model.facts();
    let mut text = String::new();
    let _ = writeln!(text, "model     {}", loaded.name);
    let _ = writeln!(text, "version   {}", loaded.version);
    let _ = writeln!(text, "backend   {}", loaded.backend);
    if let Some(signature) = signatures.get(0) {
        write_signature(&mut text, signature);
    }
    if let Some(processor) = &loaded.text {
        write_text_facts(&mut text, processor.facts());
    }
    // What callers need not know and who tunes wants to.
    for spec in network.inputs().iter().filter(|_| signatures.find(TENSORS).is_some()) {
        if signatures.get(0).is_some_and(|given| !given.inputs().contains(spec)) {
            let _ = writeln!(text, "network   {spec}");
        }
    }
    let _ = writeln!(
        text,
        "batching  {}",
        match (network.is_batched(), network.is_mixed()) {
            (true, true) => "rows of different requests share a run, whatever their lengths",
            (true, false) => "rows of different requests share a run",
            (false, _) => "never",
        }
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
    if let Some(weights) = weights(&facts) {
        let _ = writeln!(text, "weights   {weights}");
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
    if let Some(choice) = &facts.choice {
        let _ = writeln!(text, "chosen    {}: {}", choice.names(), choice.reason);
        let _ = write!(text, "\n{}", engines::table(choice));
    }
    say(&mut io::stdout(), text);
    Ok(DONE)
}

/// The weights in all and by their types: `4.1 MiB (FP16 4.0 MiB, FP32 100.0 KiB)`.
pub(super) fn weights(facts: &ModelFacts) -> Option<String> {
    let mut types: Vec<(&String, &u64)> = facts.weight_types.iter().filter(|(_, size)| **size > 0).collect();
    types.sort_by(|one, other| other.1.cmp(one.1).then(one.0.cmp(other.0)));
    let all = facts.weight_bytes.or_else(|| (!types.is_empty()).then(|| types.iter().map(|(_, size)| **size).sum()))?;
    let parts: Vec<String> = types.iter().map(|(name, size)| format!("{name} {}", bytes(**size))).collect();
    Some(if parts.is_empty() { bytes(all) } else { format!("{} ({})", bytes(all), parts.join(", ")) })
}
