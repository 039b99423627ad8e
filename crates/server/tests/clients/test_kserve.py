"""KServe's inference clients, REST (v1 and v2) and gRPC, and CloudEvents by the `cloudevents` package.

What these clients depend on, found in their source:
- The v2 REST client parses the bodies of the health answers and needs `live` and `ready`; a model's readiness is the
  status alone. The v1 client needs `{"status": "alive"}` at `/` and `ready` in the model's status.
- Requests name the model in the body too (`model_name`, which is not in the protocol), and always have an `id`.
- An answer's `model_name` is required; its `model_version` is not read over REST.
- Over gRPC, inputs set from numpy carry `binary_data_size` as an input parameter beside `raw_input_contents`.
- The gRPC client repeats calls that end in UNAVAILABLE, three times by default.
- Its messages bear the same names as tritonclient's, so the two cannot be imported by one process.
"""

import asyncio
import json

import grpc
import httpx
import numpy as np
import requests
from cloudevents.http import CloudEvent, from_http, to_binary, to_structured
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

from common import DATA, cases, equal, main, true

BASE = f"http://{DATA}"


def with_rest(protocol, ask):
    async def run():
        # The transport is named so that no proxy of the environment stands in between.
        async with InferenceRESTClient(RESTConfig(protocol=protocol, transport=httpx.AsyncHTTPTransport())) as client:
            await ask(client)
    asyncio.run(run())


def with_grpc(ask):
    async def run():
        async with InferenceGRPCClient(DATA) as client:
            await ask(client)
    asyncio.run(run())


async def fails(kind, waiting, *texts):
    try:
        answer = await waiting
    except kind as error:
        for text in texts:
            true(text in str(error), f"`{error}` lacks `{text}`")
        return error
    raise AssertionError(f"answered: {answer!r}")


def request(case, binary, outputs=None):
    inputs = []
    for name, array in case.inputs.items():
        tensor = InferInput(name, list(array.shape), case.datatypes[name])
        tensor.set_data_from_numpy(array, binary_data=binary)
        inputs.append(tensor)
    return InferRequest(case.model, inputs, request_outputs=outputs)


def newest(case):
    """These clients cannot ask for a version."""
    return (case.model, case.version) not in [("half_plus_two", 1), ("fraud", 1)]


def test_v2_health():
    async def ask(client):
        true(await client.is_server_live(BASE) is True and await client.is_server_ready(BASE) is True)
        true(await client.is_model_ready(BASE, "half_plus_two"))
        true(not await client.is_model_ready(BASE, "nothing"))
    with_rest("v2", ask)


def test_v2_golden_cases_in_json():
    async def ask(client):
        for case in filter(lambda case: case.has_json() and newest(case), cases()):
            if any(not np.isfinite(array).all() for array in case.inputs.values() if array.dtype.kind == "f"):
                continue  # This client reads and writes strict JSON.
            answer = await client.infer(BASE, request(case, False), case.model)
            for output in answer.outputs:
                case.check(output.name, output.as_numpy())
    with_rest("v2", ask)


def test_v2_golden_cases_in_binary():
    async def ask(client):
        for case in filter(newest, cases()):
            outputs = [RequestedOutput(name, {"binary_data": True}) for name in case.outputs]
            headers = {}
            answer = await client.infer(BASE, request(case, True, outputs), case.model, response_headers=headers)
            equal(headers["content-type"], "application/octet-stream")
            for output in answer.outputs:
                # The client has turned the bytes into a list, which has lost the dtype for text alone.
                case.check(output.name, output.as_numpy())
    with_rest("v2", ask)


def test_v2_plain_dictionary():
    async def ask(client):
        body = {"id": "a-1", "inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2, 5]}]}
        answer = await client.infer(BASE, body, "half_plus_two")
        equal((answer.id, answer.model_name, answer.outputs[0].data), ("a-1", "half_plus_two", [3.5, 4, 5.5]))
        graph = await client.infer(f"{BASE}/v2/models/half_plus_two/infer", body, is_graph_endpoint=True)
        equal(graph["outputs"][0]["data"], [3.5, 4, 5.5])
        await fails(httpx.HTTPStatusError, client.infer(BASE, body, "nothing"), "404", "nothing")
        await fails(httpx.HTTPStatusError, client.infer(BASE, {"inputs": []}, "half_plus_two"), "400")
    with_rest("v2", ask)


def test_v1():
    async def ask(client):
        true(await client.is_server_live(BASE) is True)
        true(await client.is_model_ready(BASE, "half_plus_two") is True)
        await fails(httpx.HTTPStatusError, client.is_model_ready(BASE, "nothing"), "404")
        rows = await client.infer(BASE, {"instances": [1.0, 2.0, 5.0]}, "half_plus_two")
        equal(rows, {"predictions": [3.5, 4.0, 5.5]})
        explained = await fails(httpx.HTTPStatusError, client.explain(BASE, "half_plus_two", {"instances": [1.0]}))
        equal(explained.response.status_code, 501)
        true("error" in explained.response.json())
        await fails(httpx.HTTPStatusError, client.infer(BASE, {"instances": [1.0]}, "nothing"), "404")
        await fails(httpx.HTTPStatusError, client.infer(BASE, {"instances": ["a"]}, "half_plus_two"), "400")
    with_rest("v1", ask)
    equal("half_plus_two" in requests.get(f"{BASE}/v1/models").json()["models"], True)


def test_grpc_health():
    async def ask(client):
        true(await client.is_server_live() is True and await client.is_server_ready() is True)
        true(await client.is_model_ready("half_plus_two") is True)
        try:
            true(not await client.is_model_ready("nothing"))
        except grpc.RpcError as error:
            equal(error.code(), grpc.StatusCode.NOT_FOUND)
    with_grpc(ask)


def test_grpc_golden_cases_as_raw_contents():
    async def ask(client):
        for case in filter(newest, cases()):
            answer = await client.infer(request(case, True))
            for output in answer.outputs:
                case.check(output.name, output.as_numpy())
    with_grpc(ask)


def test_grpc_golden_cases_as_typed_contents():
    async def ask(client):
        for case in filter(lambda case: case.has_json() and newest(case), cases()):
            answer = await client.infer(request(case, False))
            for output in answer.outputs:
                case.check(output.name, output.as_numpy())
    with_grpc(ask)


def test_grpc_mistakes():
    async def ask(client):
        bad = InferRequest("nothing", [InferInput("x", [1], "FP32", [1.0])])
        equal((await fails(grpc.RpcError, client.infer(bad))).code(), grpc.StatusCode.NOT_FOUND)
        bad = InferRequest("half_plus_two", [InferInput("x", [2], "FP32", [1.0])], request_id="a-1")
        equal((await fails(grpc.RpcError, client.infer(bad))).code(), grpc.StatusCode.INVALID_ARGUMENT)
        good = InferRequest("half_plus_two", [InferInput("x", [1], "FP32", [1.0])], request_id="a-1")
        equal((await client.infer(good, timeout=20.0, headers=(("x-test", "1"),))).id, "a-1")
    with_grpc(ask)


def event(data):
    return CloudEvent({"type": "com.example.request", "source": "tests", "id": "a-1"}, data)


def check_answer(answer):
    equal(answer["type"], "io.kserve.inference.response")
    equal(answer["source"], "io.kserve.inference.half_plus_two")
    true(answer["specversion"] == "1.0" and answer["id"] and answer["id"] != "a-1" and answer["time"])
    data = answer.data if isinstance(answer.data, dict) else json.loads(answer.data)
    equal(data, {"predictions": [3.5, 4.0, 5.5]})


def test_cloud_events():
    url = f"{BASE}/v1/models/half_plus_two:predict"
    for write in (to_binary, to_structured):
        headers, body = write(event({"instances": [1.0, 2.0, 5.0]}))
        if write is to_binary:
            headers["content-type"] = "application/json"
        response = requests.post(url, headers=headers, data=body, timeout=20)
        equal(response.status_code, 200, response.text)
        check_answer(from_http(response.headers, response.content))
        headers, body = write(event({"instances": ["a"]}))
        equal(requests.post(url, headers=headers, data=body, timeout=20).status_code, 400)


main(globals())
