//! Which model a request for text is for: the one that it names, or else the only one that fits.

use std::fmt;
use std::sync::Arc;

use millrace_core::{
    ModelRef, ModelRefError, OwnedModelRef, Quoted, Reason, Refusal, RequestContext, Servable, TENSORS, TextProcessor,
    TextTask, VersionStatus,
};

use crate::service::Shared;

/// Names that one list in a message shows.
const MOST_SHOWN: usize = 16;

/// What a route wants of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Vectors.
    Embedding,
    /// Scores of labels; a ranking model's only label counts where no model has more.
    Labels,
    /// Ranks.
    Ranking,
    /// Tokens.
    Any,
}

/// A leased version and what turns text into its inputs.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub(crate) servable: Arc<dyn Servable>,
    pub(crate) text: Arc<dyn TextProcessor>,
}

/// Finds the model for `need`. `named` is what the request says: `name`, `name:version` or `name@alias`.
///
/// # Errors
/// A [`Refusal`]: that of the resolver, `Unsupported` for a model of another kind, `InvalidInput` where several fit and
/// none is named.
pub(super) fn choose(
    shared: &Shared,
    named: Option<&str>,
    need: Need,
    context: &RequestContext,
) -> Result<Chosen, Refusal> {
    match named {
        Some(named) => by_name(shared, named, need, context),
        None => only(shared, need, context),
    }
}

/// Every default version that takes text, by the name of its model.
pub(crate) fn known(shared: &Shared, context: &RequestContext) -> Vec<Chosen> {
    let takes_text = |version: &VersionStatus| {
        let signatures = version.signatures.as_ref();
        signatures.is_some_and(|signatures| signatures.find(TENSORS).is_some())
    };
    let models = shared.parts.catalog.models();
    let default = models.iter().filter(|model| {
        model.versions.iter().any(|version| Some(version.version) == model.default_version && takes_text(version))
    });
    let lease = |name: &str| {
        let servable = shared.parts.resolver.resolve(&ModelRef::new(name), context).ok()?;
        let text = servable.text()?;
        Some(Chosen { servable, text })
    };
    default.filter_map(|model| lease(model.name.as_str())).collect()
}

fn by_name(shared: &Shared, named: &str, need: Need, context: &RequestContext) -> Result<Chosen, Refusal> {
    let unknown = |refusal: Refusal| {
        let fitting = fitting(known(shared, context), need);
        refusal.reworded(format!("model: {} is not known; {need}: {}", Quoted(named), Names(&fitting)))
    };
    let reference: OwnedModelRef = named.parse().map_err(|error| match error {
        ModelRefError::Name(error) => unknown(Refusal::new(Reason::ModelUnknown, error.to_string())),
        ModelRefError::Version(_) => Refusal::new(Reason::InvalidInput, format!("model: {error}")),
    })?;
    let found = shared.parts.resolver.resolve(&reference.borrowed(), context);
    let servable = found.map_err(|refusal| match refusal.reason() {
        Reason::ModelUnknown => unknown(refusal),
        _ => refusal,
    })?;
    let unsupported = |text: String| Refusal::new(Reason::Unsupported, text);
    let Some(text) = servable.text() else {
        return Err(unsupported(format!("model `{}` takes no text, or not by these routes", servable.model())));
    };
    let task = text.facts().task;
    if !need.is_met_by(task) {
        let text = format!("model `{}` does {}; this route is for {need}", servable.model(), task.name());
        return Err(unsupported(text));
    }
    Ok(Chosen { servable, text })
}

fn only(shared: &Shared, need: Need, context: &RequestContext) -> Result<Chosen, Refusal> {
    let mut fitting = fitting(known(shared, context), need);
    if fitting.len() > 1 {
        let text = format!(
            "model: several are loaded that fit: {}; say which, as `model` in the body or in the query, or at the end of the path",
            Names(&fitting)
        );
        return Err(Refusal::new(Reason::InvalidInput, text));
    }
    fitting.pop().ok_or_else(|| {
        if shared.parts.catalog.is_ready() {
            Refusal::new(Reason::ModelUnknown, format!("there are no {need}"))
        } else {
            Refusal::new(Reason::Loading, format!("there are no {need} yet: models are still being loaded"))
        }
    })
}

/// Those that a request without a name may mean.
fn fitting(known: Vec<Chosen>, need: Need) -> Vec<Chosen> {
    let all: Vec<_> = known.into_iter().filter(|chosen| need.is_met_by(chosen.text.facts().task)).collect();
    let is_preferred = |chosen: &Chosen| chosen.text.facts().task == TextTask::Classification;
    if need == Need::Labels && all.iter().any(is_preferred) {
        return all.into_iter().filter(is_preferred).collect();
    }
    all
}

impl Need {
    pub(crate) fn is_met_by(self, task: TextTask) -> bool {
        match self {
            Self::Embedding => task == TextTask::Embedding,
            Self::Labels => task != TextTask::Embedding,
            Self::Ranking => task == TextTask::Ranking,
            Self::Any => true,
        }
    }
}

/// The models that are meant, in the plural.
impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedding => "embedding models",
            Self::Labels => "classification models",
            Self::Ranking => "ranking models",
            Self::Any => "models that take text",
        })
    }
}

/// Names of models, the first of them if there are many.
struct Names<'a>(&'a [Chosen]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, chosen) in self.0.iter().take(MOST_SHOWN).enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}`{}`", chosen.servable.model())?;
        }
        if self.0.len() > MOST_SHOWN { write!(f, " and {} more", self.0.len() - MOST_SHOWN) } else { Ok(()) }
    }
}
