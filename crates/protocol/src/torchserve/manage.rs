//! Management orders carried out over core's traits, answered in TorchServe's words.
//!
//! An order that the caller does not want to wait for is an order all the same: the registry carries it out whether or
//! not its future is awaited. Front-ends wait for [`PATIENCE`], so that what is wrong at once is said at once.

use std::time::Duration;

use millrace_core::{
    Alias, Catalog, Control, ModelName, ModelStatus, Reason, Refusal, Registered, VersionState, VersionStatus,
};

use super::failure::Failure;
use super::order::{Page, Register, Scale};
use super::resolve::{find_version, written_version};
use super::view::{ModelEntry, ModelPage, VersionView};
use crate::tfs::Bare;

/// How long a front-end waits for an order that is not synchronous before it answers that it is being worked on.
pub const PATIENCE: Duration = Duration::from_millis(500);

/// What an order came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The HTTP status.
    pub rest_status: u16,
    /// The text under `status`.
    pub status: String,
}

impl Done {
    /// The order is being worked on; nobody waited for its end.
    pub fn in_progress() -> Self {
        Self { rest_status: 202, status: "Processing worker updates...".to_owned() }
    }

    fn with(status: String) -> Self {
        Self { rest_status: 200, status }
    }
}

/// Whether TorchServe would show this version: not what was unloaded.
fn is_registered(version: &VersionStatus) -> bool {
    version.state != VersionState::End || version.failure.is_some()
}

fn registered(model: &ModelStatus) -> impl DoubleEndedIterator<Item = &VersionStatus> {
    model.versions.iter().filter(|version| is_registered(version))
}

/// The version that describes `model`: the default one, or the highest where none can serve.
fn default_version(model: &ModelStatus) -> Option<u64> {
    model.default_version.or_else(|| registered(model).next_back().map(|version| version.version))
}

/// A part of the list of models, by name.
pub fn list(catalog: &dyn Catalog, page: Page) -> ModelPage {
    let models: Vec<_> = catalog.models().into_iter().filter(|model| registered(model).next().is_some()).collect();
    let end = page.offset.saturating_add(page.limit);
    let entry = |model: &ModelStatus| ModelEntry { model_name: model.name.to_string(), model_url: model.path.clone() };
    let models_here = models.iter().skip(page.offset).take(page.limit).map(entry).collect();
    // A page of nothing leads nowhere.
    let more = page.limit > 0 && end < models.len();
    ModelPage { next_page_token: more.then_some(end), models: models_here }
}

/// Some versions of a model: its default one, the one named, or with `all` every one.
///
/// # Errors
/// A [`Failure`] for a model or a version that is not registered.
pub fn describe(catalog: &dyn Catalog, model: &str, version: Option<&str>) -> Result<Vec<VersionView>, Failure> {
    let status = find(catalog, model)?;
    let views = |wanted: Option<u64>| {
        let of = |version: &&VersionStatus| wanted.is_none_or(|wanted| version.version == wanted);
        registered(&status).filter(of).map(|version| VersionView::new(&status, version)).collect()
    };
    match version.filter(|text| !text.is_empty()) {
        Some("all") => Ok(views(None)),
        None => Ok(views(default_version(&status))),
        Some(text) => Ok(views(Some(find_registered(&status, text)?))),
    }
}

/// Registers a model.
///
/// # Errors
/// A [`Failure`]: nothing at that place, registered already, or the registry's refusal.
pub async fn register(control: &dyn Control, order: &Register) -> Result<Done, Failure> {
    let Registered { model, version } = control.register(order.registration()).await.map_err(|refusal| {
        let url = Bare(&order.url);
        match refusal.reason() {
            Reason::ModelUnknown => Failure::reworded(refusal, format!("Model not found at: {url}")),
            _ => refusal.into(),
        }
    })?;
    let (version, workers) = (written_version(version), order.initial_workers);
    Ok(match (workers, order.synchronous) {
        (0, _) => Done::with(format!(
            "Model \"{model}\" Version: {version} registered with 0 initial workers. \
             Use scale workers API to add workers for the model."
        )),
        (_, true) => {
            Done::with(format!("Model \"{model}\" Version: {version} registered with {workers} initial workers"))
        }
        (_, false) => Done::in_progress(),
    })
}

/// Bounds the executors of a version, by default of the default one.
///
/// # Errors
/// A [`Failure`] for a model or a version that is not registered, or the registry's refusal.
pub async fn scale(
    control: &dyn Control,
    catalog: &dyn Catalog,
    model: &str,
    version: Option<&str>,
    order: Scale,
) -> Result<Done, Failure> {
    let version = version.filter(|text| !text.is_empty());
    let (name, number) = find_one(catalog, model, version)?;
    control.scale(&name, Some(number), order.max_worker).await?;
    if !order.synchronous {
        return Ok(Done::in_progress());
    }
    let version = version.map(|_| format!(", version: {}", written_version(number))).unwrap_or_default();
    Ok(Done::with(format!("Workers scaled to {} for model: {name}{version}", order.min_worker)))
}

/// Makes `version` the one that requests without a version get.
///
/// # Errors
/// A [`Failure`] for a model or a version that is not registered, or the registry's refusal.
pub async fn set_default(
    control: &dyn Control,
    catalog: &dyn Catalog,
    model: &str,
    version: &str,
) -> Result<Done, Failure> {
    let status = find(catalog, model)?;
    let number =
        find_version(&status, version).filter(|number| registered(&status).any(|known| known.version == *number));
    let Some(number) = number else {
        let message = format!("Model version {} does not exist for model {}", Bare(version), status.name);
        return Err(Refusal::new(Reason::VersionUnknown, message).into());
    };
    let alias: Alias = Alias::DEFAULT.parse().expect("the name of the default alias is an alias");
    control.set_alias(&status.name, &alias, number).await?;
    let (name, version) = (status.name, written_version(number));
    Ok(Done::with(format!("Default version successfully updated for model \"{name}\" to \"{version}\"")))
}

/// Takes out a version, by default the default one. The default version is the last to go.
///
/// # Errors
/// A [`Failure`] for a model or a version that is not registered, for the default version where there are others, or the
/// registry's refusal.
pub async fn unregister(
    control: &dyn Control,
    catalog: &dyn Catalog,
    model: &str,
    version: Option<&str>,
) -> Result<Done, Failure> {
    let status = find(catalog, model)?;
    let number = number_of(&status, version.filter(|text| !text.is_empty()))?;
    let is_only = registered(&status).all(|known| known.version == number);
    if !is_only && default_version(&status) == Some(number) {
        return Err(Failure::default_version_in_use(status.name.as_str()));
    }
    // The only version goes with its model, so that the name is free again.
    control.unregister(&status.name, (!is_only).then_some(number)).await?;
    Ok(Done::with(format!("Model \"{}\" unregistered", status.name)))
}

fn find(catalog: &dyn Catalog, model: &str) -> Result<ModelStatus, Failure> {
    let found = catalog.model(model).filter(|status| registered(status).next().is_some());
    found.ok_or_else(|| Refusal::new(Reason::ModelUnknown, format!("Model not found: {}", Bare(model))).into())
}

fn find_one(catalog: &dyn Catalog, model: &str, version: Option<&str>) -> Result<(ModelName, u64), Failure> {
    let status = find(catalog, model)?;
    let number = number_of(&status, version)?;
    Ok((status.name, number))
}

fn number_of(status: &ModelStatus, version: Option<&str>) -> Result<u64, Failure> {
    match version {
        Some(text) => find_registered(status, text),
        None => default_version(status).ok_or_else(|| unknown_version(status, "default")),
    }
}

fn find_registered(status: &ModelStatus, version: &str) -> Result<u64, Failure> {
    let number = find_version(status, version);
    let number = number.filter(|number| registered(status).any(|known| known.version == *number));
    number.ok_or_else(|| unknown_version(status, version))
}

fn unknown_version(status: &ModelStatus, version: &str) -> Failure {
    let message = format!("Model version: {} does not exist for model: {}", Bare(version), status.name);
    Refusal::new(Reason::VersionUnknown, message).into()
}
