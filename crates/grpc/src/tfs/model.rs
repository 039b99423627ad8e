//! `ModelService`: how a model's versions are, and a new configuration of all models.

use std::sync::Arc;

use millrace_core::{Control, Reason, Refusal, VersionStatus, WantedModel};
use millrace_proto::tensorflow::serving::file_system_storage_path_source_config::servable_version_policy::PolicyChoice;
use millrace_proto::tensorflow::serving::model_server_config::Config;
use millrace_proto::tensorflow::serving::{
    GetModelStatusRequest, GetModelStatusResponse, ModelConfig, ModelVersionStatus, ReloadConfigRequest,
    ReloadConfigResponse, StatusProto,
};
use millrace_protocol::tfs::{
    self, ListedModel, ListedPolicy, check_unique, model_status, no_config_list, wanted_model,
};

use super::{failure, spec_of};
use crate::call::Call;
use crate::failure::Failure;
use crate::service::Shared;

/// Answers `GetModelStatus`.
///
/// # Errors
/// A [`Failure`]: no model named, or the model or version is not known.
pub(super) fn status(shared: &Shared, request: &GetModelStatusRequest) -> Result<GetModelStatusResponse, Failure> {
    let spec = request.model_spec.as_ref().map(spec_of);
    let wanted = tfs::ModelSpec::model(spec.as_ref())?;
    let model = model_status(&*shared.parts.catalog, &wanted)?;
    Ok(GetModelStatusResponse { model_version_status: model.versions.iter().map(version).collect() })
}

fn version(status: &VersionStatus) -> ModelVersionStatus {
    let (error_code, error_message) = match &status.failure {
        Some(failure) => (i32::from(failure.code.number()), failure.message.clone()),
        None => (0, String::new()),
    };
    ModelVersionStatus {
        version: status.version.cast_signed(),
        state: tfs::state_number(status.state),
        status: Some(StatusProto { error_code, error_message }),
    }
}

/// Answers `HandleReloadConfigRequest`, once the models are available or have failed.
///
/// # Errors
/// A [`Failure`]: not allowed here, a configuration that is wrong, or what came of it.
pub(super) async fn reload(
    shared: &Shared,
    call: Call<'_>,
    request: &ReloadConfigRequest,
) -> Result<ReloadConfigResponse, Failure> {
    let control = control(shared, call).map_err(failure)?;
    let models = wanted(request).map_err(failure)?;
    control.replace(models).await.map_err(failure)?;
    Ok(ReloadConfigResponse {
        status: Some(StatusProto { error_code: 0, error_message: String::new() }),
        metric: Vec::new(),
    })
}

/// Who takes the order, where it may be given.
fn control(shared: &Shared, call: Call<'_>) -> Result<Arc<dyn Control>, Refusal> {
    let control = shared.parts.control.as_ref().filter(|_| call.connection.roles.repository);
    control.map(Arc::clone).ok_or_else(|| {
        let text = "configurations are not taken on this port: send them to the admin port, or start the server with \
                    --admin-on-data-plane";
        Refusal::new(Reason::Forbidden, text)
    })
}

fn wanted(request: &ReloadConfigRequest) -> Result<Vec<WantedModel>, Refusal> {
    let config = request.config.as_ref().and_then(|config| config.config.as_ref());
    let Some(Config::ModelConfigList(list)) = config else { return Err(no_config_list()) };
    let models = list.config.iter().map(one).collect::<Result<Vec<_>, _>>()?;
    check_unique(&models)?;
    Ok(models)
}

fn one(config: &ModelConfig) -> Result<WantedModel, Refusal> {
    let policy = config.model_version_policy.as_ref().and_then(|policy| policy.policy_choice.as_ref());
    #[expect(deprecated, reason = "old clients still set it")]
    let has_type = config.model_type != 0;
    let listed = ListedModel {
        name: &config.name,
        base_path: &config.base_path,
        platform: &config.model_platform,
        has_type,
        policy: match policy {
            None => ListedPolicy::Nothing,
            Some(PolicyChoice::Latest(latest)) => ListedPolicy::Latest(latest.num_versions),
            Some(PolicyChoice::All(_)) => ListedPolicy::All,
            Some(PolicyChoice::Specific(specific)) => ListedPolicy::Specific(&specific.versions),
        },
    };
    wanted_model(&listed, config.version_labels.iter().map(|(label, version)| (&**label, *version)))
}
