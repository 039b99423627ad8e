//! What hosting platforms prescribe: which routes there are and which model they mean.

use millrace_core::ModelName;

/// Amazon SageMaker's container contract: `/ping`, `/invocations`, and its `/models` for endpoints of many models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SageMakerConfig {
    /// The model that `/invocations` means; by default the only one that is served.
    pub model: Option<ModelName>,
    /// The folder under which SageMaker puts models. Their URLs are absolute paths below it; what follows it is what is
    /// looked for in the stores.
    pub models_root: String,
}

impl Default for SageMakerConfig {
    /// Any only model, and the folder that SageMaker's endpoints of many models use.
    fn default() -> Self {
        Self { model: None, models_root: "/opt/ml/models".to_owned() }
    }
}

/// Vertex AI's container contract: the routes that its variables name. Each begins with a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VertexConfig {
    /// The route of health checks, `AIP_HEALTH_ROUTE`.
    pub health_route: String,
    /// The route of predictions, `AIP_PREDICT_ROUTE`.
    pub predict_route: String,
    /// The model that predictions mean; by default the only one that is served.
    pub model: Option<ModelName>,
}
