"""TensorFlow Serving's gRPC API without TensorFlow: the stubs are made from `/proto`, here, in a temporary folder.

    millrace serve fixtures/models
    pip install grpcio-tools
    python examples/clients/tfs_grpc.py [HOST:PORT]

prints `half_plus_two 1 says [2.5, 3.0, 4.5]`. The stubs of `tensorflow-serving-api` do as well.
"""

import pathlib
import sys
import tempfile

import grpc
import grpc_tools
from grpc_tools import protoc

proto = pathlib.Path(__file__).parents[2] / "proto"
with tempfile.TemporaryDirectory() as stubs:
    sources = [str(path.relative_to(proto)) for path in proto.rglob("tensorflow*/**/*.proto")]
    own = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    if protoc.main(["", f"-I{proto}", f"-I{own}", f"--python_out={stubs}", f"--grpc_python_out={stubs}", *sources]):
        sys.exit("the stubs cannot be made")
    sys.path.append(stubs)
    from tensorflow_serving.apis.predict_pb2 import PredictRequest
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

request = PredictRequest()
request.model_spec.name = "half_plus_two"
request.model_spec.version_label = "stable"
request.inputs["x"].dtype = 1  # DT_FLOAT
request.inputs["x"].tensor_shape.dim.add().size = 3
request.inputs["x"].float_val.extend([1.0, 2.0, 5.0])

channel = grpc.insecure_channel(sys.argv[1] if len(sys.argv) > 1 else "localhost:8080")
answer = PredictionServiceStub(channel).Predict(request, timeout=5)
print(answer.model_spec.name, answer.model_spec.version.value, "says", list(answer.outputs["y"].float_val))
