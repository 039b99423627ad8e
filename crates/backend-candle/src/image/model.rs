//! The loaded model and its instances: from requests to tensors and back, a few pictures at a time.

use std::sync::Arc;

use candle_core::Tensor as CandleTensor;
use millrace_core::{
    Admission, Batch, BatchOutputs, DType, InputError, Instance, LoadError, Model, ModelFacts, RunContext, RunError,
    Shape, Signature, Tensor, TensorError, guarded,
};
use rayon::prelude::*;

use super::head::Network;
use crate::backend::Loading;
use crate::device::{Place, Staging};
use crate::options::Precision;

/// The most numbers of one step for one picture: 1 GiB in FP32. What is larger would rather be a mistake.
const MOST_NUMBERS: usize = 1 << 28;

/// On the CPU pictures gain nothing from sharing a product once they are as large as this together, and lose the processor's
/// own memory: one of 224 by 224 with three channels.
const ENOUGH_NUMBERS: usize = 3 * 224 * 224;

/// A network over pictures.
#[derive(Debug)]
pub(super) struct ImageModel(Arc<Loaded>);

#[derive(Debug)]
struct Loaded {
    network: Network,
    place: Place,
    precision: candle_core::DType,
    memory_bytes: u64,
    facts: ModelFacts,
}

impl ImageModel {
    pub(super) fn new(loading: &Loading<'_>, network: Network) -> Self {
        let (place, weights) = (&loading.place, &loading.weights);
        let precision = if place.is_cpu() { candle_core::DType::F32 } else { weights.precision().dtype() };
        let memory_bytes = weights.n_bytes();
        Self(Arc::new(Loaded {
            facts: facts(loading, &network),
            network,
            place: place.clone(),
            precision,
            memory_bytes,
        }))
    }
}

fn facts(loading: &Loading<'_>, network: &Network) -> ModelFacts {
    let Loading { config, place, weights, .. } = loading;
    let kept = weights.precision();
    let precision = if place.is_cpu() && kept != Precision::Fp32 {
        format!("{} weights, FP32 arithmetic", kept.name())
    } else {
        kept.name().to_owned()
    };
    let properties = [
        ("architecture", config.architectures().join(", ")),
        ("model type", config.model_type().to_owned()),
        ("precision", precision),
        ("device", place.name()),
        ("layers", network.layers()),
    ];
    let stated = properties.into_iter().filter(|(_, value)| !value.is_empty());
    ModelFacts {
        weight_bytes: Some(weights.bytes_by_type().values().sum()),
        weight_types: weights.bytes_by_type(),
        properties: stated.map(|(name, value)| (name.to_owned(), value)).collect(),
        ..ModelFacts::default()
    }
}

impl Model for ImageModel {
    fn signature(&self) -> &Signature {
        self.0.network.signature()
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(ImageInstance { loaded: Arc::clone(&self.0), staging: self.0.place.staging() }))
    }

    fn memory_bytes(&self) -> u64 {
        self.0.memory_bytes
    }

    fn admit(&self, admission: &Admission) -> Result<(), InputError> {
        // ViT has no free sizes.
        let [height, width] = admission.group.0.as_slice() else { return Ok(()) };
        let needed = self.0.network.most_numbers(*height, *width);
        if *height > 0 && *width > 0 && needed <= MOST_NUMBERS {
            return Ok(());
        }
        let output = Arc::clone(&self.signature().outputs()[0].name);
        let detail =
            format!("pictures of {height} by {width} give {needed} numbers at once, from 1 to {MOST_NUMBERS} can be");
        Err(InputError::OutputSize { output, detail })
    }

    fn uses_threads(&self) -> bool {
        self.0.place.is_cpu()
    }

    fn facts(&self) -> ModelFacts {
        self.0.facts.clone()
    }
}

struct ImageInstance {
    loaded: Arc<Loaded>,
    staging: Staging,
}

impl Instance for ImageInstance {
    fn run(&mut self, batch: &Batch, context: &RunContext<'_>) -> Result<BatchOutputs, RunError> {
        if (context.cancelled)() {
            return Err(RunError::Cancelled);
        }
        let pixels = batch.gather(0)?;
        let wanted = |index| context.wanted.includes(index);
        let Self { loaded, staging } = self;
        let outcome = guarded(|| match loaded.place.is_cpu() {
            true => loaded.on_cpu(&pixels, &wanted, context),
            false => loaded.on_card(&pixels, &wanted, staging),
        });
        outcome.map_err(|panicked| RunError::Failed(Box::new(panicked)))?
    }
}

impl Loaded {
    /// A few pictures at a time, on as many threads as there may be.
    fn on_cpu(
        &self,
        pixels: &Tensor,
        wanted: &(dyn Fn(usize) -> bool + Sync),
        context: &RunContext<'_>,
    ) -> Result<BatchOutputs, RunError> {
        let sizes = pixels.shape().to_vec();
        let [rows, ref one @ ..] = *sizes.as_slice() else { return Ok(BatchOutputs::all([])) };
        let enough = ENOUGH_NUMBERS.div_ceil(one.iter().product::<usize>().max(1));
        let step = enough.min(rows.div_ceil(context.threads.max(1))).max(1);
        let part = |start: usize| -> Result<Vec<Option<Tensor>>, RunError> {
            if (context.cancelled)() {
                return Err(RunError::Cancelled);
            }
            let part = pixels.rows(start..rows.min(start + step));
            self.pictures(&part, wanted, &mut self.place.staging())
        };
        let starts: Vec<usize> = (0..rows).step_by(step).collect();
        let work = || match starts.as_slice() {
            [only] => Ok(vec![part(*only)?]),
            several if context.threads > 1 => several.par_iter().map(|start| part(*start)).collect(),
            several => several.iter().map(|start| part(*start)).collect(),
        };
        let parts: Vec<Vec<Option<Tensor>>> =
            self.place.run(context.threads, work).map_err(|error| RunError::Failed(Box::new(error)))??;
        let join = |index: usize| {
            let pieces: Option<Vec<Tensor>> = parts.iter().map(|part| part[index].clone()).collect();
            match pieces.as_deref() {
                None => Ok(None),
                Some([only]) => Ok(Some(only.clone())),
                Some(pieces) => Tensor::concat(pieces).map(Some),
            }
        };
        Ok(BatchOutputs((0..self.network.signature().outputs().len()).map(join).collect::<Result<_, _>>()?))
    }

    fn on_card(
        &self,
        pixels: &Tensor,
        wanted: &dyn Fn(usize) -> bool,
        staging: &mut Staging,
    ) -> Result<BatchOutputs, RunError> {
        let numbers = match **pixels.shape() {
            [rows, _, height, width] => self.network.most_numbers(height, width).saturating_mul(rows),
            _ => 0,
        };
        let bytes = numbers.saturating_mul(self.precision.size_in_bytes());
        let _room = self.place.hold_run(u64::try_from(bytes).unwrap_or(u64::MAX))?;
        Ok(BatchOutputs(self.pictures(pixels, wanted, staging)?.into_iter().collect()))
    }

    /// The outputs for some pictures, all at once.
    fn pictures(
        &self,
        pixels: &Tensor,
        wanted: &dyn Fn(usize) -> bool,
        staging: &mut Staging,
    ) -> Result<Vec<Option<Tensor>>, RunError> {
        let failed = |error| self.place.failed(error);
        let numbers = pixels.elements::<f32>()?;
        let uploaded = staging.upload(&numbers, pixels.shape()).and_then(|pixels| pixels.to_dtype(self.precision));
        let outputs = self.network.forward(&uploaded.map_err(failed)?, wanted, staging).map_err(failed)?;
        let mut download = |output: CandleTensor| {
            let output = output.to_dtype(candle_core::DType::F32).map_err(failed)?;
            let shape = Shape::new(output.dims()).map_err(TensorError::from)?;
            let bytes = staging.download(&output).map_err(failed)?;
            Ok(Tensor::new(DType::Fp32, shape, bytes)?)
        };
        outputs.into_iter().map(|output| output.map(&mut download).transpose()).collect()
    }
}
