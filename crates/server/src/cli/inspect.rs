//! `millrace inspect`: what a model takes and gives, and what it is made of.

use std::fmt::Write as _;
use std::io;

use millrace_core::{Signature, Signatures};
use millrace_registry::ModelConfig;

use super::args::InspectArgs;
use super::sample::{Sample, sample_of};
use super::table::bytes;
use super::together::{self, Described, Together};
use super::{DONE, Failure, offline, say};
use crate::log::error_chain;
use crate::parts::built_in;

/// Runs the command.
pub(super) fn run(args: &InspectArgs) -> Result<i32, Failure> {
    let described = together::described(&args.path)?;
    match described {
        Some(described) if described.config.pipeline.is_some() => pipeline(args, &described),
        Some(described) => model(args, &described.config),
        None => model(args, &ModelConfig::default()),
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
fn pipeline(args: &InspectArgs, described: &Described) -> Result<i32, Failure> {
    let Together { name, version, .. } = together::load(described)?;
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

/// A model with its network.
fn model(args: &InspectArgs, config: &ModelConfig) -> Result<i32, Failure> {
    let loaded = offline::load(&args.path)?;
    let network = loaded.model.signature();
    let signatures =
        built_in().signatures(network.clone(), config).map_err(|error| Failure::failed(error_chain(&error)))?;
    if args.sample {
        return print_sample(&signatures, loaded.backend);
    }
    let facts = loaded.model.facts();
    let mut text = String::new();
    let _ = writeln!(text, "model     {}", loaded.name);
    let _ = writeln!(text, "version   {}", loaded.version);
    let _ = writeln!(text, "backend   {}", loaded.backend);
    if let Some(signature) = signatures.get(0) {
        write_signature(&mut text, signature);
    }
    for spec in network.inputs().iter().filter(|spec| config.inputs.contains_key(&*spec.name)) {
        let _ = writeln!(text, "network   {spec}");
    }
    let _ = writeln!(
        text,
        "batching  {}",
        if network.is_batched() { "rows of different requests share a run" } else { "never" }
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
