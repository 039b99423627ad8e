//! Token ids in, a network's numbers out: the text routes as a codec of the common exchange.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use millrace_core::{
    InferResponse, Protocol, Reason, Refusal, Servable, Signature, TENSORS, Tensor, TextProcessor, Wanted,
};
use millrace_protocol::front::now;

use super::answer::{Outputs, write};
use super::failure::Dialect;
use super::prepare::Prepared;
use super::request::{Ask, Wish};
use crate::coding::Coding;
use crate::error::Failure;
use crate::exchange::{Codec, Question};
use crate::response::{self, Answer};

/// What text models call their outputs.
const SENTENCES: &str = "sentence_embedding";
/// The same before it is made one long, where the model does that.
const POOLED: &str = "pooled";
const TOKENS: &str = "last_hidden_state";
const LOGITS: &str = "logits";

/// Asks for one request and writes its answer. The body was read before: `decode` finds nothing left in it.
#[derive(Debug, Clone)]
pub(super) struct TextCodec<D> {
    ask: Arc<Ask>,
    prepared: Arc<Prepared>,
    text: Arc<dyn TextProcessor>,
    max_answer: usize,
    dialect: PhantomData<D>,
}

impl<D> TextCodec<D> {
    pub(super) fn new(ask: Arc<Ask>, prepared: Prepared, text: Arc<dyn TextProcessor>, max_answer: usize) -> Self {
        Self { ask, prepared: Arc::new(prepared), text, max_answer, dialect: PhantomData }
    }

    /// The output that answers the request, and whether its vectors are one long.
    fn output(&self, network: &Signature) -> Result<(usize, bool), &'static str> {
        let find = |name: &'static str| network.output_index(name).ok_or(name);
        match self.ask.wish {
            Wish::Vectors { normalize: false, .. } => match network.output_index(POOLED) {
                Some(pooled) => Ok((pooled, false)),
                None => Ok((find(SENTENCES)?, false)),
            },
            Wish::Vectors { .. } | Wish::Similarity => Ok((find(SENTENCES)?, network.output_index(POOLED).is_some())),
            Wish::TokenVectors => Ok((find(TOKENS)?, false)),
            Wish::Labels { .. } | Wish::Ranks { .. } => Ok((find(LOGITS)?, false)),
        }
    }

    /// Refuses what cannot be answered whatever the network says.
    fn check(&self, servable: &dyn Servable) -> Result<(), Refusal> {
        let width = self.text.facts().dimension;
        let (rows, lengths) = (self.prepared.lengths.len(), &self.prepared.lengths);
        let numbers = match self.ask.wish {
            Wish::Vectors { dimensions, .. } => {
                if let Some(dimensions) = dimensions.filter(|dimensions| width > 0 && *dimensions > width) {
                    let model = servable.model();
                    let text = format!(
                        "dimensions: model `{model}` gives {width} numbers; expected 1 to {width}, got {dimensions}"
                    );
                    return Err(Refusal::new(Reason::InvalidInput, text));
                }
                rows.saturating_mul(dimensions.unwrap_or(width))
            }
            // The network gives every row as long as the longest.
            Wish::TokenVectors => lengths.iter().copied().max().unwrap_or(0).saturating_mul(rows).saturating_mul(width),
            Wish::Similarity | Wish::Labels { .. } | Wish::Ranks { .. } => rows,
        };
        // No number takes less than `0.0,`.
        if numbers.saturating_mul(4) > self.max_answer {
            return Err(too_large(self.max_answer));
        }
        Ok(())
    }
}

/// What writing an answer needs to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Whether the output's vectors are one long.
    is_unit: bool,
}

impl<D: Dialect> Codec for TextCodec<D> {
    type Reply = Plan;

    const PROTOCOL: Protocol = Protocol::Text;

    fn coding(&self) -> Coding {
        Coding::Identity
    }

    fn decode(&self, servable: &dyn Servable, _body: &Bytes) -> Result<Question<Plan>, Refusal> {
        let broken =
            |what: &str| Refusal::new(Reason::BackendBroken, format!("model `{}` has no {what}", servable.model()));
        let (signature, network) =
            servable.signatures().find(TENSORS).ok_or_else(|| broken("signature that takes token ids"))?;
        let (output, is_unit) = self.output(network).map_err(|name| broken(&format!("output `{name}`")))?;
        self.check(servable)?;
        Ok(Question {
            signature,
            inputs: self.prepared.inputs.clone(),
            wanted: Wanted::Only([output].into_iter().collect()),
            priority: None,
            timeout: None,
            examples: self.prepared.lengths.len(),
            reply: Plan { is_unit },
        })
    }

    fn weight(&self, _reply: &Plan, outputs: &[Tensor]) -> usize {
        let texts: usize = match self.ask.wish {
            Wish::Ranks { return_text: true, .. } => self.prepared.n_chars,
            _ => 0,
        };
        outputs.iter().map(|output| output.n_bytes().saturating_mul(4)).fold(texts, usize::saturating_add)
    }

    fn encode(&self, servable: &dyn Servable, reply: &Plan, response: &InferResponse) -> Result<Answer, Refusal> {
        let broken = |text: String| Refusal::new(Reason::BackendBroken, format!("model `{}` {text}", servable.model()));
        let [output] = &*response.outputs else {
            return Err(broken(format!("gave {} outputs of 1 wanted", response.outputs.len())));
        };
        let rows = self.prepared.lengths.len();
        if output.shape().rows() != Some(rows) {
            return Err(broken(format!("gave {} for {rows} texts", output.shape())));
        }
        let numbers = output.elements::<f32>().map_err(|error| broken(format!("gave no FP32: {error}")))?;
        if numbers.iter().any(|number| !number.is_finite()) {
            let text = format!("model `{}` gave a number that is not finite", servable.model());
            return Err(Refusal::new(Reason::BackendFailed, text));
        }
        let outputs = Outputs {
            numbers: &numbers,
            sizes: output.shape(),
            lengths: &self.prepared.lengths,
            is_unit: reply.is_unit,
            facts: self.text.facts(),
            model: servable.model().as_str(),
            limit: self.max_answer,
        };
        let body = write(&self.ask, &outputs)?;
        let mut answer = response::json(StatusCode::OK, body);
        self.tell(answer.headers_mut(), response);
        Ok(answer)
    }

    fn failure(refusal: Refusal) -> Failure {
        D::failure(refusal)
    }
}

impl<D> TextCodec<D> {
    /// What text-embeddings-inference's answers say of themselves; times are whole milliseconds.
    fn tell(&self, headers: &mut HeaderMap, response: &InferResponse) {
        let stages = &response.stages;
        let begun = stages.queued.checked_sub(self.prepared.time).unwrap_or(stages.queued);
        let total = now().saturating_duration_since(begun).as_millis();
        let tokens: usize = self.prepared.lengths.iter().sum();
        for (name, value) in [
            ("x-compute-characters", self.prepared.n_chars as u128),
            ("x-compute-tokens", tokens as u128),
            ("x-compute-time", total),
            ("x-total-time", total),
            ("x-tokenization-time", self.prepared.time.as_millis()),
            ("x-queue-time", stages.queue().as_millis()),
            ("x-inference-time", stages.compute().as_millis()),
        ] {
            let value = HeaderValue::from(u64::try_from(value).unwrap_or(u64::MAX));
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// The refusal of an answer of more than `limit` bytes.
pub(super) fn too_large(limit: usize) -> Refusal {
    let text = format!("the answer is larger than the limit of {limit} bytes; ask for less at a time");
    Refusal::new(Reason::TooLarge, text)
}
