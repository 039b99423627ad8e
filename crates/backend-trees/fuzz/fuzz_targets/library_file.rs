//! Any bytes as a file of XGBoost or LightGBM: no panic, memory within a multiple of the file, and what loads also runs.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use millrace_backend_trees::TreesBackend;
use millrace_core::{Backend, Batch, Dim, MemoryFiles, ModelSource, RunContext, Tensor};

fuzz_target!(|file: &[u8]| {
    let files = MemoryFiles::default().with("model.json", file.to_vec());
    let source = ModelSource::new("fuzzed".parse().expect("a name"), 1, Arc::new(files));
    let Ok(model) = TreesBackend::default().load(&source) else { return };
    let Dim::Fixed(features) = model.signature().inputs()[0].shape[1] else { panic!("features are counted") };
    if features > 4096 {
        return;
    }
    let mut instance = model.instance().expect("a model that loads has instances");
    for rows in [1, 9] {
        let values = (0..rows * features).map(|value| [f32::NAN, 0.0, 1.0, -2.5, 1e9][value % 5]).collect();
        let input = Tensor::from_vec(&[rows, features], values).expect("as many values as the shape says");
        let batch = Batch::single([input].into_iter().collect(), rows);
        instance.run(&batch, &RunContext::plain()).expect("a model that loads runs");
    }
});
