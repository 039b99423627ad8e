//! What hosting platforms tell their containers by variables: Vertex AI's `AIP_*`, and SageMaker's where its contract
//! was asked for.
//!
//! It counts only where nothing else was said: flags, `MILLRACE_` variables and the file go before it. The routes that
//! the platforms ask for are `millrace-http`'s.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use millrace_core::{ModelName, Quoted};
use millrace_http::{SageMakerConfig, VertexConfig};
use millrace_registry::ModelSet;

use super::environment::Environment;
use super::error::{ConfigError, Place};
use super::{Platform, ServerConfig};

/// Where SageMaker unpacks a model, unless `SM_MODEL_DIR` names another folder.
const SAGEMAKER_MODEL: &str = "/opt/ml/model";

/// What the platform says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hosting {
    /// The port for clients.
    port: Option<u16>,
    /// A port that may be used besides.
    spare_port: Option<u16>,
    /// Where models lie, as Vertex AI says it. It counts only where nobody else says so, and need not be right before.
    storage: Option<String>,
    /// Where models lie, as SageMaker has it.
    folder: Option<PathBuf>,
    /// Models come and go by the platform's verbs, from this folder, and none is there at the start.
    store: Option<PathBuf>,
    vertex: Option<VertexConfig>,
    sagemaker: Option<SageMakerConfig>,
}

impl Hosting {
    /// Reads the variables of Vertex AI, and those of `platform`.
    pub(super) fn read(platform: Option<Platform>, environment: &Environment) -> Result<Self, ConfigError> {
        // Vertex AI sets variables to nothing where it has nothing to say.
        let variable = |name: &'static str| {
            environment.get(name).map(String::as_str).filter(|value| !value.is_empty()).map(|value| (name, value))
        };
        let mut hosting = Self {
            port: variable("AIP_HTTP_PORT").map(port).transpose()?,
            storage: variable("AIP_STORAGE_URI").map(|(_, value)| value.to_owned()),
            vertex: vertex(variable("AIP_HEALTH_ROUTE"), variable("AIP_PREDICT_ROUTE"))?,
            ..Self::default()
        };
        match platform {
            None => {}
            Some(Platform::Sagemaker) => {
                // The names by which the containers of TensorFlow Serving and Triton know it.
                let model = variable("SAGEMAKER_TFS_DEFAULT_MODEL_NAME")
                    .or_else(|| variable("SAGEMAKER_TRITON_DEFAULT_MODEL_NAME"));
                hosting.sagemaker =
                    Some(SageMakerConfig { model: model.map(model_name).transpose()?, ..SageMakerConfig::default() });
                if let Some(variable) = variable("SAGEMAKER_BIND_TO_PORT") {
                    hosting.port = Some(port(variable)?);
                }
                if let Some(variable) = variable("SAGEMAKER_SAFE_PORT_RANGE") {
                    hosting.spare_port = Some(first_but(variable, hosting.port)?);
                }
                if variable("SAGEMAKER_MULTI_MODEL").is_some_and(|(_, value)| value == "true") {
                    hosting.store = hosting.sagemaker.as_ref().map(|config| PathBuf::from(&config.models_root));
                } else {
                    let folder = variable("SM_MODEL_DIR").map_or(SAGEMAKER_MODEL, |(_, value)| value);
                    hosting.folder = Some(PathBuf::from(folder)).filter(|folder| folder.is_dir());
                }
            }
        }
        Ok(hosting)
    }

    /// Lays what the platform says over the defaults.
    pub(super) fn apply(&self, config: &mut ServerConfig) {
        if let Some(port) = self.port {
            config.listen = vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into()];
        }
        if let Some(port) = self.spare_port {
            config.admin = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()];
        }
        config.registry.stores.extend(self.store.clone());
        config.http.vertex.clone_from(&self.vertex);
        config.http.sagemaker.clone_from(&self.sagemaker);
    }

    /// Whether the platform says where models lie.
    pub(super) fn names_models(&self) -> bool {
        self.folder.is_some() || self.store.is_some() || self.storage.is_some()
    }

    /// The models to serve from the start.
    pub(super) fn models(&self) -> Result<ModelSet, ConfigError> {
        if let Some(folder) = &self.folder {
            return Ok(ModelSet::Repository(folder.clone()));
        }
        match &self.storage {
            Some(storage) if self.store.is_none() => {
                local_folder(("AIP_STORAGE_URI", storage)).map(ModelSet::Repository)
            }
            _ => Ok(ModelSet::Listed(Vec::new())),
        }
    }
}

type Variable<'a> = (&'static str, &'a str);

fn wrong((name, _): Variable<'_>, message: String) -> ConfigError {
    ConfigError::new(Place::Environment(name.to_owned()), message)
}

fn port(variable: Variable<'_>) -> Result<u16, ConfigError> {
    let (_, value) = variable;
    let port = value.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| wrong(variable, format!("{} is not a port", Quoted(value))))
}

/// The first port of a range such as `9000-9999` that is not `taken`.
fn first_but(variable: Variable<'_>, taken: Option<u16>) -> Result<u16, ConfigError> {
    let (_, value) = variable;
    let range = value.split_once('-').and_then(|(first, last)| {
        let (first, last) = (first.trim().parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?);
        (first..=last).find(|port| *port != 0 && Some(*port) != taken)
    });
    range.ok_or_else(|| wrong(variable, format!("{} is not a range of ports such as 9000-9999", Quoted(value))))
}

fn model_name(variable: Variable<'_>) -> Result<ModelName, ConfigError> {
    let (_, value) = variable;
    value.parse().map_err(|error| wrong(variable, format!("{error}")))
}

/// Vertex AI names both routes or none.
fn vertex(health: Option<Variable<'_>>, predict: Option<Variable<'_>>) -> Result<Option<VertexConfig>, ConfigError> {
    match (health, predict) {
        (None, None) => Ok(None),
        (Some(health), Some(predict)) => {
            let (health_route, predict_route) = (route(health)?, route(predict)?);
            Ok(Some(VertexConfig { health_route, predict_route, model: None }))
        }
        (Some(one), None) => Err(wrong(one, "AIP_PREDICT_ROUTE is not set; Vertex AI sets both".to_owned())),
        (None, Some(one)) => Err(wrong(one, "AIP_HEALTH_ROUTE is not set; Vertex AI sets both".to_owned())),
    }
}

fn route(variable: Variable<'_>) -> Result<String, ConfigError> {
    let (_, value) = variable;
    let is_path = value.starts_with('/') && value.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_path || value.contains(['?', '#']) {
        return Err(wrong(variable, format!("{} is not a path such as /predict", Quoted(value))));
    }
    Ok(value.to_owned())
}

/// The folder that a location names, which must be on this machine.
fn local_folder(variable: Variable<'_>) -> Result<PathBuf, ConfigError> {
    let (_, value) = variable;
    let path = Path::new(value.strip_prefix("file://").unwrap_or(value));
    if !path.is_absolute() {
        let hint = "models are not fetched from elsewhere; put them into the image and name their folder";
        return Err(wrong(variable, format!("{} is not a folder of this machine: {hint}", Quoted(value))));
    }
    if !path.is_dir() {
        return Err(wrong(variable, format!("the folder {} does not exist", path.display())));
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use millrace_registry::ModelSet;

    use super::{Hosting, Platform};
    use crate::config::ServerConfig;
    use crate::config::environment::Environment;

    fn read(platform: Option<Platform>, pairs: &[(&str, &str)]) -> Result<Hosting, String> {
        let environment: Environment =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Hosting::read(platform, &environment).map_err(|error| error.to_string())
    }

    fn addresses(hosting: &Hosting) -> (String, String) {
        let mut config = ServerConfig::repository(".");
        hosting.apply(&mut config);
        (config.listen[0].to_string(), config.admin[0].to_string())
    }

    #[test]
    fn vertex_ais_variables_count() {
        let hosting = read(
            None,
            &[
                ("AIP_HTTP_PORT", "9000"),
                ("AIP_HEALTH_ROUTE", "/health/it"),
                ("AIP_PREDICT_ROUTE", "/v1/endpoints/1:predict"),
                ("AIP_STORAGE_URI", "file:///"),
                ("AIP_MODE", "PREDICTION"),
            ],
        )
        .unwrap();
        assert_eq!(addresses(&hosting), ("0.0.0.0:9000".to_owned(), "127.0.0.1:8081".to_owned()));
        let vertex = hosting.vertex.clone().unwrap();
        assert_eq!((&*vertex.health_route, &*vertex.predict_route), ("/health/it", "/v1/endpoints/1:predict"));
        assert_eq!(hosting.models(), Ok(ModelSet::Repository("/".into())));
        assert_eq!(read(None, &[("AIP_STORAGE_URI", ""), ("AIP_HTTP_PORT", "")]), Ok(Hosting::default()));
    }

    #[test]
    fn a_variable_that_cannot_be_meant_is_refused_by_name() {
        for (pairs, expected) in [
            (&[("AIP_HTTP_PORT", "0")][..], "AIP_HTTP_PORT: `0` is not a port"),
            (
                &[("AIP_HEALTH_ROUTE", "health"), ("AIP_PREDICT_ROUTE", "/a")],
                "AIP_HEALTH_ROUTE: `health` is not a path",
            ),
            (&[("AIP_HEALTH_ROUTE", "/a"), ("AIP_PREDICT_ROUTE", "/a?b")], "AIP_PREDICT_ROUTE: `/a?b` is not a path"),
            (&[("AIP_HEALTH_ROUTE", "/a")], "AIP_PREDICT_ROUTE is not set"),
        ] {
            let error = read(None, pairs).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        // Whether models lie there matters only where nothing else says where they are.
        for (value, expected) in [("gs://bucket/model", "not a folder of this machine"), ("/no/such", "does not exist")]
        {
            let hosting = read(None, &[("AIP_STORAGE_URI", value)]).unwrap();
            let error = hosting.models().unwrap_err().to_string();
            assert!(error.contains("AIP_STORAGE_URI") && error.contains(expected), "{error}");
        }
        let error = read(Some(Platform::Sagemaker), &[("SAGEMAKER_SAFE_PORT_RANGE", "9")]).unwrap_err();
        assert!(error.contains("SAGEMAKER_SAFE_PORT_RANGE"), "{error}");
    }

    #[test]
    fn sagemakers_variables_count_where_it_was_asked_for() {
        let pairs = [
            ("SAGEMAKER_BIND_TO_PORT", "9000"),
            ("SAGEMAKER_SAFE_PORT_RANGE", "9000-9999"),
            ("SAGEMAKER_MULTI_MODEL", "true"),
            ("SAGEMAKER_TRITON_DEFAULT_MODEL_NAME", "fraud"),
        ];
        assert_eq!(read(None, &pairs), Ok(Hosting::default()));
        let hosting = read(Some(Platform::Sagemaker), &pairs).unwrap();
        assert_eq!(addresses(&hosting), ("0.0.0.0:9000".to_owned(), "127.0.0.1:9001".to_owned()));
        assert!(hosting.names_models());
        assert_eq!(hosting.sagemaker.as_ref().unwrap().model.as_ref().unwrap().as_str(), "fraud");
        assert_eq!(hosting.models(), Ok(ModelSet::Listed(Vec::new())));
        let mut config = ServerConfig::new(hosting.models().unwrap());
        hosting.apply(&mut config);
        assert_eq!(config.registry.stores, [PathBuf::from("/opt/ml/models")]);
        let here = read(Some(Platform::Sagemaker), &[("SM_MODEL_DIR", "/")]).unwrap();
        assert_eq!(here.models(), Ok(ModelSet::Repository("/".into())));
    }
}
