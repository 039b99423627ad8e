//! A network that gives what a golden case says its tokens' vectors are: for what the wrapper does with them, without an engine.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use millrace_core::{
    Admission, Backend, Batch, BatchOutputs, DType, Dim, InputError, Instance, LoadError, Model, ModelSource,
    RunContext, RunError, Signature, Tensor, TensorSpec,
};
use millrace_testkit::Case;

/// The vectors of a row's tokens, by its ids and its mask up to the last token.
type Known = HashMap<(Vec<i64>, Vec<i64>), Vec<f32>>;

/// How the network looks from outside.
#[derive(Debug, Clone)]
pub(crate) struct Replay {
    pub(crate) known: Known,
    pub(crate) inputs: Vec<(&'static str, DType)>,
    /// Names of outputs; those that are not the vectors of tokens are vectors of texts: the first token's.
    pub(crate) outputs: Vec<&'static str>,
    pub(crate) width: usize,
    /// The most tokens of one run, padding included.
    pub(crate) most: usize,
    pub(crate) runs: Arc<AtomicUsize>,
}

impl Replay {
    /// The network of the cases of `model`.
    pub(crate) fn of(model: &str) -> Self {
        let mut known = Known::new();
        let mut width = 0;
        for case in Case::folder("cases/text").into_iter().filter(|case| case.model == model) {
            let find = |named: &[(String, Tensor)], name: &str| {
                named.iter().find(|(known, _)| known == name).map(|(_, tensor)| tensor.clone()).unwrap()
            };
            let hidden = find(&case.outputs, "last_hidden_state");
            width = hidden.shape()[2];
            let length = hidden.shape()[1];
            let ids = find(&case.inputs, "input_ids");
            let mask = find(&case.inputs, "attention_mask");
            let (ids, mask) = (ids.elements::<i64>().unwrap(), mask.elements::<i64>().unwrap());
            let hidden = hidden.elements::<f32>().unwrap();
            for (row, vectors) in hidden.chunks(length * width).enumerate() {
                let key = key(&ids[row * length..(row + 1) * length], &mask[row * length..(row + 1) * length]);
                known.insert(key, vectors.to_vec());
            }
        }
        let inputs =
            vec![("input_ids", DType::Int64), ("attention_mask", DType::Int64), ("token_type_ids", DType::Int64)];
        Self { known, inputs, outputs: vec!["last_hidden_state"], width, most: usize::MAX, runs: Arc::default() }
    }
}

fn key(ids: &[i64], mask: &[i64]) -> (Vec<i64>, Vec<i64>) {
    let end = mask.iter().rposition(|mask| *mask == 1).map_or(0, |last| last + 1);
    (ids[..end].to_vec(), mask[..end].to_vec())
}

impl Backend for Replay {
    fn name(&self) -> &'static str {
        "replay"
    }

    fn recognises(&self, _: &ModelSource) -> bool {
        true
    }

    fn load(&self, source: &ModelSource) -> Result<Arc<dyn Model>, LoadError> {
        millrace_core::OptionReader::new(&source.options).finish()?;
        let symbol = |name: &str| Dim::Symbol(Arc::from(name));
        let axes = || vec![symbol("n"), symbol("length")];
        let inputs = self.inputs.iter().map(|(name, dtype)| TensorSpec::new(name, *dtype, axes())).collect();
        let output = |name: &&str| {
            let mut shape = vec![symbol("n")];
            shape.extend(is_hidden(name).then(|| symbol("length")));
            shape.push(Dim::Fixed(self.width));
            TensorSpec::new(name, DType::Fp32, shape)
        };
        let signature = Signature::new(inputs, self.outputs.iter().map(output).collect()).unwrap();
        Ok(Arc::new(Loaded { signature, replay: self.clone() }))
    }
}

fn is_hidden(name: &str) -> bool {
    name.contains("hidden") || name.contains("token")
}

#[derive(Debug)]
struct Loaded {
    signature: Signature,
    replay: Replay,
}

impl Model for Loaded {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn admit(&self, admission: &Admission) -> Result<(), InputError> {
        let tokens = admission.rows * admission.group.0[0];
        if tokens > self.replay.most {
            let detail = format!("{tokens} tokens");
            return Err(InputError::OutputSize { output: Arc::from("last_hidden_state"), detail });
        }
        Ok(())
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(Worker(self.replay.clone())))
    }
}

struct Worker(Replay);

impl Instance for Worker {
    fn run(&mut self, batch: &Batch, context: &RunContext<'_>) -> Result<BatchOutputs, RunError> {
        self.0.runs.fetch_add(1, Ordering::SeqCst);
        let numbers = |index: usize| {
            let tensor = batch.gather(index).unwrap();
            match tensor.dtype() {
                DType::Int32 => tensor.elements::<i32>().unwrap().iter().map(|number| i64::from(*number)).collect(),
                _ => tensor.elements::<i64>().unwrap().to_vec(),
            }
        };
        let place = |name| self.0.inputs.iter().position(|(known, _)| *known == name).unwrap();
        let (ids, mask): (Vec<i64>, Vec<i64>) = (numbers(place("input_ids")), numbers(place("attention_mask")));
        let (rows, length, width) = (batch.rows(), ids.len() / batch.rows(), self.0.width);
        assert!(rows * length <= self.0.most);
        let mut hidden = vec![f32::NAN; rows * length * width];
        for row in 0..rows {
            let range = row * length..(row + 1) * length;
            let known = self.0.known.get(&key(&ids[range.clone()], &mask[range])).expect("a golden row");
            let own = known.len().min(length * width);
            hidden[row * length * width..][..own].copy_from_slice(&known[..own]);
        }
        let outputs = self.0.outputs.iter().enumerate().map(|(index, name)| {
            let tensor = if is_hidden(name) {
                Tensor::from_vec(&[rows, length, width], hidden.clone())
            } else {
                let first = hidden.chunks(length * width).flat_map(|row| row[..width].to_vec()).collect();
                Tensor::from_vec(&[rows, width], first)
            };
            context.wanted.includes(index).then(|| tensor.unwrap())
        });
        Ok(BatchOutputs(outputs.collect()))
    }
}
