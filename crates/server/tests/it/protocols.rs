//! Every golden case through every protocol: the cases are neutral, and so must be the answers.
//!
//! Where a protocol carries bits, its answer has the bits that every other such protocol gives; where it carries JSON,
//! it is within the case's tolerance. How a case is put into a protocol's words is in the folder beside this file.

mod general;
mod oip;
mod tfs;
mod torchserve;

use std::collections::BTreeMap;

use millrace_batching::Sizes;
use millrace_core::{DType, Tensor};
use millrace_testkit::Case;

use crate::support::{Client, Grpc, TestServer};

/// The outputs of one answer, by name.
type Outputs = Vec<(String, Tensor)>;

/// The two connections that the questions go over.
#[derive(Debug)]
struct Asker {
    http: Client,
    grpc: Grpc,
}

/// One way to ask.
struct Protocol {
    name: &'static str,
    /// Its answers must have equal bits.
    is_exact: bool,
    /// Whether the protocol has a form for the case at all.
    carries: fn(&Case) -> bool,
    ask: fn(&mut Asker, &Case) -> Outputs,
}

const fn json(name: &'static str, carries: fn(&Case) -> bool, ask: fn(&mut Asker, &Case) -> Outputs) -> Protocol {
    Protocol { name, is_exact: false, carries, ask }
}

const fn exact(name: &'static str, carries: fn(&Case) -> bool, ask: fn(&mut Asker, &Case) -> Outputs) -> Protocol {
    Protocol { name, is_exact: true, carries, ask }
}

const PROTOCOLS: &[Protocol] = &[
    exact("OIP gRPC, raw", anything, oip::grpc_raw),
    exact("OIP gRPC, typed", no_half, oip::grpc_typed),
    exact("OIP gRPC, stream", anything, oip::grpc_stream),
    exact("OIP REST, binary", anything, oip::rest_binary),
    exact("OIP REST, nothing but the tensor", oip::is_bare, oip::rest_bare),
    exact("TFS gRPC, typed", anything, tfs::grpc_typed),
    exact("TFS gRPC, content", no_text, tfs::grpc_content),
    json("OIP REST, JSON", no_half, oip::rest_json),
    json("OIP REST, nested JSON", no_half, oip::rest_nested),
    json("TFS REST, columns", tfs::has_json, tfs::rest_columns),
    json("TFS REST, rows", tfs::has_rows, tfs::rest_rows),
    json("CloudEvents", tfs::has_json, tfs::cloud_event),
    json("TorchServe REST", torchserve::has_json, torchserve::rest),
    json("TorchServe gRPC", torchserve::has_json, torchserve::grpc),
    json("general endpoint", general::is_table, general::predict),
];

fn anything(_: &Case) -> bool {
    true
}

fn has(case: &Case, dtypes: &[DType]) -> bool {
    case.inputs.iter().chain(&case.outputs).any(|(_, tensor)| dtypes.contains(&tensor.dtype()))
}

fn no_half(case: &Case) -> bool {
    !has(case, &[DType::Fp16, DType::Bf16])
}

fn no_text(case: &Case) -> bool {
    !has(case, &[DType::Bytes])
}

#[test]
fn every_case_gets_the_same_answer_by_every_protocol() {
    // Engines may round differently for another batch size, so that equal bits can only be asked of equal runs: each
    // request runs alone, and none is padded to a size that was prepared meanwhile.
    let server = TestServer::fixtures_with(|config| {
        config.registry.batching.enabled = false;
        config.registry.batching.sizes = Sizes::Preferred(Vec::new());
    });
    let mut asked = BTreeMap::<&str, usize>::new();
    for case in Case::models() {
        for protocol in ask_by_every_protocol(&server, &case) {
            *asked.entry(protocol).or_default() += 1;
        }
    }
    for protocol in PROTOCOLS {
        let count = asked.get(protocol.name).copied().unwrap_or(0);
        let least = if protocol.name == "general endpoint" { 5 } else { 20 };
        assert!(count >= least, "{} was asked {count} times", protocol.name);
    }
}

/// Asks `case` by every protocol that has a form for it, checks the answers, and gives the protocols' names.
pub(crate) fn ask_by_every_protocol(server: &TestServer, case: &Case) -> Vec<&'static str> {
    let mut asker = Asker { http: server.client(), grpc: Grpc::connect(server.address()) };
    let what = format!("{} {}", case.model, case.version);
    let mut ask = |protocol: &Protocol| {
        let mut outputs = (protocol.ask)(&mut asker, case);
        outputs.sort_by(|(left, _), (right, _)| left.cmp(right));
        assert_eq!(outputs.len(), case.outputs.len(), "{what} by {}", protocol.name);
        case.check(outputs.iter().map(|(name, tensor)| (name.as_str(), tensor)));
        outputs
    };
    let mut bits: Option<(&Protocol, Outputs)> = None;
    let mut asked = Vec::new();
    for protocol in PROTOCOLS.iter().filter(|protocol| (protocol.carries)(case)) {
        let outputs = ask(protocol);
        asked.push(protocol.name);
        if protocol.is_exact {
            let (first, same) = bits.get_or_insert_with(|| (protocol, outputs.clone()));
            if *same != outputs {
                // The engine may have made a plan for these very sizes meanwhile, which rounds the last bit in another way.
                *same = ask(first);
            }
            assert!(*same == outputs, "{what}: {} does not say what {} says", protocol.name, first.name);
        }
    }
    asked
}
