//! Rows of numbers in, rows of numbers out: the general endpoints' data as a codec of the common exchange.
//!
//! Both sides are lists of lists whatever the rank of the model's tensors: a row is flat, and a tensor of rank 1 has rows
//! of one number.

use bytes::Bytes;
use http::StatusCode;
use millrace_core::{
    DType, Dim, InferResponse, Protocol, Reason, Refusal, Servable, Signature, Tensor, TensorSpec, Wanted,
};
use millrace_json::{decode_value, encode_value_within};
use serde::Serialize;

use super::failure;
use crate::coding::Coding;
use crate::error::Failure;
use crate::exchange::{Codec, Question};
use crate::response::{self, Answer};
use crate::torchserve::changed;

/// Reads the data of one request, which stands alone, and writes its answer.
#[derive(Debug, Clone)]
pub(super) struct GeneralCodec {
    pub(super) batch_id: Option<String>,
    pub(super) max_depth: usize,
    pub(super) max_answer: usize,
}

/// What follows the predictions in an answer.
#[derive(Serialize)]
struct Tail<'a> {
    model_name: &'a str,
    model_version: String,
    inference_time_ms: f64,
    batch_id: Option<&'a str>,
}

impl Codec for GeneralCodec {
    /// The position of the output.
    type Reply = usize;

    const PROTOCOL: Protocol = Protocol::General;

    fn coding(&self) -> Coding {
        Coding::Identity
    }

    fn decode(&self, servable: &dyn Servable, body: &Bytes) -> Result<Question<usize>, Refusal> {
        let invalid = |text: String| {
            Refusal::new(Reason::InvalidInput, format!("input_data: model `{}`: {text}", servable.model()))
        };
        let signature = servable.signatures().get(0).ok_or_else(|| changed(servable))?;
        let [spec] = signature.inputs() else {
            let count = signature.inputs().len();
            return Err(invalid(format!("it has {count} inputs, rows of numbers are one; ask it by another protocol")));
        };
        let output = predictions(signature).ok_or_else(|| {
            let count = signature.outputs().len();
            invalid(format!("it has {count} outputs and not one of floats in rows; ask it by another protocol"))
        })?;
        if spec.dtype == DType::Bytes {
            return Err(invalid(format!("its input is {spec} and takes no numbers; ask it by another protocol")));
        }
        let rows = decode_value(body, spec, self.max_depth).map_err(|error| invalid(error.to_string()))?;
        let &[n_rows, width] = &**rows.shape() else {
            let (rank, shape) = (rows.shape().len(), rows.shape());
            return Err(invalid(format!("expected a list of lists of numbers, got rank {rank} {shape}")));
        };
        let input = match sizes(spec, n_rows, width) {
            Some(sizes) => rows.reshaped(&sizes).map_err(|error| invalid(error.to_string()))?,
            None => rows,
        };
        Ok(Question {
            signature: 0,
            inputs: [input].into_iter().collect(),
            wanted: Wanted::Only([output].into_iter().collect()),
            priority: None,
            timeout: None,
            examples: n_rows,
            reply: output,
        })
    }

    fn encode(&self, servable: &dyn Servable, reply: &usize, response: &InferResponse) -> Result<Answer, Refusal> {
        let signature = servable.signatures().get(0).ok_or_else(|| changed(servable))?;
        let spec = signature.outputs().get(*reply).ok_or_else(|| changed(servable))?;
        let [output] = &*response.outputs else {
            let (wanted, got) = (1, response.outputs.len());
            let text = format!("model `{}` gave {got} outputs of {wanted} wanted", servable.model());
            return Err(Refusal::new(Reason::BackendBroken, text));
        };
        let output = as_rows(output).map_err(|error| {
            let refusal = Refusal::new(Reason::BackendBroken, "an output has no rows");
            let cause: Box<dyn std::error::Error + Send + Sync> = error.into();
            refusal.with_cause(cause)
        })?;
        let elapsed = response.stages.finished.saturating_duration_since(response.stages.queued);
        let tail = Tail {
            model_name: servable.model().as_str(),
            model_version: servable.version().to_string(),
            inference_time_ms: elapsed.as_secs_f64() * 1e3,
            batch_id: self.batch_id.as_deref(),
        };
        let mut after = serde_json::to_vec(&tail).expect("strings and numbers always become JSON");
        // It goes on where the predictions end.
        after[0] = b',';
        let around = (&b"{\"predictions\":"[..], &*after);
        let body = encode_value_within(spec, &output, around, self.max_answer);
        Ok(response::json(StatusCode::OK, body.map_err(|error| error.refusal(servable.model()))?))
    }

    fn failure(refusal: Refusal) -> Failure {
        failure(refusal)
    }
}

/// The position of the output that predictions are: the only one, or the only one of floats. A classifier has its labels
/// beside its probabilities. Ragged outputs are none: their rows are not one for each row of the request.
pub(crate) fn predictions(signature: &Signature) -> Option<usize> {
    let outputs = signature.outputs();
    let is_float =
        |(_, spec): &(usize, &TensorSpec)| matches!(spec.dtype, DType::Fp32 | DType::Fp64) && spec.ragged_by.is_none();
    let mut floats = outputs.iter().enumerate().filter(is_float).map(|(position, _)| position);
    match outputs {
        [_] => Some(0),
        _ => floats.next().filter(|_| floats.next().is_none()),
    }
}

/// The sizes under which `spec` takes rows of `width` numbers, where they are other than those.
fn sizes(spec: &TensorSpec, n_rows: usize, width: usize) -> Option<Vec<usize>> {
    let (_, row) = spec.shape.split_first()?;
    if row.len() == 1 {
        return None;
    }
    let row: Vec<usize> = row
        .iter()
        .map(|dim| match dim {
            Dim::Fixed(size) => Some(*size),
            Dim::Symbol(_) | Dim::Expr(_) | Dim::Unknown => None,
        })
        .collect::<Option<_>>()?;
    let product = row.iter().try_fold(1_usize, |product, size| product.checked_mul(*size))?;
    (product == width).then(|| [n_rows].into_iter().chain(row).collect())
}

/// The same elements as rows.
fn as_rows(output: &Tensor) -> Result<Tensor, millrace_core::TensorError> {
    let shape = output.shape();
    if shape.len() == 2 {
        Ok(output.clone())
    } else {
        output.reshaped(&[shape.rows().unwrap_or(1), shape.row_elements()])
    }
}
