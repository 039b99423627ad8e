//! `Predict`, as a codec of the common exchange.

use std::sync::Arc;

use bytes::Bytes;
use millrace_core::{
    InferResponse, InputError, Protocol, Reason, Refusal, RequestContext, Resolver, Servable, Signature, Tensor,
    TensorList, Wanted,
};
use millrace_protocol::tfs::{ModelSpec, check_inputs, output_filter, predict_signature, resolve};
use smallvec::SmallVec;

use super::failure;
use super::read::tensor;
use super::request::Predict;
use super::write::{Answer, NumberForm, Output, weight};
use crate::exchange::{Codec, Question, Room, Unread, examples};
use crate::failure::Failure;
use crate::reply::Reply;

/// Reads and writes predict messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct PredictCodec {
    /// How numbers of answers are written.
    pub(super) form: NumberForm,
}

/// What the answer needs to know of the request.
#[derive(Debug)]
pub(super) struct Asked {
    signature: usize,
    wanted: Wanted,
}

impl Codec for PredictCodec {
    type Reply = Asked;

    const PROTOCOL: Protocol = Protocol::TfsGrpc;

    /// The specification of the model.
    const NAMING: u32 = 1;

    fn resolve(
        &self,
        message: &Bytes,
        resolver: &dyn Resolver,
        context: &RequestContext,
    ) -> Result<Arc<dyn Servable>, Failure> {
        let request = Predict::read(message).map_err(|error| failure(error.refusal()))?;
        let model = ModelSpec::model(request.spec.as_ref())?;
        Ok(resolve(resolver, &model, context)?)
    }

    fn decode(&self, servable: &dyn Servable, message: &Bytes, room: &mut Room<'_>) -> Result<Question<Asked>, Unread> {
        let request = Predict::read(message).map_err(|error| failure(error.refusal()))?;
        let name = request.spec.map_or("", |spec| spec.signature);
        let (index, signature) = predict_signature(servable, name).map_err(Failure::from)?;
        let names: SmallVec<[&str; 4]> = request.inputs.iter().map(|(name, _)| *name).collect();
        check_inputs(signature, &names).map_err(failure)?;
        let inputs = inputs(servable, signature, message, &request, room)?;
        let wanted = output_filter(signature, request.filter.iter().copied()).map_err(failure)?;
        let examples = examples(signature, &inputs);
        let reply = Asked { signature: index, wanted: wanted.clone() };
        Ok(Question { signature: index, inputs, wanted, examples, reply })
    }

    fn weight(&self, outputs: &[Tensor]) -> usize {
        outputs.iter().map(|tensor| weight(tensor, self.form)).fold(0, usize::saturating_add)
    }

    fn encode(&self, servable: &dyn Servable, asked: &Asked, response: &InferResponse) -> Result<Reply, Refusal> {
        let broken = |what: &str| Refusal::new(Reason::BackendBroken, format!("model `{}` {what}", servable.model()));
        let (name, signature) =
            servable.signatures().iter().nth(asked.signature).ok_or_else(|| broken("changed its signatures"))?;
        let specs = signature.outputs();
        let names: SmallVec<[&str; 4]> = match &asked.wanted {
            Wanted::All => specs.iter().map(|spec| &*spec.name).collect(),
            Wanted::Only(indices) => {
                indices.iter().filter_map(|index| specs.get(*index)).map(|spec| &*spec.name).collect()
            }
        };
        if names.len() != response.outputs.len() {
            return Err(broken("gave another number of outputs than were asked for"));
        }
        let output = |(name, tensor)| Output::new(name, tensor, self.form);
        let outputs = names.iter().copied().zip(&response.outputs).map(output).collect();
        let (model, version) = (servable.model().as_str(), servable.version());
        Answer { model, version, signature: name, outputs }.write()
    }

    fn failure(refusal: Refusal) -> Failure {
        failure(refusal)
    }
}

/// The inputs in the order of the signature, whose names they have.
fn inputs(
    servable: &dyn Servable,
    signature: &Signature,
    message: &Bytes,
    request: &Predict<'_>,
    room: &mut Room<'_>,
) -> Result<TensorList, Unread> {
    let invalid = |error: &InputError| Unread::from(failure(error.refusal(servable.model())));
    let mut tensors = TensorList::new();
    for spec in signature.inputs() {
        let mut given = request.inputs.iter().filter(|(name, _)| *name == &*spec.name);
        let Some((_, proto)) = given.next() else {
            return Err(invalid(&InputError::Missing { input: Arc::clone(&spec.name) }));
        };
        // The map that this is on the wire could hold it twice; no client's does.
        if given.next().is_some() {
            return Err(invalid(&InputError::Duplicate { input: Arc::clone(&spec.name) }));
        }
        tensors.push(tensor(message, proto, spec, room)?);
    }
    Ok(tensors)
}
