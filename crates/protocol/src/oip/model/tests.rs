//! Views of one model with versions 1 and 2, of which 2 is batched in the catalog.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_core::{
    Catalog, Code, DType, Dim, InferFuture, InferRequest, ModelName, ModelRef, ModelStatus, Reason, Refusal,
    RequestContext, Resolver, Servable, Signature, Signatures, TensorSpec, VersionChoice, VersionState, VersionStatus,
};

use super::{ModelConfig, ModelMetadata, model_config, model_metadata};
use crate::oip::Failure;

#[derive(Debug)]
struct Known {
    name: ModelName,
    version: u64,
    signatures: Signatures,
}

impl Servable for Known {
    fn model(&self) -> &ModelName {
        &self.name
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signatures(&self) -> &Signatures {
        &self.signatures
    }

    fn infer(&self, _request: InferRequest) -> InferFuture {
        InferFuture::refused(Refusal::new(Reason::Unsupported, "only looked at here"))
    }
}

/// One model, `m`.
#[derive(Debug)]
struct OneModel;

impl Resolver for OneModel {
    fn resolve(&self, model: &ModelRef<'_>, _context: &RequestContext) -> Result<Arc<dyn Servable>, Refusal> {
        if model.name != "m" {
            return Err(Refusal::new(Reason::ModelUnknown, "no such model"));
        }
        let version = if let VersionChoice::Number(number) = model.version { number } else { 2 };
        if !(1..=2).contains(&version) {
            return Err(Refusal::new(Reason::VersionUnknown, "no such version"));
        }
        let spec = |name, dtype| TensorSpec::new(name, dtype, [Dim::symbol("N"), Dim::Fixed(4)]);
        let counts = TensorSpec::new("counts", DType::Int32, [Dim::symbol("N")]);
        let boxes = TensorSpec::new("boxes", DType::Fp32, [Dim::Unknown, Dim::Fixed(3)]).ragged_by("counts");
        let outputs = vec![spec("y", DType::Bytes), counts, boxes];
        let signature = Signature::new(vec![spec("x", DType::Fp32)], outputs).unwrap();
        let name = "m".parse().unwrap();
        Ok(Arc::new(Known { name, version, signatures: Signatures::single(signature) }))
    }
}

impl Catalog for OneModel {
    fn models(&self) -> Vec<ModelStatus> {
        self.model("m").into_iter().collect()
    }

    fn model(&self, name: &str) -> Option<ModelStatus> {
        let mut model = ModelStatus::new("m".parse().unwrap());
        let version =
            |number, state| VersionStatus { backend: Some("tract".into()), ..VersionStatus::new(number, state) };
        model.versions = vec![version(1, VersionState::Available), version(2, VersionState::Available)];
        model.versions.push(version(3, VersionState::Loading));
        model.versions[1].max_batch_size = 32;
        model.versions[1].batch_delay = Some(Duration::from_micros(500));
        model.versions[1].executors = Some(3);
        (name == "m").then_some(model)
    }

    fn is_ready(&self) -> bool {
        true
    }
}

#[expect(clippy::disallowed_methods, reason = "any instant will do, and there is no other way to one")]
fn context() -> RequestContext {
    RequestContext::new(Instant::now())
}

fn metadata(model: &ModelRef<'_>) -> Result<ModelMetadata, Failure> {
    model_metadata(&OneModel, &OneModel, model, &context())
}

fn config(version: u64) -> ModelConfig {
    model_config(&OneModel, &OneModel, &ModelRef::with_version("m", version), &context()).unwrap()
}

#[test]
fn metadata_lists_what_is_ready_and_shapes_with_the_batch_axis() {
    let seen = metadata(&ModelRef::new("m")).unwrap();
    assert_eq!((seen.versions, seen.platform.as_str()), (vec![1, 2], "onnx_tract"));
    assert_eq!((seen.inputs[0].dtype, seen.inputs[0].sizes.as_slice()), (DType::Fp32, &[-1, 4][..]));
    assert_eq!(metadata(&ModelRef::with_version("m", 1)).unwrap().versions, [1]);
}

#[test]
fn what_is_unknown_is_not_found_in_tritons_words() {
    let failure = metadata(&ModelRef::new("n\n")).unwrap_err();
    assert_eq!((failure.code(), failure.http_status()), (Code::NotFound, 404));
    assert_eq!(failure.to_string(), "Request for unknown model: 'n\\n' is not found");
    let failure = metadata(&ModelRef::with_version("m", 9)).unwrap_err();
    assert_eq!(failure.to_string(), "Request for unknown model: 'm' version 9 is not found");
}

#[test]
fn a_batched_models_dims_leave_the_batch_axis_out() {
    let batched = config(2);
    assert_eq!((batched.max_batch_size, batched.inputs[0].dims.as_slice()), (32, &[4][..]));
    assert_eq!((batched.max_queue_delay_microseconds, batched.instance_count), (Some(500), Some(3)));
    assert_eq!((batched.outputs[0].data_type(), batched.backend.as_str()), ("TYPE_STRING", "tract"));
    let single = config(1);
    assert_eq!((single.max_batch_size, single.inputs[0].dims.as_slice()), (0, &[-1, 4][..]));
    assert_eq!((single.max_queue_delay_microseconds, single.instance_count), (None, None));
}

#[test]
fn a_ragged_output_has_rows_of_unknown_number_and_as_many_axes_as_clients_count() {
    let outputs = metadata(&ModelRef::new("m")).unwrap().outputs;
    assert_eq!((outputs[1].sizes.as_slice(), outputs[2].sizes.as_slice()), (&[-1][..], &[-1, 3][..]));
    for (version, counts, boxes) in [(1, &[-1][..], &[-1, 3][..]), (2, &[][..], &[3][..])] {
        let outputs = config(version).outputs;
        assert_eq!((outputs[1].dims.as_slice(), outputs[2].dims.as_slice()), (counts, boxes), "version {version}");
    }
}
