use std::sync::Arc;

use candle_core::Device;
use millrace_core::{
    Admission, Batch, BatchOutputs, InputError, Instance, LoadError, LoadErrorKind, Model, RunContext, RunError,
    Signature, Tensor,
};
use parking_lot::Mutex;

use super::{DeviceOptions, Grouping, Place, Wish, spread};

fn options(wish: Wish) -> DeviceOptions {
    DeviceOptions { wish, streams: 2, memory: None }
}

#[test]
fn the_cpu_is_one_place_without_accounts() {
    let places = Place::open(&options(Wish::Cpu)).unwrap();
    let [place] = places.as_slice() else { panic!("{places:?}") };
    assert!(place.is_cpu());
    assert_eq!(place.name(), "cpu");
    assert_eq!(place.grouping(), Grouping::Equal);
    place.hold_weights(u64::MAX).unwrap();
    assert!(place.hold_run(u64::MAX).unwrap().is_none());
}

/// Where a card answers, this is about the card.
#[test]
fn auto_always_finds_a_place_that_computes() {
    for place in Place::open(&options(Wish::Auto)).unwrap() {
        let mut staging = place.staging();
        let tensor = staging.upload(&[1_f32, 2.0], &[2]).unwrap();
        let doubled = (&tensor + &tensor).unwrap();
        let bytes = staging.download(&doubled).unwrap();
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&bytes), [2.0, 4.0]);
        assert_eq!(place.is_cpu(), matches!(place.device(), Device::Cpu));
    }
}

#[test]
fn a_card_that_is_demanded_and_absent_is_an_error_that_says_what_is_missing() {
    // No machine has this one.
    let error = Place::open(&options(Wish::Cuda(63))).unwrap_err();
    assert_eq!(error.kind(), LoadErrorKind::Unsupported);
    let text = error.to_string();
    let reasons = ["built without CUDA", "libcuda.so.1 is not on the loader's path", "sees no card"];
    assert!(text.starts_with("option `device`: ") && reasons.iter().any(|reason| text.contains(reason)), "{text}");
    #[cfg(not(feature = "cuda"))]
    assert_eq!(
        text,
        "option `device`: this program was built without CUDA; `cargo xtask build-cuda` builds one with it"
    );
}

#[test]
fn errors_that_are_not_about_memory_stay_what_they_are() {
    let place = Place::cpu();
    let error = || candle_core::Error::Msg("broken".to_owned());
    assert!(matches!(place.failed(error()), RunError::Failed(cause) if cause.to_string() == "broken"));
    let error = place.load_failed("model.safetensors", error());
    assert_eq!((error.kind(), error.to_string().as_str()), (LoadErrorKind::Engine, "model.safetensors: broken"));
}

/// A model that says which one it is by what its instances refuse with.
#[derive(Debug)]
struct Numbered(usize, Signature);

struct Refusing(usize);

impl Model for Numbered {
    fn signature(&self) -> &Signature {
        &self.1
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(Refusing(self.0)))
    }

    fn memory_bytes(&self) -> u64 {
        10
    }

    fn weigh(&self, _inputs: &[Tensor], admission: &Admission) -> Result<usize, InputError> {
        Ok(7 * admission.rows)
    }
}

impl Instance for Refusing {
    fn run(&mut self, _batch: &Batch, _context: &RunContext<'_>) -> Result<BatchOutputs, RunError> {
        Err(RunError::InvalidInput(self.0.to_string()))
    }
}

#[test]
fn instances_are_spread_over_streams_in_turn() {
    let loaded = Mutex::new(0);
    let load = |_| {
        *loaded.lock() += 1;
        Ok(Arc::new(Numbered(*loaded.lock(), Signature::new(Vec::new(), Vec::new()).unwrap())) as Arc<dyn Model>)
    };
    let model = spread(vec![Place::cpu(), Place::cpu(), Place::cpu()], load).unwrap();
    let who = || {
        let mut instance = model.instance().unwrap();
        instance.run(&Batch::new(Vec::new(), 0), &RunContext::plain()).unwrap_err().to_string()
    };
    let mut seen = [who(), who(), who()];
    assert_eq!(who(), seen[0], "the fourth shares the first one's stream");
    seen.sort();
    assert_eq!(seen, ["1", "2", "3"]);
    assert_eq!(model.memory_bytes(), 30);
    assert_eq!(model.facts().properties["streams"], "3");
    // One stream needs nobody to spread.
    assert_eq!(spread(vec![Place::cpu()], load).unwrap().memory_bytes(), 10);
}
