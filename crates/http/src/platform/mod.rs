//! The routes that hosting platforms prescribe: SageMaker's and Vertex AI's. They answer only where they are configured.

mod config;

pub use config::{SageMakerConfig, VertexConfig};
