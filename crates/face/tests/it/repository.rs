//! The fixtures as a repository: the pipelines' `model.toml` name their models, and a registry serves them all.

use std::num::NonZeroUsize;
use std::sync::Arc;

use millrace_backend_tract::TractBackend;
use millrace_batching::{ComputePool, PoolConfig};
use millrace_core::{Catalog, ModelRef, RequestContext, Resolver};
use millrace_registry::{Parts, Registry, RegistryConfig};
use millrace_testkit::fixture;

use crate::golden::{flat, golden};
use crate::harness::{ask, assert_near, astronaut, cosine, counts, file, now, numbers};

#[test]
fn a_registry_serves_the_pipelines_of_the_fixtures() {
    let threads = NonZeroUsize::new(2).unwrap();
    let pool = ComputePool::new(PoolConfig { threads, ..PoolConfig::default() });
    let backends: Vec<Arc<dyn millrace_core::Backend>> = vec![Arc::new(TractBackend::default())];
    let parts = Parts { backends, pipelines: millrace_face::factories(), ..Parts::default() };
    let registry = Registry::start(RegistryConfig::repository(fixture("face-models")), parts, pool).unwrap();
    pollster::block_on(registry.settled());
    assert_eq!(registry.warnings(), Vec::<String>::new());
    let find = |name| registry.resolve(&ModelRef::new(name), &RequestContext::new(now())).unwrap();

    let face = &golden()["faces"][0];
    let found = ask(&find("face_detection"), &[astronaut()]).unwrap();
    assert_near(&numbers(&found, 1), &flat(&face["bbox"]), 0.01 / 512.0);
    let described = ask(&find("face_pipeline"), &[astronaut()]).unwrap();
    assert_eq!(counts(&described), [1]);
    assert!(cosine(&numbers(&described, 4), &flat(&face["embedding"])) >= 0.9999);
    let chip = ask(&find("face_recognition"), &[file("face/astronaut_aligned.png")]).unwrap();
    assert!(cosine(&numbers(&chip, 0), &flat(&golden()["aligned_png_embedding"])) >= 0.9995);

    for (name, answered) in [("face_detection", 1), ("face_pipeline", 1), ("mtcnn_onet", 2), ("face_embedding", 2)] {
        let status = registry.model(name).unwrap();
        assert_eq!(status.versions[0].statistics.answered.count, answered, "{name}");
    }
}
