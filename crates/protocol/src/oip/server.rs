//! What the server says of itself.

/// The server's name.
pub const SERVER_NAME: &str = "millrace";

/// The server's version.
pub const SERVER_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Name, version and the extensions that are really there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerMetadata {
    /// The server's name.
    pub name: &'static str,
    /// The server's version.
    pub version: &'static str,
    /// The names of the extensions.
    pub extensions: Vec<&'static str>,
}

impl ServerMetadata {
    /// Of this server. `has_control` says whether models can be loaded and unloaded where it is asked.
    pub fn new(has_control: bool) -> Self {
        let mut extensions = vec![
            "classification",
            "schedule_policy",
            "model_configuration",
            "binary_tensor_data",
            "parameters",
            "statistics",
        ];
        if has_control {
            extensions.insert(1, "model_repository");
        }
        Self { name: SERVER_NAME, version: SERVER_VERSION, extensions }
    }
}
