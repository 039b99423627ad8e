//! The repository: its index, and what loading and unloading by name may ask for.

use std::sync::Arc;

use millrace_core::{Catalog, Code, ModelName, Reason, Refusal, VersionState, VersionStatus};

use super::failure::Failure;
use super::words::{invalid, unsupported};
use crate::tfs::Bare;

/// A version's state in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IndexState {
    /// Can serve.
    Ready,
    /// Will soon, perhaps.
    Loading,
    /// Serves nobody new.
    Unloading,
    /// Gone or failed.
    Unavailable,
}

impl IndexState {
    /// The name on the wire, such as `READY`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::Loading => "LOADING",
            Self::Unloading => "UNLOADING",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

impl From<VersionState> for IndexState {
    fn from(state: VersionState) -> Self {
        match state {
            VersionState::Start | VersionState::Loading => Self::Loading,
            VersionState::Available => Self::Ready,
            VersionState::Unloading => Self::Unloading,
            VersionState::End => Self::Unavailable,
        }
    }
}

/// One line of the index. A model none of whose versions was ever loaded has nothing but its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The model.
    pub name: ModelName,
    /// The version.
    pub version: Option<u64>,
    /// Its state.
    pub state: Option<IndexState>,
    /// Why it is in that state; empty where there is nothing to say.
    pub reason: String,
}

/// Every version of every model, by name and then version; with `ready_only`, those that can serve.
pub fn repository_index(catalog: &dyn Catalog, ready_only: bool) -> Vec<IndexEntry> {
    let mut entries = Vec::new();
    for model in catalog.models() {
        if model.versions.is_empty() {
            entries.push(IndexEntry { name: model.name, version: None, state: None, reason: String::new() });
            continue;
        }
        entries.extend(model.versions.iter().map(|version| entry(&model.name, version)));
    }
    entries.retain(|entry| !ready_only || entry.state == Some(IndexState::Ready));
    entries
}

fn entry(name: &ModelName, version: &VersionStatus) -> IndexEntry {
    let state = IndexState::from(version.state);
    let reason = match &version.failure {
        Some(failure) => failure.message.clone(),
        None if state == IndexState::Unavailable => "unloaded".to_owned(),
        None => String::new(),
    };
    IndexEntry { name: name.clone(), version: Some(version.version), state: Some(state), reason }
}

/// Checks the repository that an order names.
///
/// # Errors
/// `Unsupported` unless it names none: there is only one.
pub fn check_repository(name: &str) -> Result<(), Refusal> {
    if name.is_empty() { Ok(()) } else { Err(unsupported("naming a repository is not supported".to_owned())) }
}

/// Checks the name of a parameter of an order to load.
///
/// # Errors
/// `Unsupported` for a configuration or a file that would take the place of the repository's, `InvalidInput` for any
/// other.
pub fn check_load_parameter(name: &str) -> Result<(), Refusal> {
    let name_shown = Bare(name);
    if name == "config" || name.starts_with("file:") {
        let text = format!("load parameter '{name_shown}' is not supported: models come from the repository only");
        return Err(unsupported(text));
    }
    Err(invalid(format!("unknown load parameter '{name_shown}'")))
}

/// The model that an order names.
///
/// # Errors
/// `InvalidInput` for a text that cannot be a model's name.
pub fn order_model(text: &str) -> Result<ModelName, Refusal> {
    text.parse().map_err(|error: millrace_core::NameError| invalid(error.to_string()))
}

/// The failure of an order to load `model`: unknown is not found, and whatever is wrong with its files is the server's own
/// fault, as Triton has it.
pub fn load_failure(model: &ModelName, refusal: Refusal) -> Failure {
    match refusal.reason() {
        Reason::NotReady
        | Reason::Loading
        | Reason::Conflict
        | Reason::Unsupported
        | Reason::TooLarge
        | Reason::BackendFailed
        | Reason::BackendBroken => {
            let words = Refusal::new(refusal.reason(), format!("failed to load '{model}', {refusal}"));
            Failure::with(Code::Internal, 500, words.with_cause(Arc::new(refusal) as Arc<_>))
        }
        Reason::ModelUnknown
        | Reason::VersionUnknown
        | Reason::LabelUnknown
        | Reason::SignatureUnknown
        | Reason::InvalidInput
        | Reason::QueueFull
        | Reason::RateLimited
        | Reason::Late
        | Reason::Cancelled
        | Reason::Draining
        | Reason::Exists
        | Reason::Forbidden
        | Reason::Unauthenticated
        | Reason::NotSaved => refusal.into(),
    }
}

/// The refusal of an order where orders are not taken.
pub fn no_control() -> Refusal {
    Refusal::new(
        Reason::Forbidden,
        "explicit model load / unload is not allowed on this port; use the admin port or start the server with \
         --admin-on-data-plane",
    )
}

#[cfg(test)]
mod tests {
    use millrace_core::{Catalog, Code, ModelStatus, Reason, Refusal, VersionFailure, VersionState, VersionStatus};

    use super::{IndexState, check_load_parameter, check_repository, load_failure, repository_index};

    #[derive(Debug)]
    struct Fixed(Vec<ModelStatus>);

    impl Catalog for Fixed {
        fn models(&self) -> Vec<ModelStatus> {
            self.0.clone()
        }

        fn model(&self, name: &str) -> Option<ModelStatus> {
            self.0.iter().find(|model| model.name.as_str() == name).cloned()
        }

        fn is_ready(&self) -> bool {
            true
        }
    }

    fn catalog() -> Fixed {
        let mut model = ModelStatus::new("m".parse().unwrap());
        let states = [VersionState::Available, VersionState::Loading, VersionState::Unloading, VersionState::End];
        model.versions = states.into_iter().zip(1..).map(|(state, number)| VersionStatus::new(number, state)).collect();
        let mut failed = VersionStatus::new(5, VersionState::End);
        failed.failure = Some(VersionFailure { code: Code::FailedPrecondition, message: "bad file".to_owned() });
        model.versions.push(failed);
        Fixed(vec![model, ModelStatus::new("never".parse().unwrap())])
    }

    #[test]
    fn the_index_has_a_line_for_each_version_and_one_for_a_model_without() {
        let index = repository_index(&catalog(), false);
        let lines: Vec<_> = index
            .iter()
            .map(|entry| (entry.version, entry.state.map(IndexState::name), entry.reason.as_str()))
            .collect();
        let expected = [
            (Some(1), Some("READY"), ""),
            (Some(2), Some("LOADING"), ""),
            (Some(3), Some("UNLOADING"), ""),
            (Some(4), Some("UNAVAILABLE"), "unloaded"),
            (Some(5), Some("UNAVAILABLE"), "bad file"),
            (None, None, ""),
        ];
        assert_eq!(lines, expected);
        let ready = repository_index(&catalog(), true);
        assert_eq!(ready.iter().map(|entry| entry.version).collect::<Vec<_>>(), [Some(1)]);
    }

    #[test]
    fn nothing_takes_the_place_of_the_repository() {
        assert!(check_repository("").is_ok());
        assert_eq!(check_repository("other").unwrap_err().reason(), Reason::Unsupported);
        assert_eq!(check_load_parameter("config").unwrap_err().reason(), Reason::Unsupported);
        assert_eq!(check_load_parameter("file:1/model.onnx").unwrap_err().reason(), Reason::Unsupported);
        assert_eq!(check_load_parameter("other").unwrap_err().reason(), Reason::InvalidInput);
    }

    #[test]
    fn a_model_that_is_unknown_is_404_and_a_broken_one_500() {
        let name = "m".parse().unwrap();
        let failure = |reason| load_failure(&name, Refusal::new(reason, "why"));
        assert_eq!(failure(Reason::ModelUnknown).http_status(), 404);
        let broken = failure(Reason::Conflict);
        assert_eq!((broken.http_status(), broken.code()), (500, Code::Internal));
        assert_eq!(broken.refusal().message(), "failed to load 'm', why");
    }
}
