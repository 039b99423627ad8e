//! Cases in TorchServe's words: a JSON body, and the same body in a gRPC field.

use std::collections::HashMap;

use millrace_core::Tensor;
use millrace_proto::org::pytorch::serve::grpc::inference::{PredictionResponse, PredictionsRequest};
use millrace_testkit::Case;
use serde_json::{Value, json};

use super::{Asker, Outputs, no_half, tfs};
use crate::support::Client;
use crate::support::json::{self, Text};

/// What our JSON carries.
pub(super) fn has_json(case: &Case) -> bool {
    no_half(case) && tfs::has_json(case)
}

/// A nested list for a single input, an object of them for several.
fn body(case: &Case) -> String {
    let write = |tensor: &Tensor| json::nested(tensor, Text::Base64);
    match &case.inputs[..] {
        [(_, tensor)] => write(tensor),
        several => {
            let inputs = several.iter().map(|(name, tensor)| format!("{}: {}", json!(name), write(tensor)));
            format!("{{{}}}", inputs.collect::<Vec<_>>().join(", "))
        }
    }
}

fn read(case: &Case, answer: &Value) -> Outputs {
    let single = case.outputs.len() == 1;
    let value = |name: &str| if single { answer } else { &answer[name] };
    case.outputs.iter().map(|(name, want)| (name.clone(), json::tensor(value(name), want))).collect()
}

pub(super) fn rest(asker: &mut Asker, case: &Case) -> Outputs {
    let path = format!("/predictions/{}/{}", case.model, case.version);
    asker.http.send(Client::request("POST", &path, "content-type: application/json\r\n", body(case).as_bytes()));
    let reply = asker.http.reply();
    assert_eq!(reply.status, 200, "{}: {}", case.model, reply.text());
    read(case, &json::parse(&reply.text()))
}

pub(super) fn grpc(asker: &mut Asker, case: &Case) -> Outputs {
    let request = PredictionsRequest {
        model_name: case.model.clone(),
        model_version: case.version.to_string(),
        input: HashMap::from([("data".to_owned(), body(case).into())]),
        ..Default::default()
    };
    let path = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions";
    let answer: PredictionResponse = asker.grpc.ask(path, &request).ok();
    read(case, &json::parse(std::str::from_utf8(&answer.prediction).expect("JSON is UTF-8")))
}
