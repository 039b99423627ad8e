//! One model on two engines: tract, which is built in, and the ONNX Runtime of this machine, which is found and loaded.
//!
//! ```sh
//! pip install onnxruntime        # or ORT_DYLIB_PATH=/path/to/libonnxruntime.so
//! cargo run --release -p millrace-examples --features onnxruntime --example onnxruntime [MODEL.onnx]
//! ```
//!
//! Prints something like this:
//!
//! ```text
//! tract: 8 rows in 0.046 ms; probabilities[0..4] = [2.8e-3, 5.4e-2, 2.4e-3, 3.9e-1]
//! onnxruntime: version 1.31.1 from …/libonnxruntime.so.1.31.1 (AzureExecutionProvider, CPUExecutionProvider)
//! onnxruntime: 8 rows in 0.039 ms; probabilities[0..4] = [2.8e-3, 5.4e-2, 2.4e-3, 3.9e-1]
//! ```
//!
//! Without a library, one line says where it was looked for and what to do, and that is all of the second engine:
//!
//! ```text
//! onnxruntime: no library found (libonnxruntime.so); looked in: …; set ORT_DYLIB_PATH to the file of the library, or `pip install onnxruntime`
//! ```

#![expect(clippy::print_stdout, reason = "this program shows its results")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use millrace_backend_onnxruntime::{Availability, OnnxRuntimeBackend};
use millrace_backend_tract::TractBackend;
use millrace_core::{Backend, Batch, DType, Dim, MemoryFiles, ModelSource, RunContext, Tensor, TensorList, TensorSpec};

fn main() -> Result<(), Box<dyn Error>> {
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/models/digits/1/model.onnx");
    let file = std::env::args().nth(1).map_or(digits, PathBuf::from);
    let files = MemoryFiles::default().with("model.onnx", std::fs::read(file)?);
    let source = ModelSource::new("model".parse()?, 1, Arc::new(files));
    println!("tract: {}", ask(&TractBackend::default(), &source)?);
    // Nothing is loaded yet: `availability` tells what was found, `connect` loads it, and so would the first model.
    let engine = OnnxRuntimeBackend::default();
    let availability = engine.connect();
    println!("onnxruntime: {availability}");
    if matches!(availability, Availability::Loaded { .. }) {
        println!("onnxruntime: {}", ask(&engine, &source)?);
    }
    Ok(())
}

/// Loads `source` on `engine` and asks it about some rows, again and again.
fn ask(engine: &dyn Backend, source: &ModelSource) -> Result<String, Box<dyn Error>> {
    let model = engine.load(source)?;
    let signature = model.signature();
    let rows = if signature.is_batched() { 8 } else { 1 };
    let inputs = signature.inputs().iter().map(|spec| made_up(spec, rows)).collect::<Result<TensorList, _>>()?;
    model.admit(&signature.check(&inputs)?)?;
    let (mut instance, batch) = (model.instance()?, Batch::single(inputs, rows));
    let mut times = Vec::new();
    let mut outputs = instance.run(&batch, &RunContext::plain())?;
    for _ in 0..50 {
        let start = now();
        outputs = instance.run(&batch, &RunContext::plain())?;
        times.push(start.elapsed());
    }
    times.sort();
    let first = outputs.0.into_iter().flatten().next().ok_or("the model has no output")?;
    let name = &signature.outputs()[0].name;
    let millis = times[times.len() / 2].as_secs_f64() * 1e3;
    Ok(format!("{rows} rows in {millis:.3} ms; {name}[0..4] = {}", start_of(&first)))
}

/// The first numbers of an output.
fn start_of(tensor: &Tensor) -> String {
    match tensor.elements::<f32>() {
        Ok(numbers) => {
            let shown: Vec<String> = numbers.iter().take(4).map(|number| format!("{number:.1e}")).collect();
            format!("[{}]", shown.join(", "))
        }
        Err(_) => format!("{tensor:?}"),
    }
}

/// Numbers that suit most models: small fractions, or ones.
fn made_up(spec: &TensorSpec, rows: usize) -> Result<Tensor, Box<dyn Error>> {
    let size = |(axis, dim): (usize, &Dim)| match dim {
        _ if spec.batch_axis == Some(axis) => rows,
        Dim::Fixed(size) => *size,
        Dim::Symbol(_) | Dim::Expr(_) | Dim::Unknown => 16,
    };
    let sizes: Vec<usize> = spec.shape.iter().enumerate().map(size).collect();
    let count: u16 = sizes.iter().product::<usize>().try_into()?;
    match spec.dtype {
        DType::Fp32 => Ok(Tensor::from_vec(&sizes, (0..count).map(|n| f32::from(n % 17) / 16.0).collect())?),
        DType::Int64 => Ok(Tensor::from_vec(&sizes, vec![1_i64; count.into()])?),
        other => Err(format!("input {} is {other}; this example makes up FP32 and INT64", spec.name).into()),
    }
}

#[expect(clippy::disallowed_methods, reason = "this program measures")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn it_runs() {
    main().unwrap();
}
