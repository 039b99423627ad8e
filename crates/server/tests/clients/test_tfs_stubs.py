"""TensorFlow Serving over gRPC, with stubs generated from our own `.proto` files: no TensorFlow anywhere.

What stock clients of this protocol depend on:
- `tensorflow-serving-api` and hand-written clients read answers in the `…_val` fields (`outputs["y"].float_val`);
  `tf.make_ndarray` reads either form.
- `model_spec` of the answer names the version that answered and the signature, written out.
- `metadata["signature_def"]` is an `Any` that unpacks to `SignatureDefMap`.
"""

import stubs  # noqa: F401  makes the modules below

import os

import grpc
import numpy as np
from google.protobuf.wrappers_pb2 import Int64Value
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.tensor_shape_pb2 import TensorShapeProto
from tensorflow.core.framework import types_pb2 as types
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, ModelVersionStatus
from tensorflow_serving.apis.inference_pb2 import InferenceTask, MultiInferenceRequest
from tensorflow_serving.apis.input_pb2 import Input
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
from tensorflow_serving.apis.regression_pb2 import RegressionRequest

from common import DATA, REPOSITORY, cases, equal, main, refused, true

channel = grpc.insecure_channel(DATA, [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])
prediction = PredictionServiceStub(channel)
models = ModelServiceStub(channel)

FIELDS = {
    "FP32": ("DT_FLOAT", "float_val"), "FP64": ("DT_DOUBLE", "double_val"), "FP16": ("DT_HALF", "half_val"),
    "INT8": ("DT_INT8", "int_val"), "INT16": ("DT_INT16", "int_val"), "INT32": ("DT_INT32", "int_val"),
    "UINT8": ("DT_UINT8", "int_val"), "UINT16": ("DT_UINT16", "int_val"), "INT64": ("DT_INT64", "int64_val"),
    "UINT32": ("DT_UINT32", "uint32_val"), "UINT64": ("DT_UINT64", "uint64_val"), "BOOL": ("DT_BOOL", "bool_val"),
    "BYTES": ("DT_STRING", "string_val"),
}


def shape(sizes):
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in sizes])


def tensor(array, datatype, content=False):
    name, field = FIELDS[datatype]
    made = TensorProto(dtype=types.DataType.Value(name), tensor_shape=shape(array.shape))
    if content and datatype != "BYTES":
        made.tensor_content = array.tobytes()
    else:
        elements = array.view(np.uint16) if datatype == "FP16" else array
        getattr(made, field).extend(elements.ravel().tolist())
    return made


def array(answer, like):
    """The answer as an array of the dtype of `like`, whichever form it has."""
    sizes = [dim.size for dim in answer.tensor_shape.dim]
    if answer.tensor_content:
        return np.frombuffer(answer.tensor_content, like.dtype).reshape(sizes)
    _, field = next(pair for pair in FIELDS.values() if types.DataType.Value(pair[0]) == answer.dtype)
    values = getattr(answer, field)
    if like.dtype == np.float16:
        return np.array(values, np.uint16).view(np.float16).reshape(sizes)
    return np.array(list(values), like.dtype).reshape(sizes)


def spec(model, version=None, **rest):
    return ModelSpec(name=model, version=None if version is None else Int64Value(value=version), **rest)


def half_plus_two(*values, version=None, **rest):
    return PredictRequest(model_spec=spec("half_plus_two", version, **rest), inputs={"x": tensor(np.array(values, np.float32), "FP32")})


def fails(code, act, *texts):
    error = refused(grpc.RpcError, act)
    equal(error.code(), code, error.details())
    for text in texts:
        true(text in error.details(), f"`{error.details()}` lacks `{text}`")


BAD, UNKNOWN, EARLY = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION


def test_golden_cases_in_either_encoding():
    for case in cases():
        for content in (False, True):
            inputs = {name: tensor(value, case.datatypes[name], content) for name, value in case.inputs.items()}
            answer = prediction.Predict(PredictRequest(model_spec=spec(case.model, case.version), inputs=inputs), timeout=20)
            equal(set(answer.outputs), set(case.outputs))
            for name, want in case.outputs.items():
                case.check(name, array(answer.outputs[name], want))
            equal((answer.model_spec.name, answer.model_spec.version.value), (case.model, case.version))
            equal(answer.model_spec.signature_name, "serving_default")


def test_answers_are_in_the_typed_fields():
    answer = prediction.Predict(half_plus_two(1, 2, 5, version=1))
    equal(list(answer.outputs["y"].float_val), [2.5, 3.0, 4.5])
    equal(answer.outputs["y"].tensor_content, b"")


def test_bytes_of_a_request_and_of_its_answer():
    # half_plus_two with x = [1, 2, 5], and nothing about the version.
    written = bytes.fromhex("0a0f0a0d68616c665f706c75735f74776f 121b0a017812160801120412020803 2a0c0000803f000000400000a040")
    answer = PredictResponse.FromString(channel.unary_unary("/tensorflow.serving.PredictionService/Predict")(written))
    equal(list(answer.outputs["y"].float_val), [3.5, 4.0, 5.5])
    equal((answer.model_spec.version.value, answer.model_spec.signature_name), (2, "serving_default"))


def test_versions_labels_and_signatures():
    for wanted, value in (({}, 5.0), ({"version": 2}, 5.0), ({"version": 1}, 4.0), ({"version": 0}, 5.0), ({"version_label": "stable"}, 4.0)):
        equal(list(prediction.Predict(half_plus_two(4, **wanted)).outputs["y"].float_val), [value], wanted)
    prediction.Predict(half_plus_two(4, signature_name="serving_default"))
    fails(UNKNOWN, lambda: prediction.Predict(half_plus_two(4, version=9)), "half_plus_two", "9")
    fails(BAD, lambda: prediction.Predict(half_plus_two(4, version_label="wild")), "wild")
    fails(EARLY, lambda: prediction.Predict(half_plus_two(4, signature_name="other")), "other")
    fails(UNKNOWN, lambda: prediction.Predict(PredictRequest(model_spec=spec("nothing"))), "nothing")
    fails(BAD, lambda: prediction.Predict(PredictRequest()))
    fails(BAD, lambda: prediction.Predict(PredictRequest(model_spec=ModelSpec(signature_name="serving_default"))))


def test_output_filter():
    iris = {"features": tensor(np.zeros((2, 4), np.float32), "FP32")}
    only = prediction.Predict(PredictRequest(model_spec=spec("iris"), inputs=iris, output_filter=["label"]))
    equal(set(only.outputs), {"label"})
    fails(BAD, lambda: prediction.Predict(PredictRequest(model_spec=spec("iris"), inputs=iris, output_filter=["other"])), "other")
    fails(BAD, lambda: prediction.Predict(PredictRequest(model_spec=spec("iris"), inputs=iris, output_filter=["label", "label"])), "label")


def test_short_and_long_value_fields():
    def ask(sizes, **fields):
        request = PredictRequest(model_spec=spec("identity_fp32"))
        request.inputs["x"].CopyFrom(TensorProto(dtype=types.DT_FLOAT, tensor_shape=shape(sizes), **fields))
        return list(prediction.Predict(request).outputs["y"].float_val)
    equal(ask([2, 4], float_val=[1, 2]), [1, 2, 2, 2, 2, 2, 2, 2], "the last value fills the rest")
    equal(ask([1, 4]), [0, 0, 0, 0], "no value means zeros")
    equal(ask([1, 4], double_val=[7]), [0, 0, 0, 0], "another type's field is not read")
    equal(ask([1, 4], float_val=[1, 2, 3, 4, 5]), [1, 2, 3, 4], "what is too much is left out")
    equal(ask([1, 4], tensor_content=np.ones(4, np.float32).tobytes(), float_val=[9]), [1, 1, 1, 1], "content goes first")
    for sizes, fields in (
        ([1, 4], {"tensor_content": b"\0" * 15}), ([-1, 4], {"float_val": [1]}), ([1 << 40, 4], {"float_val": [1]}),
        ([1 << 62, 4], {"float_val": [1]}), ([4], {"float_val": [1]}), ([1, 5], {"float_val": [1]}),
    ):
        fails(BAD, lambda: ask(sizes, **fields), "x")


def test_inputs_must_be_the_signatures():
    fails(BAD, lambda: prediction.Predict(PredictRequest(model_spec=spec("half_plus_two"))), "x")
    fails(BAD, lambda: prediction.Predict(PredictRequest(model_spec=spec("half_plus_two"), inputs={"z": tensor(np.ones(1, np.float32), "FP32")})))
    fails(BAD, lambda: prediction.Predict(PredictRequest(model_spec=spec("half_plus_two"), inputs={"x": tensor(np.ones(1, np.int64), "INT64")})), "x")


def test_classify_regress_and_multi_inference_are_for_examples():
    text = Input()
    text.example_list.examples.add().features.feature["x"].float_list.value.append(1.0)
    fails(BAD, lambda: prediction.Classify(ClassificationRequest(model_spec=spec("half_plus_two"), input=text)))
    fails(BAD, lambda: prediction.Regress(RegressionRequest(model_spec=spec("half_plus_two"), input=text)))
    fails(UNKNOWN, lambda: prediction.Classify(ClassificationRequest(model_spec=spec("nothing"), input=text)), "nothing")

    def multi(*tasks):
        made = [InferenceTask(model_spec=spec(model, signature_name=signature), method_name=method) for model, signature, method in tasks]
        return lambda: prediction.MultiInference(MultiInferenceRequest(tasks=made, input=text))
    classify, regress = "tensorflow/serving/classify", "tensorflow/serving/regress"
    fails(BAD, multi(("half_plus_two", "", classify), ("iris", "", regress)))
    fails(BAD, multi(("half_plus_two", "serving_default", classify), ("half_plus_two", "serving_default", regress)))
    fails(BAD, multi(("half_plus_two", "serving_default", classify)))
    fails(grpc.StatusCode.UNIMPLEMENTED, multi(("half_plus_two", "serving_default", "tensorflow/serving/other")), "other")


def test_metadata():
    answer = prediction.GetModelMetadata(GetModelMetadataRequest(model_spec=spec("sum_diff"), metadata_field=["signature_def"]))
    equal((answer.model_spec.name, answer.model_spec.version.value), ("sum_diff", 1))
    signatures = SignatureDefMap()
    true(answer.metadata["signature_def"].Unpack(signatures), answer.metadata["signature_def"].type_url)
    signature = signatures.signature_def["serving_default"]
    equal(signature.method_name, "tensorflow/serving/predict")
    equal({name: (info.dtype, [dim.size for dim in info.tensor_shape.dim]) for name, info in signature.inputs.items()},
          {"a": (types.DT_INT32, [-1]), "b": (types.DT_INT32, [-1, 2])})
    equal(set(signature.outputs), {"s", "d"})
    fails(BAD, lambda: prediction.GetModelMetadata(GetModelMetadataRequest(model_spec=spec("sum_diff"))))
    fails(BAD, lambda: prediction.GetModelMetadata(GetModelMetadataRequest(model_spec=spec("sum_diff"), metadata_field=["other"])), "other")
    fails(UNKNOWN, lambda: prediction.GetModelMetadata(GetModelMetadataRequest(model_spec=spec("nothing"), metadata_field=["signature_def"])))


def available(model, version=None):
    answer = models.GetModelStatus(GetModelStatusRequest(model_spec=spec(model, version)))
    return sorted(status.version for status in answer.model_version_status if status.state == ModelVersionStatus.AVAILABLE)


def test_status():
    equal(available("half_plus_two"), [1, 2])
    equal(available("half_plus_two", 1), [1])
    status = models.GetModelStatus(GetModelStatusRequest(model_spec=spec("iris"))).model_version_status[0]
    equal((status.status.error_code, status.status.error_message), (0, ""))
    fails(UNKNOWN, lambda: available("nothing"), "nothing")
    fails(UNKNOWN, lambda: available("half_plus_two", 9), "9")
    fails(BAD, lambda: models.GetModelStatus(GetModelStatusRequest()))


def test_compression_and_large_messages():
    large = np.random.default_rng(1).random((1, 2 << 20), np.float32)
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate):
        request = PredictRequest(model_spec=spec("row_mean"), inputs={"x": tensor(large, "FP32", content=True)}, output_filter=["doubled"])
        answer = prediction.Predict(request, compression=compression, timeout=60)
        true((array(answer.outputs["doubled"], large) == large * 2).all(), compression)


# Last, because it leaves few models behind.
def test_reload_config_replaces_what_is_served():
    def wanted(*configs):
        request = ReloadConfigRequest()
        for name, path, versions, labels in configs:
            config = request.config.model_config_list.config.add(name=name, base_path=path, model_platform="tensorflow", version_labels=labels)
            if versions:
                config.model_version_policy.specific.versions.extend(versions)
        return request
    path = os.path.join(REPOSITORY, "half_plus_two")
    before = available("half_plus_two"), available("iris")
    fails(BAD, lambda: models.HandleReloadConfigRequest(ReloadConfigRequest()))
    fails(BAD, lambda: models.HandleReloadConfigRequest(wanted(("a", path, [], {}), ("a", path, [], {}))), "a")
    fails(BAD, lambda: models.HandleReloadConfigRequest(wanted(("a", "half_plus_two", [], {}))), "a")
    equal((available("half_plus_two"), available("iris")), before, "a refused list changes nothing")
    answer = models.HandleReloadConfigRequest(wanted(("half_plus_two", path, [1], {"old": 1})))
    equal(answer.status.error_code, 0)
    equal(available("half_plus_two"), [1])
    equal(list(prediction.Predict(half_plus_two(4)).outputs["y"].float_val), [4.0])
    equal(list(prediction.Predict(half_plus_two(4, version_label="old")).outputs["y"].float_val), [4.0])
    fails(UNKNOWN, lambda: prediction.Predict(PredictRequest(model_spec=spec("iris"), inputs={"features": tensor(np.zeros((1, 4), np.float32), "FP32")})))
    fails(EARLY, lambda: models.HandleReloadConfigRequest(wanted(("half_plus_two", path, [1], {"new": 2}))), "half_plus_two")
    models.HandleReloadConfigRequest(wanted(("half_plus_two", path, [1, 2], {}), ("iris", os.path.join(REPOSITORY, "iris"), [], {})))
    equal((available("half_plus_two"), available("iris")), ([1, 2], [1]))


main(globals())
