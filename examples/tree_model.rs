//! A fraud check inside your own program: boosted trees, exported from scikit-learn to ONNX, asked without any server.
//!
//! ```sh
//! cargo run --release -p millrace-examples --example tree_model [MODEL.onnx]
//! ```
//!
//! Prints what the model is made of, and how likely each of three card payments is fraud:
//!
//! ```text
//! transaction FP32[N,10] -> probability FP32[N,1]; 13 KB of trees; classes 0, 1
//! groceries around the corner: 0.1 %: passes
//! a watch, bought online at night: 72.7 %: needs a call
//! the third payment abroad within the hour: 99.9 %: is stopped
//! ```

#![expect(clippy::print_stdout, reason = "this program shows its results")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_backend_trees::TreesBackend;
use millrace_core::{Backend, Batch, MemoryFiles, Model, ModelSource, RunContext, Tensor};

/// What the model asks about a payment, in its order.
#[derive(Debug, Clone, Copy)]
struct Payment {
    amount: f32,
    /// The amount divided by what this card pays on average.
    amount_over_mean: f32,
    /// The share of fraud among payments in this kind of shop.
    merchant_risk: f32,
    hour: f32,
    km_from_home: f32,
    km_from_last: f32,
    minutes_since_last: f32,
    payments_24h: f32,
    card_present: bool,
    country_differs: bool,
}

impl Payment {
    fn features(&self) -> [f32; 10] {
        let flag = |is_set: bool| f32::from(u8::from(is_set));
        [
            self.amount,
            self.amount_over_mean,
            self.merchant_risk,
            self.hour,
            self.km_from_home,
            self.km_from_last,
            self.minutes_since_last,
            self.payments_24h,
            flag(self.card_present),
            flag(self.country_differs),
        ]
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let boosted = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/models/fraud/2/model.onnx");
    let model = load(std::env::args().nth(1).map_or(boosted, PathBuf::from))?;
    let signature = model.signature();
    let classes = model.facts().properties.get("classes").cloned().unwrap_or_default();
    let (input, output) = (&signature.inputs()[0], &signature.outputs()[0]);
    println!("{input} -> {output}; {} KB of trees; classes {classes}", model.memory_bytes() / 1000);

    let groceries = Payment {
        amount: 31.2,
        amount_over_mean: 0.8,
        merchant_risk: 0.03,
        hour: 17.5,
        km_from_home: 1.2,
        km_from_last: 0.9,
        minutes_since_last: 540.0,
        payments_24h: 2.0,
        card_present: true,
        country_differs: false,
    };
    let watch = Payment {
        amount: 240.0,
        amount_over_mean: 3.2,
        merchant_risk: 0.2,
        hour: 2.4,
        card_present: false,
        ..groceries
    };
    let abroad = Payment {
        amount_over_mean: 4.0,
        km_from_home: 1900.0,
        km_from_last: 1900.0,
        minutes_since_last: 20.0,
        payments_24h: 9.0,
        country_differs: true,
        ..watch
    };
    let payments = [
        ("groceries around the corner", groceries),
        ("a watch, bought online at night", watch),
        ("the third payment abroad within the hour", abroad),
    ];
    let scores = ask(&*model, &payments.map(|(_, payment)| payment))?;
    for ((what, _), score) in payments.iter().zip(scores) {
        let verdict = match score {
            ..0.5 => "passes",
            ..0.9 => "needs a call",
            _ => "is stopped",
        };
        println!("{what}: {:.1} %: {verdict}", 100.0 * score);
    }
    Ok(())
}

/// Reads the file into memory and lets the engine compile it.
fn load(file: PathBuf) -> Result<Arc<dyn Model>, Box<dyn Error>> {
    let files = MemoryFiles::default().with("model.onnx", std::fs::read(file)?);
    let source = ModelSource::new("fraud".parse()?, 2, Arc::new(files));
    Ok(TreesBackend::default().load(&source)?)
}

/// Asks about all payments at once. A program that asks often keeps the instance: its memory serves the next question.
fn ask(model: &dyn Model, payments: &[Payment]) -> Result<Vec<f32>, Box<dyn Error>> {
    let rows = payments.iter().flat_map(Payment::features).collect();
    let transaction = Tensor::from_vec(&[payments.len(), 10], rows)?;
    let inputs = model.signature().arrange([("transaction", transaction)])?;
    let admission = model.signature().check(&inputs)?;
    let mut instance = model.instance()?;
    let outputs = instance.run(&Batch::single(inputs, admission.rows), &RunContext::plain())?;
    let probability = outputs.0.into_iter().flatten().next().ok_or("the model has no output")?;
    Ok(probability.elements::<f32>()?.into_owned())
}

#[test]
fn three_payments_are_told_apart() {
    main().unwrap();
}
