//! Any bytes as an ONNX pipeline: no panic, bounded memory, and what loads also runs or says why not.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use millrace_backend_trees::TreesBackend;
use millrace_core::{
    Backend, Batch, DType, Dim, MemoryFiles, ModelSource, Part, RunContext, Strings, Tensor, TensorList, TensorSpec,
};

/// The most numbers that an input is made with.
const MOST: usize = 1 << 16;

fuzz_target!(|file: &[u8]| {
    let files = MemoryFiles::default().with("model.onnx", file.to_vec());
    let mut source = ModelSource::new("fuzzed".parse().expect("a name"), 1, Arc::new(files));
    source.memory_budget = 256 << 20;
    let Ok(model) = TreesBackend::default().load(&source) else { return };
    let _ = (model.facts(), model.memory_bytes());
    let signature = model.signature();
    let mut instance = model.instance().expect("a model that loads has instances");
    for rows in [1, 9] {
        let inputs: Option<TensorList> = signature.inputs().iter().map(|spec| input(spec, rows)).collect();
        let Some(inputs) = inputs else { return };
        let Ok(admission) = signature.check(&inputs) else { return };
        if model.admit(&admission).is_err() {
            return;
        }
        let part = Part { inputs, rows: admission.rows };
        let batch = Batch::new(vec![part], 0);
        if let Ok(outputs) = instance.run(&batch, &RunContext::plain()) {
            batch.split(&outputs, signature).expect("what comes out is what was promised");
        }
    }
});

fn input(spec: &TensorSpec, rows: usize) -> Option<Tensor> {
    let sizes: Vec<usize> = spec
        .shape
        .iter()
        .enumerate()
        .map(|(axis, dim)| match dim {
            Dim::Fixed(size) => *size,
            _ if axis == 0 => rows,
            _ => 4,
        })
        .collect();
    let count = sizes.iter().try_fold(1_usize, |product, size| product.checked_mul(*size))?;
    if count > MOST {
        return None;
    }
    let numbers = (0..count).map(|value| [f32::NAN, 0.0, 1.0, -2.5, 1e9][value % 5]);
    match spec.dtype {
        DType::Fp32 => Tensor::from_vec(&sizes, numbers.collect()),
        DType::Fp64 => Tensor::from_vec(&sizes, numbers.map(f64::from).collect()),
        DType::Int64 => Tensor::from_vec(&sizes, numbers.map(|x| x as i64).collect()),
        DType::Int32 => Tensor::from_vec(&sizes, numbers.map(|x| x as i32).collect()),
        DType::Bool => Tensor::from_vec(&sizes, numbers.map(|x| x > 0.5).collect()),
        DType::Bytes => {
            let texts: Strings = (0..count).map(|value| ["", "a", "1.5", "red"][value % 4]).collect();
            Tensor::from_strings(&sizes, texts)
        }
        other => panic!("no input is {other}"),
    }
    .ok()
}
