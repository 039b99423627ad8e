"""The OpenVINO Model Server's client, which speaks TensorFlow Serving's protocol: gRPC and REST.

What this client depends on, found in its source:
- It always sends a version, and 0 where none was given: over gRPC as a present but empty `Int64Value`, over REST as
  `/versions/0`. Version 0 therefore has to mean "any" where no version 0 exists.
- Arrays travel as `tensor_content`, Python scalars in the `…_val` fields, text in `string_val`; REST bodies are always
  columnar (`inputs` by name), one-dimensional bytes as `b64` objects.
- With one output the caller gets the array itself. Over REST that goes by the answer: `outputs` is no object then.
- Over REST a `metadata` answer in TensorFlow Serving's spelling comes back as it is: the client understands only
  the spelling of its own server (`modelSpec`).
- NOT_FOUND, INVALID_ARGUMENT and DEADLINE_EXCEEDED have exceptions of their own; 404, 400, 413 and 503 likewise.
"""

import numpy as np
from ovmsclient import make_grpc_client, make_http_client
from ovmsclient.tfs_compat.base.errors import InvalidInputError, ModelNotFoundError

from common import DATA, cases, equal, main, refused, true

by_grpc = make_grpc_client(DATA)
by_http = make_http_client(DATA)


def single(case, outputs):
    return outputs if len(case.outputs) > 1 else {next(iter(case.outputs)): outputs}


def test_grpc_golden_cases():
    for case in cases():
        # The client writes fixed-width text, which numpy cuts at trailing zeros; it is asked in a test of its own.
        if "BYTES" in case.datatypes.values():
            continue
        got = single(case, by_grpc.predict(case.inputs, case.model, case.version))
        equal(set(got), set(case.outputs))
        for name in case.outputs:
            case.check(name, got[name])


def test_http_golden_cases():
    for case in cases():
        # TensorFlow Serving's JSON has no half precision and no UINT16. The client reads numbers as numpy guesses them,
        # which turns the largest of 64 bits into floats.
        if {"BYTES", "FP16", "UINT16", "UINT64"} & set(case.datatypes.values()):
            continue
        got = single(case, by_http.predict(case.inputs, case.model, case.version))
        equal(set(got), set(case.outputs))
        for name, want in case.outputs.items():
            case.check(name, got[name].astype(want.dtype))


def test_text():
    words = np.array([["ab", "", "ü", "long enough"]])
    for client in (by_grpc, by_http):
        got = [[text if isinstance(text, str) else text.decode() for text in row] for row in client.predict({"x": words}, "identity_string")]
        equal(got, words.tolist())
    equal(by_grpc.predict({"x": [[b"a", b"b", b"c", b"d"]]}, "identity_string").tolist(), [[b"a", b"b", b"c", b"d"]])


def test_python_values():
    for client in (by_grpc, by_http):
        equal(client.predict({"x": [1.0, 2.0, 5.0]}, "half_plus_two", 1).tolist(), [2.5, 3.0, 4.5])
        equal(client.predict({"x": 5.0}, "half_plus_two", 1, timeout=20.0).tolist(), [4.5])
        two = client.predict({"a": [1, 4], "b": [[2, 3], [5, 6]]}, "sum_diff")
        equal({name: value.tolist() for name, value in two.items()}, {"s": [6, 15], "d": [-4, -7]})


def test_no_version_is_sent_as_0_and_means_the_default():
    for client in (by_grpc, by_http):
        equal(client.predict({"x": [1.0]}, "half_plus_two").tolist(), [3.5])
        equal(client.predict({"x": [1.0]}, "half_plus_two", 1).tolist(), [2.5])
        refused(ModelNotFoundError, lambda: client.predict({"x": [1.0]}, "half_plus_two", 9), "half_plus_two")


def test_metadata():
    metadata = by_grpc.get_model_metadata("half_plus_two")
    equal(metadata["model_version"], 2)
    equal(metadata["inputs"], {"x": {"shape": [-1], "dtype": "DT_FLOAT"}})
    equal(metadata["outputs"], {"y": {"shape": [-1], "dtype": "DT_FLOAT"}})
    equal(by_grpc.get_model_metadata("half_plus_two", 1)["model_version"], 1)
    plain = by_http.get_model_metadata("half_plus_two")
    equal(plain["model_spec"]["version"], "2")
    equal(plain["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["x"]["dtype"], "DT_FLOAT")
    for client in (by_grpc, by_http):
        refused(ModelNotFoundError, lambda: client.get_model_metadata("nothing"), "nothing")
        refused(ModelNotFoundError, lambda: client.get_model_metadata("half_plus_two", 9))


def test_status():
    serving = {"state": "AVAILABLE", "error_code": 0, "error_message": ""}
    for client in (by_grpc, by_http):
        got = client.get_model_status("half_plus_two")
        equal({version: {**status, "error_code": int(status["error_code"])} for version, status in got.items()}, {1: serving, 2: serving})
        equal(list(client.get_model_status("half_plus_two", 1)), [1])
        refused(ModelNotFoundError, lambda: client.get_model_status("nothing"), "nothing")
        refused(ModelNotFoundError, lambda: client.get_model_status("half_plus_two", 9))


def test_mistakes():
    for client in (by_grpc, by_http):
        refused(InvalidInputError, lambda: client.predict({"x": [[1.0]]}, "half_plus_two"))
        refused(InvalidInputError, lambda: client.predict({"z": [1.0]}, "half_plus_two"))
        refused(InvalidInputError, lambda: client.predict({"x": [True]}, "half_plus_two"))
        equal(client.predict({"x": [1.0]}, "half_plus_two").tolist(), [3.5])


def test_large_tensor():
    large = np.random.default_rng(1).random((1, 2 << 20), np.float32)
    true((by_grpc.predict({"x": large}, "row_mean")["doubled"] == large * 2).all())


main(globals())
