//! A new configuration of all models: what is checked before the registry sees it.
//!
//! Whether a folder may be read, has versions, and whether a label points at one that is available, the registry knows.

use std::collections::BTreeMap;

use millrace_core::{Alias, ModelName, NameError, Reason, Refusal, WantedModel, WantedVersions};

use super::resolve::Bare;

/// One model as a configuration lists it.
#[derive(Debug, Clone, Copy, Default)]
pub struct ListedModel<'a> {
    /// Its name.
    pub name: &'a str,
    /// The folder of its versions.
    pub base_path: &'a str,
    /// What it is for; any text, for the files say what they are.
    pub platform: &'a str,
    /// Whether the old way to say that is used.
    pub has_type: bool,
    /// Which of its versions.
    pub policy: ListedPolicy<'a>,
}

/// Which versions of a model a configuration lists.
#[derive(Debug, Clone, Copy, Default)]
pub enum ListedPolicy<'a> {
    /// Nothing is said: the highest.
    #[default]
    Nothing,
    /// The highest so many; 0 is read as 1.
    Latest(u32),
    /// Every one.
    All,
    /// These.
    Specific(&'a [i64]),
}

/// One model with its labels, checked.
///
/// # Errors
/// `InvalidInput`, naming the model and what is wrong with it.
pub fn wanted_model<'a>(
    model: &ListedModel<'_>,
    labels: impl IntoIterator<Item = (&'a str, i64)>,
) -> Result<WantedModel, Refusal> {
    let shown = Bare(model.name);
    let name: ModelName = model.name.parse().map_err(|error: NameError| invalid(error.to_string()))?;
    match (model.platform.is_empty(), model.has_type) {
        (true, false) => return Err(invalid(format!("model {shown}: model_platform is not set"))),
        (false, true) => {
            return Err(invalid(format!(
                "model {shown}: model_type, which is deprecated, and model_platform are both set"
            )));
        }
        (true, true) | (false, false) => {}
    }
    if !model.base_path.starts_with('/') {
        let path = Bare(model.base_path);
        return Err(invalid(format!("model {shown}: expected an absolute base_path, got {path}")));
    }
    let number = |number: i64| {
        u64::try_from(number).map_err(|_| invalid(format!("model {shown}: {number} is not the number of a version")))
    };
    let versions = match model.policy {
        ListedPolicy::Nothing => WantedVersions::Latest(1),
        ListedPolicy::Latest(count) => WantedVersions::Latest(count.max(1)),
        ListedPolicy::All => WantedVersions::All,
        ListedPolicy::Specific([]) => {
            return Err(invalid(format!("model {shown}: a specific version policy names no version")));
        }
        ListedPolicy::Specific(versions) => {
            let mut versions = versions.iter().map(|version| number(*version)).collect::<Result<Vec<_>, _>>()?;
            versions.sort_unstable();
            versions.dedup();
            WantedVersions::Specific(versions)
        }
    };
    let mut aliases = BTreeMap::new();
    for (label, version) in labels {
        let alias: Alias = label.parse().map_err(|error: NameError| invalid(format!("model {shown}: {error}")))?;
        aliases.insert(alias, number(version)?);
    }
    Ok(WantedModel { name, base_path: model.base_path.to_owned(), versions, aliases })
}

/// Refuses a set in which a model stands twice.
///
/// # Errors
/// `InvalidInput`, naming the model.
pub fn check_unique(models: &[WantedModel]) -> Result<(), Refusal> {
    let mut names: Vec<&ModelName> = models.iter().map(|model| &model.name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(invalid(format!("Illegal to list model {} multiple times in config list", pair[0]))),
    }
}

/// The refusal of a configuration that is no list of models.
pub fn no_config_list() -> Refusal {
    invalid("only a model_config_list can be loaded, and the request has none".to_owned())
}

fn invalid(message: String) -> Refusal {
    Refusal::new(Reason::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use millrace_core::{Code, WantedVersions};

    use super::{ListedModel, ListedPolicy, check_unique, wanted_model};

    const GOOD: ListedModel<'_> = ListedModel {
        name: "m",
        base_path: "/models/m",
        platform: "tensorflow",
        has_type: false,
        policy: ListedPolicy::Nothing,
    };

    fn versions(policy: ListedPolicy<'_>) -> Result<WantedVersions, String> {
        let wanted = wanted_model(&ListedModel { policy, ..GOOD }, []);
        wanted.map(|wanted| wanted.versions).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn policies_become_wanted_versions() {
        assert_eq!(versions(ListedPolicy::Nothing), Ok(WantedVersions::Latest(1)));
        assert_eq!(versions(ListedPolicy::Latest(0)), Ok(WantedVersions::Latest(1)));
        assert_eq!(versions(ListedPolicy::Latest(3)), Ok(WantedVersions::Latest(3)));
        assert_eq!(versions(ListedPolicy::All), Ok(WantedVersions::All));
        assert_eq!(versions(ListedPolicy::Specific(&[7, 2, 7])), Ok(WantedVersions::Specific(vec![2, 7])));
        assert!(versions(ListedPolicy::Specific(&[])).unwrap_err().contains("names no version"));
        assert!(versions(ListedPolicy::Specific(&[-1])).unwrap_err().contains("-1"));
    }

    #[test]
    fn what_is_wrong_with_a_model_is_said_before_anything_is_loaded() {
        for (model, word) in [
            (ListedModel { name: "../x", ..GOOD }, "../x"),
            (ListedModel { name: "", ..GOOD }, "name"),
            (ListedModel { platform: "", ..GOOD }, "model_platform"),
            (ListedModel { has_type: true, ..GOOD }, "both"),
            (ListedModel { base_path: "models/m", ..GOOD }, "absolute"),
            (ListedModel { base_path: "", ..GOOD }, "absolute"),
        ] {
            let refusal = wanted_model(&model, []).unwrap_err();
            assert_eq!(refusal.code(), Code::InvalidArgument);
            assert!(refusal.message().contains(word), "{refusal}");
        }
        assert!(wanted_model(&ListedModel { platform: "", has_type: true, ..GOOD }, []).is_ok());
        assert!(wanted_model(&GOOD, [("a b", 1)]).is_err());
        assert!(wanted_model(&GOOD, [("stable", -1)]).is_err());
        let labels = wanted_model(&GOOD, [("stable", 42), ("canary", 43)]).unwrap().aliases;
        assert_eq!(
            labels.iter().map(|(alias, version)| (alias.as_str(), *version)).collect::<Vec<_>>(),
            [("canary", 43), ("stable", 42)]
        );
    }

    #[test]
    fn a_model_stands_in_the_list_once() {
        let model = |name| wanted_model(&ListedModel { name, ..GOOD }, []).unwrap();
        assert!(check_unique(&[model("a"), model("b")]).is_ok());
        let refusal = check_unique(&[model("a"), model("b"), model("a")]).unwrap_err();
        assert_eq!(refusal.message(), "Illegal to list model a multiple times in config list");
    }
}
