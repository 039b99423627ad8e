//! The repository's index, and orders to load and unload.

use std::sync::Arc;

use millrace_core::{Control, Reason, Refusal};
use millrace_proto::inference::model_repository_parameter::ParameterChoice;
use millrace_proto::inference::repository_index_response::ModelIndex;
use millrace_proto::inference::{
    RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest, RepositoryModelLoadResponse,
    RepositoryModelUnloadRequest, RepositoryModelUnloadResponse,
};
use millrace_protocol::oip;

use super::{Answered, failure};
use crate::call::Call;
use crate::failure::Failure;
use crate::service::Shared;

pub(super) fn index(
    shared: &Shared,
    _call: Call<'_>,
    request: &RepositoryIndexRequest,
) -> Answered<RepositoryIndexResponse> {
    oip::check_repository(&request.repository_name).map_err(failure)?;
    let one = |entry: oip::IndexEntry| ModelIndex {
        name: entry.name.to_string(),
        version: entry.version.map(|version| version.to_string()).unwrap_or_default(),
        state: entry.state.map(|state| state.name().to_owned()).unwrap_or_default(),
        reason: entry.reason,
    };
    let models = oip::repository_index(&*shared.parts.catalog, request.ready).into_iter().map(one).collect();
    Ok(RepositoryIndexResponse { models })
}

pub(super) async fn load(
    shared: &Shared,
    call: Call<'_>,
    request: &RepositoryModelLoadRequest,
) -> Answered<RepositoryModelLoadResponse> {
    let control = control(shared, call)?;
    oip::check_repository(&request.repository_name).map_err(failure)?;
    if let Some(name) = request.parameters.keys().next() {
        oip::check_load_parameter(name).map_err(failure)?;
    }
    let model = oip::order_model(&request.model_name).map_err(failure)?;
    control.load(&model, None).await.map_err(|refusal| oip::load_failure(&model, refusal))?;
    Ok(RepositoryModelLoadResponse {})
}

pub(super) async fn unload(
    shared: &Shared,
    call: Call<'_>,
    request: &RepositoryModelUnloadRequest,
) -> Answered<RepositoryModelUnloadResponse> {
    let control = control(shared, call)?;
    oip::check_repository(&request.repository_name).map_err(failure)?;
    // No model depends on another here, so `unload_dependents` has nothing to do; but it must be what it says.
    for (name, parameter) in &request.parameters {
        let is_bool = matches!(parameter.parameter_choice, Some(ParameterChoice::BoolParam(_)));
        if name != "unload_dependents" || !is_bool {
            let text = "the one parameter of an order to unload is 'unload_dependents', a boolean";
            return Err(failure(Refusal::new(Reason::InvalidInput, text)));
        }
    }
    let model = oip::order_model(&request.model_name).map_err(failure)?;
    match control.unload(&model, None).await {
        // What is not there is unloaded already.
        Err(refusal) if refusal.reason() == Reason::ModelUnknown => {}
        result => result.map_err(failure)?,
    }
    Ok(RepositoryModelUnloadResponse {})
}

/// Whoever takes orders, where they are taken.
pub(super) fn control(shared: &Shared, call: Call<'_>) -> Result<Arc<dyn Control>, Failure> {
    let control = shared.parts.control.as_ref().filter(|_| call.connection.roles.repository);
    control.map(Arc::clone).ok_or_else(|| failure(oip::no_control()))
}
