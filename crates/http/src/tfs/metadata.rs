//! What a model takes and gives, in the shape of TensorFlow's signature definitions.

use std::collections::BTreeMap;

use millrace_core::{Dim, RequestContext, Resolver, TensorSpec};
use millrace_protocol::front::now;
use millrace_protocol::tfs::{data_type_name, resolve};
use serde::Serialize;

use super::status::document;
use super::{Target, version_too_large};
use crate::error::Failure;
use crate::response::Answer;

#[derive(Serialize)]
struct Metadata<'a> {
    model_spec: ModelSpec<'a>,
    metadata: Fields<'a>,
}

#[derive(Serialize)]
struct ModelSpec<'a> {
    name: &'a str,
    signature_name: &'static str,
    version: String,
}

/// The doubled name is TensorFlow Serving's: a metadata field whose message has a map of the same name.
#[derive(Serialize)]
struct Fields<'a> {
    signature_def: SignatureMap<'a>,
}

#[derive(Serialize)]
struct SignatureMap<'a> {
    signature_def: BTreeMap<&'a str, SignatureDef<'a>>,
}

#[derive(Serialize)]
struct SignatureDef<'a> {
    inputs: BTreeMap<&'a str, TensorInfo<'a>>,
    outputs: BTreeMap<&'a str, TensorInfo<'a>>,
    method_name: &'static str,
    defaults: BTreeMap<&'a str, ()>,
}

#[derive(Serialize)]
struct TensorInfo<'a> {
    dtype: &'static str,
    tensor_shape: TensorShape,
    name: &'a str,
}

#[derive(Serialize)]
struct TensorShape {
    dim: Vec<DimBody>,
    unknown_rank: bool,
}

#[derive(Serialize)]
struct DimBody {
    /// A 64-bit integer, so a string; -1 where it is not a fixed number.
    size: String,
    name: &'static str,
}

/// `GET …/metadata`.
///
/// # Errors
/// As for predict: 404 for a model or version that is not known, 400 for a label.
pub(super) fn metadata(resolver: &dyn Resolver, target: &Target<'_>) -> Result<Answer, Failure> {
    let wanted = target.model().map_err(|error| version_too_large(&error))?;
    let servable = resolve(resolver, &wanted, &RequestContext::new(now()))?;
    let signatures = servable.signatures().iter().map(|(name, signature)| {
        let definition = SignatureDef {
            inputs: tensors(signature.inputs()),
            outputs: tensors(signature.outputs()),
            method_name: "tensorflow/serving/predict",
            defaults: BTreeMap::new(),
        };
        (name, definition)
    });
    Ok(document(&Metadata {
        model_spec: ModelSpec {
            name: servable.model().as_str(),
            signature_name: "",
            version: servable.version().to_string(),
        },
        metadata: Fields { signature_def: SignatureMap { signature_def: signatures.collect() } },
    }))
}

fn tensors(specs: &[TensorSpec]) -> BTreeMap<&str, TensorInfo<'_>> {
    let info = |spec| {
        (name_of(spec), TensorInfo { dtype: data_type_name(spec.dtype), tensor_shape: shape(spec), name: &spec.name })
    };
    specs.iter().map(info).collect()
}

fn name_of(spec: &TensorSpec) -> &str {
    &spec.name
}

fn shape(spec: &TensorSpec) -> TensorShape {
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) => size.to_string(),
        Dim::Symbol(_) | Dim::Expr(_) | Dim::Unknown => "-1".to_owned(),
    };
    let dim = spec.shape.iter().map(|dim| DimBody { size: size(dim), name: "" }).collect();
    TensorShape { dim, unknown_rank: false }
}
