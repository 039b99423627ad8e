//! The registry inside your own program: models from a folder, answers without any server.
//!
//! ```sh
//! cargo run --example quickstart
//! # half_plus_two, version 2: y = [3.5, 4.0, 5.5]
//! ```

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use millrace_backend_tract::TractBackend;
use millrace_batching::{ComputePool, PoolConfig};
use millrace_core::{InferRequest, ModelRef, RequestContext, Resolver, Tensor};
use millrace_registry::{Registry, RegistryConfig};
use pollster::block_on;

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
#[expect(clippy::disallowed_methods, reason = "requests carry when they were received")]
fn main() -> Result<(), Box<dyn Error>> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/models");
    let pool = ComputePool::new(PoolConfig::default());
    let registry = Registry::start(RegistryConfig::repository(models), vec![Arc::new(TractBackend::default())], pool)?;
    block_on(registry.settled());

    // A lease: this one version stays loaded for as long as `model` lives, whatever changes on disk.
    let context = RequestContext::new(std::time::Instant::now());
    let model = registry.resolve(&ModelRef::new("half_plus_two"), &context)?;
    let (_, signature) = model.signatures().find("").ok_or("every model has a default signature")?;
    let inputs = signature.arrange([("x", Tensor::from_vec(&[3], vec![1.0_f32, 2.0, 5.0])?)])?;

    let answer = block_on(model.infer(InferRequest::new(inputs, context)))?;
    println!("{}, version {}: y = {:?}", model.model(), model.version(), answer.outputs[0].elements::<f32>()?);
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
