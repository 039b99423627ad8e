use std::sync::Arc;

use millrace_core::{
    Admission, BatchOutputs, DType, Dim, DimExpr, InputError, Instance, LoadError, Model, RunContext, RunError,
    Signature, Tensor, TensorSpec,
};
use millrace_testkit::FakeModel;

use super::{invent, samples, warm};
use crate::{WarmupConfig, WarmupInput, WarmupRequest};

/// What a run does, given its first input.
type Behaviour = fn(&Tensor) -> Result<Vec<Tensor>, RunError>;

#[derive(Debug, Clone)]
struct Odd {
    signature: Signature,
    behaviour: Behaviour,
    /// What it says about requests of mixed sizes.
    weigh: fn(&[Tensor]) -> Result<usize, InputError>,
}

impl Model for Odd {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(self.clone()))
    }

    fn weigh(&self, inputs: &[Tensor], _: &Admission) -> Result<usize, InputError> {
        (self.weigh)(inputs)
    }
}

impl Instance for Odd {
    fn run(&mut self, batch: &millrace_core::Batch, _: &RunContext<'_>) -> Result<BatchOutputs, RunError> {
        (self.behaviour)(&batch.gather(0)?).map(BatchOutputs::all)
    }
}

fn rows(dtype: DType) -> Signature {
    let spec = |name| TensorSpec::new(name, dtype, vec![Dim::symbol("N")]);
    Signature::new(vec![spec("x")], vec![spec("y")]).unwrap()
}

/// Warms a model that behaves so; what it gives as an error, if any.
fn check(signature: Signature, behaviour: Behaviour) -> Result<(), String> {
    let model: Arc<dyn Model> = Arc::new(Odd { signature, behaviour, weigh: |_| Ok(1) });
    warm(&model, &WarmupConfig::default()).map_err(|error| error.to_string())
}

#[test]
fn a_model_runs_with_each_configured_number_of_rows() {
    let model = FakeModel::builder().width(3).build();
    warm(&model.as_model(), &WarmupConfig::default()).unwrap();
    assert_eq!(model.runs(), [1, 8]);
    let unbatched = FakeModel::builder().unbatched().build();
    warm(&unbatched.as_model(), &WarmupConfig::default()).unwrap();
    assert_eq!(unbatched.runs(), [1]);
    let off = FakeModel::builder().build();
    warm(&off.as_model(), &WarmupConfig { enabled: false, ..WarmupConfig::default() }).unwrap();
    assert!(off.runs().is_empty());
}

#[test]
fn every_dtype_can_be_invented_as_zeros_and_as_ones() {
    for dtype in DType::ALL {
        for fill in [0, 1] {
            let inputs = invent(&rows(dtype), 3, 1, fill).unwrap();
            assert_eq!(inputs[0].dtype(), dtype);
            rows(dtype).check(&inputs).unwrap();
        }
    }
    let ones = invent(&rows(DType::Fp32), 2, 1, 1).unwrap();
    assert_eq!(ones[0].elements::<f32>().unwrap().as_ref(), [1.0, 1.0]);
    let ones = invent(&rows(DType::Bytes), 2, 1, 1).unwrap();
    assert_eq!(ones[0].strings().unwrap().iter().collect::<Vec<_>>(), [b"1", b"1"]);
}

#[test]
fn a_model_that_zeros_break_is_tried_with_ones() {
    let divides = |x: &Tensor| {
        let values: Vec<i64> = x.elements::<i64>()?.iter().map(|&value| 100 / value).collect();
        Ok(vec![Tensor::from_vec(x.shape(), values)?])
    };
    assert_eq!(check(rows(DType::Int64), divides), Ok(()));
}

#[test]
fn invalid_input_proves_nothing_and_failing_always_does() {
    assert_eq!(check(rows(DType::Fp32), |_| Err(RunError::InvalidInput("not like this".to_owned()))), Ok(()));
    let failed = check(rows(DType::Fp32), |_| Err(RunError::Failed("inner text".into()))).unwrap_err();
    assert!(failed.contains("failed when warmed up with 1 rows") && !failed.contains("inner text"), "{failed}");
    let panicked = check(rows(DType::Fp32), |_| panic!("boom")).unwrap_err();
    assert!(panicked.contains("panicked") && panicked.contains("enabled = false"), "{panicked}");
}

#[test]
fn outputs_that_contradict_the_signature_fail_the_load() {
    let wrong =
        check(rows(DType::Fp32), |x| Ok(vec![Tensor::from_vec(x.shape(), vec![0_i64; x.shape().n_elements()])?]));
    assert!(wrong.unwrap_err().contains("expected FP32, got INT64"));
}

#[test]
fn a_free_axis_gets_the_first_size_that_gives_every_output_a_size() {
    let input = TensorSpec::new("x", DType::Fp32, vec![Dim::symbol("N"), Dim::symbol("L")]);
    let shorter = DimExpr::Sum(vec![DimExpr::Symbol(Arc::from("L")), DimExpr::Number(-5)]);
    let output = TensorSpec::new("y", DType::Fp32, vec![Dim::symbol("N"), Dim::Expr(shorter)]);
    let signature = Signature::new(vec![input], vec![output]).unwrap();
    let ran = check(signature, |x| {
        assert_eq!(x.shape()[1], 8, "one column would leave fewer than none");
        Ok(vec![Tensor::from_vec(&[x.shape()[0], 3], vec![0.0_f32; x.shape()[0] * 3])?])
    });
    assert_eq!(ran, Ok(()));
}

#[test]
fn inputs_too_large_to_invent_are_passed_over() {
    let spec = |name, sizes: &[usize]| {
        TensorSpec::new(name, DType::Fp32, sizes.iter().map(|size| Dim::Fixed(*size)).collect::<Vec<_>>())
    };
    let signature = Signature::new(vec![spec("x", &[1 << 20, 1 << 20])], vec![spec("y", &[1])]).unwrap();
    assert_eq!(check(signature, |_| panic!("never runs")), Ok(()));
}

#[test]
fn recorded_requests_become_inputs_for_whoever_tries_the_model() {
    let input =
        |dims: &[usize]| WarmupInput { name: "x".to_owned(), dtype: None, dims: dims.to_vec(), is_random: true };
    let request = |rows, dims: &[usize]| WarmupRequest {
        name: "w".to_owned(),
        rows,
        runs: std::num::NonZeroUsize::MIN,
        inputs: vec![input(dims)],
    };
    // The second does not fit: an axis too many.
    let requests = vec![request(2, &[]), request(2, &[3, 4]), request(5, &[])];
    let recorded = samples(&WarmupConfig { requests, ..WarmupConfig::default() }).unwrap();
    let inputs = recorded.inputs(&rows(DType::Fp32));
    let sizes: Vec<usize> = inputs.iter().map(|inputs| inputs[0].shape().n_elements()).collect();
    assert_eq!(sizes, [2, 5]);
    assert!(samples(&WarmupConfig::default()).is_none());
}

#[test]
fn a_model_of_mixed_sizes_is_warmed_up_with_values_that_it_takes() {
    let spec = |name| TensorSpec::new(name, DType::Int64, vec![Dim::symbol("N"), Dim::symbol("S")]);
    let signature = Signature::new(vec![spec("mask")], vec![spec("y")]).unwrap().mixed("S").unwrap();
    let weigh = |inputs: &[Tensor]| match inputs[0].elements::<i64>() {
        Ok(mask) if mask.iter().all(|mark| *mark == 1) => Ok(mask.len()),
        _ => Err(InputError::NoRows),
    };
    // What its queue would never let through never reaches it here either.
    let behaviour: Behaviour = |x| {
        assert!(x.elements::<i64>()?.iter().all(|mark| *mark == 1));
        Err(RunError::Failed("it ran".into()))
    };
    let model: Arc<dyn Model> = Arc::new(Odd { signature: signature.clone(), behaviour, weigh });
    let failure = warm(&model, &WarmupConfig::default()).unwrap_err().to_string();
    assert!(failure.contains("failed when warmed up with 1 rows"), "{failure}");
    let never = Odd { signature, behaviour: |_| panic!("never runs"), weigh: |_| Err(InputError::NoRows) };
    let model: Arc<dyn Model> = Arc::new(never);
    warm(&model, &WarmupConfig::default()).unwrap();
}
