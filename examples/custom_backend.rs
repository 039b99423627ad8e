//! A backend of your own: logistic regression read from a text file, passing the suite that every backend passes.
//! The backend is what stands above `main`; the suite is all that its test file would hold.
//!
//! ```sh
//! cargo run --example custom_backend
//! # logistic conforms: it may serve under every front-end
//! ```

use std::sync::Arc;

use millrace_core::{
    Backend, Batch, BatchOutputs, DType, Dim, Instance, LoadError, LoadErrorKind, MemoryFiles, Model, ModelSource,
    RunContext, RunError, Signature, Tensor, TensorSpec,
};
use millrace_testkit::conformance::{self, Subject};

const FILE: &str = "weights.txt";

#[derive(Debug)]
struct LogisticBackend;

impl Backend for LogisticBackend {
    fn name(&self) -> &'static str {
        "logistic"
    }
    fn recognises(&self, source: &ModelSource) -> bool {
        source.files.list().iter().any(|(name, _)| name == FILE)
    }
    fn load(&self, source: &ModelSource) -> Result<Arc<dyn Model>, LoadError> {
        let missing =
            |error| LoadError::new(LoadErrorKind::Missing, format!("{FILE} cannot be read")).with_cause(error);
        let invalid = || LoadError::new(LoadErrorKind::Invalid, format!("{FILE}: expected numbers, the bias first"));
        let text = source.files.read(FILE).map_err(missing)?;
        let text = std::str::from_utf8(&text).map_err(|_| invalid())?;
        let mut numbers = text.split_whitespace().map(|word| word.parse::<f32>().map_err(|_| invalid()));
        let bias = numbers.next().ok_or_else(invalid)??;
        let weights = numbers.collect::<Result<Vec<f32>, _>>()?;
        if weights.is_empty() {
            return Err(invalid());
        }
        let x = TensorSpec::new("x", DType::Fp32, [Dim::symbol("N"), Dim::Fixed(weights.len())]);
        let y = TensorSpec::new("probability", DType::Fp32, [Dim::symbol("N")]);
        let signature = Signature::new(vec![x], vec![y]).map_err(|_| invalid())?;
        Ok(Arc::new(Logistic { signature, parameters: Arc::new((bias, weights)) }))
    }
}

#[derive(Debug)]
struct Logistic {
    signature: Signature,
    parameters: Arc<(f32, Vec<f32>)>,
}

impl Model for Logistic {
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(Worker(Arc::clone(&self.parameters))))
    }
}

struct Worker(Arc<(f32, Vec<f32>)>);

impl Instance for Worker {
    fn run(&mut self, batch: &Batch, _context: &RunContext<'_>) -> Result<BatchOutputs, RunError> {
        let (bias, weights) = &*self.0;
        let x = batch.gather(0)?; // all requests of the batch, joined
        let score = |row: &[f32]| row.iter().zip(weights).fold(*bias, |sum, (x, w)| sum + x * w);
        let rows = x.elements::<f32>()?.chunks(weights.len()).map(|row| 1.0 / (1.0 + (-score(row)).exp())).collect();
        Ok(BatchOutputs::all([Tensor::from_vec(&[batch.rows()], rows)?]))
    }
}

#[expect(clippy::print_stdout, reason = "an example speaks to its reader")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let version = |text: &'static str| -> Result<ModelSource, Box<dyn std::error::Error>> {
        Ok(ModelSource::new("churn".parse()?, 1, Arc::new(MemoryFiles::default().with(FILE, text))))
    };
    let x = Tensor::from_vec(&[2, 2], vec![0.0_f32, 0.0, 1.0, 2.0])?;
    let probability = Tensor::from_vec(&[2], vec![0.5_f32, 0.880_797])?; // 1 / (1 + e^-2)
    let good = Subject::new(version("0.0 4.0 -1.0")?).case([("x", x)], [("probability", probability)], 1e-6);
    conformance::run(&LogisticBackend, &[good], &[version("no numbers")?, version("")?, version("0.5")?], &[]);
    println!("logistic conforms: it may serve under every front-end");
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
