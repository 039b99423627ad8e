//! `GetModelMetadata`: what a model takes and gives, as TensorFlow's signature definitions.

use millrace_core::{Dim, Protocol, Reason, Refusal, RequestContext, Signature, TensorSpec};
use millrace_proto::tensorflow::serving::model_spec::VersionChoice;
use millrace_proto::tensorflow::serving::{
    GetModelMetadataRequest, GetModelMetadataResponse, ModelSpec, SignatureDefMap,
};
use millrace_proto::tensorflow::tensor_info::Encoding;
use millrace_proto::tensorflow::tensor_shape_proto::Dim as DimProto;
use millrace_proto::tensorflow::{SignatureDef, TensorInfo, TensorShapeProto};
use millrace_protocol::tfs::{self, Bare, data_type_number};
use prost::Message;
use prost_types::Any;

use super::{failure, spec_of};
use crate::call::Call;
use crate::failure::Failure;
use crate::service::Shared;

/// The only field there is.
const SIGNATURE_DEF: &str = "signature_def";
const TYPE_URL: &str = "type.googleapis.com/tensorflow.serving.SignatureDefMap";

/// Answers the request.
///
/// # Errors
/// A [`Failure`]: no model or field named, another field, or the model is not there.
pub(super) fn metadata(
    shared: &Shared,
    call: Call<'_>,
    request: &GetModelMetadataRequest,
) -> Result<GetModelMetadataResponse, Failure> {
    let spec = request.model_spec.as_ref().map(spec_of);
    let model = tfs::ModelSpec::model(spec.as_ref())?;
    if request.metadata_field.is_empty() {
        return Err(invalid("GetModelMetadataRequest must specify at least one metadata_field".to_owned()));
    }
    if let Some(field) = request.metadata_field.iter().find(|field| *field != SIGNATURE_DEF) {
        return Err(invalid(format!("Metadata field {} is not supported", Bare(field))));
    }
    let context = RequestContext {
        caller: call.connection.caller,
        protocol: Protocol::TfsGrpc,
        ..RequestContext::new(call.received)
    };
    let servable = tfs::resolve(&*shared.parts.resolver, &model, &context)?;
    let signatures = servable.signatures().iter().map(|(name, signature)| (name.to_owned(), definition(signature)));
    let map = SignatureDefMap { signature_def: signatures.collect() };
    let any = Any { type_url: TYPE_URL.to_owned(), value: map.encode_to_vec() };
    Ok(GetModelMetadataResponse {
        model_spec: Some(ModelSpec {
            name: servable.model().to_string(),
            signature_name: String::new(),
            version_choice: Some(VersionChoice::Version(servable.version().cast_signed())),
        }),
        metadata: [(SIGNATURE_DEF.to_owned(), any)].into(),
    })
}

fn invalid(message: String) -> Failure {
    failure(Refusal::new(Reason::InvalidInput, message))
}

fn definition(signature: &Signature) -> SignatureDef {
    let tensors = |specs: &[TensorSpec]| specs.iter().map(|spec| (spec.name.to_string(), info(spec))).collect();
    SignatureDef {
        inputs: tensors(signature.inputs()),
        outputs: tensors(signature.outputs()),
        method_name: "tensorflow/serving/predict".to_owned(),
        ..SignatureDef::default()
    }
}

fn info(spec: &TensorSpec) -> TensorInfo {
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) => i64::try_from(*size).unwrap_or(i64::MAX),
        Dim::Symbol(_) | Dim::Expr(_) | Dim::Unknown => -1,
    };
    let dim = spec.shape.iter().map(|dim| DimProto { size: size(dim), name: String::new() }).collect();
    TensorInfo {
        dtype: data_type_number(spec.dtype),
        tensor_shape: Some(TensorShapeProto { dim, unknown_rank: false }),
        encoding: Some(Encoding::Name(spec.name.to_string())),
    }
}
