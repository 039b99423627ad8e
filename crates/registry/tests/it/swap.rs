//! Versions change under load, and nobody notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use millrace_core::{
    Backend, Catalog, InferRequest, Instance, LoadError, Model, ModelRef, ModelSource, Signature, Tensor, VersionState,
};
use millrace_testkit::FakeBackend;
use pollster::block_on;

use crate::repository::{Repository, context, start};

/// Counts the models that are in memory.
#[derive(Debug)]
struct Counting(Arc<AtomicU64>);

#[derive(Debug)]
struct Counted(Arc<dyn Model>, Arc<AtomicU64>);

impl Backend for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn recognises(&self, source: &ModelSource) -> bool {
        FakeBackend::default().recognises(source)
    }

    fn load(&self, source: &ModelSource) -> Result<Arc<dyn Model>, LoadError> {
        let model = FakeBackend::default().load(source)?;
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(Counted(model, Arc::clone(&self.0))))
    }
}

impl Model for Counted {
    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        self.0.instance()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Row 58, and the promise of the first page: twenty swaps, no failed request, every answer wholly one version's.
#[test]
fn twenty_version_swaps_under_load_fail_nothing_and_mix_nothing() {
    const SWAPS: u64 = 20;
    let repository = Repository::new();
    repository.version_with("m", 1, &FakeBackend::file(1.0, 1000.0));
    let in_memory = Arc::new(AtomicU64::new(0));
    let served = Arc::new(start(repository.config(), Counting(Arc::clone(&in_memory))));
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..4_u16)
        .map(|client| {
            let (served, stop, asked) = (Arc::clone(&served), Arc::clone(&stop), Arc::clone(&asked));
            thread::spawn(move || {
                let mut newest = 0;
                while !stop.load(Ordering::Relaxed) {
                    let lease = served.resolve(&ModelRef::new("m")).unwrap();
                    let version = lease.version();
                    assert!(version >= newest, "a client went back from version {newest} to {version}");
                    newest = version;
                    let xs: Vec<f32> = (0..5_u16).map(|row| f32::from(client * 10 + row)).collect();
                    let input = Tensor::from_vec(&[5], xs.clone()).unwrap();
                    let response = block_on(lease.infer(InferRequest::new([input].to_vec(), context()))).unwrap();
                    let scale = f32::from(u16::try_from(version).unwrap());
                    let expected: Vec<f32> = xs.iter().map(|x| x * scale + 1000.0 * scale).collect();
                    assert_eq!(response.outputs[0].elements::<f32>().unwrap().as_ref(), expected, "version {version}");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for version in 2..=SWAPS + 1 {
        let before = asked.load(Ordering::Relaxed);
        let scale = f32::from(u16::try_from(version).unwrap());
        repository.version_with("m", version, &FakeBackend::file(scale, 1000.0 * scale));
        served.rescan();
        assert_eq!(served.0.model("m").unwrap().default_version, Some(version));
        // Each version has answered something before the next one comes.
        while asked.load(Ordering::Relaxed) < before + 8 {
            assert!(!clients.iter().all(thread::JoinHandle::is_finished), "every client has failed");
            thread::yield_now();
        }
    }
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
    served.rescan();
    let status = served.0.model("m").unwrap();
    let serving = status.versions.iter().filter(|version| version.state == VersionState::Available);
    assert_eq!(serving.map(|version| version.version).collect::<Vec<_>>(), [SWAPS + 1]);
    assert!(asked.load(Ordering::Relaxed) >= SWAPS * 8);
    served.until("freeing the old versions", || in_memory.load(Ordering::SeqCst) == 1);
}
