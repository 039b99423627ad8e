"""Triton's own Python client over HTTP: every call that it has.

What this client depends on, found in its source:
- It sends no `Content-Type`, and binary tensors both ways unless told otherwise; without `outputs` it asks for
  `binary_data_output`. Response headers are looked up, so their spelling may vary, but `Content-Encoding` must be
  exactly `gzip` or `deflate`; the length of the JSON part counts decompressed bytes.
- Health looks at the status alone: anything but 200 is "no". Any other status than 200, 202 and 204 included, is an
  error, and its body must be a JSON object with `error`.
- The index is asked with an empty body, unloading always with `unload_dependents`.
- JSON outputs are read by `numpy.array(data)`, so `NaN` and `Infinity` may be bare tokens there.
- Files for `load_model` cannot be sent: the client fails to write base64 bytes as JSON before anything leaves.
"""

import asyncio
import json

import numpy as np
import tritonclient.http as http
import tritonclient.http.aio as aio
from tritonclient.utils import InferenceServerException

from common import DATA, cases, equal, main, refused, true

client = http.InferenceServerClient(DATA, concurrency=4)


def inputs(arrays, datatypes, binary=True):
    made = []
    for name, array in arrays.items():
        tensor = http.InferInput(name, list(array.shape), datatypes[name])
        tensor.set_data_from_numpy(array, binary_data=binary)
        made.append(tensor)
    return made


def half_plus_two(values, binary=True):
    return inputs({"x": np.array(values, np.float32)}, {"x": "FP32"}, binary)


def outputs(names, binary=True, classes=0):
    return [http.InferRequestedOutput(name, binary_data=binary, class_count=classes) for name in names]


def fails(status, act, *texts):
    equal(refused(InferenceServerException, act, *texts).status(), str(status))


def test_health():
    true(client.is_server_live() and client.is_server_ready())
    true(client.is_model_ready("half_plus_two") and client.is_model_ready("half_plus_two", "1"))
    true(not client.is_model_ready("half_plus_two", "9") and not client.is_model_ready("nothing"))


def test_server_metadata():
    metadata = client.get_server_metadata(headers={"X-Test": "1"}, query_params={"a": [1, 2]})
    equal(metadata["name"], "millrace")
    wanted = {"binary_tensor_data", "classification", "model_repository", "model_configuration", "parameters", "statistics"}
    true(wanted <= set(metadata["extensions"]), metadata["extensions"])
    true("cuda_shared_memory" not in metadata["extensions"], "what is not implemented is not listed")


def test_model_metadata():
    metadata = client.get_model_metadata("half_plus_two")
    equal((metadata["name"], metadata["versions"]), ("half_plus_two", ["1", "2"]))
    equal(metadata["inputs"], [{"name": "x", "datatype": "FP32", "shape": [-1]}])
    equal(metadata["outputs"], [{"name": "y", "datatype": "FP32", "shape": [-1]}])
    equal(client.get_model_metadata("half_plus_two", "1")["versions"], ["1"])
    equal(client.get_model_metadata("scale_scalar")["inputs"][0]["shape"], [])
    equal(client.get_model_metadata("row_mean")["inputs"][0]["shape"], [-1, -1])
    fails(404, lambda: client.get_model_metadata("nothing"), "nothing")
    fails(404, lambda: client.get_model_metadata("half_plus_two", "9"), "half_plus_two")


def test_model_config():
    config = client.get_model_config("fraud")
    equal(config["name"], "fraud")
    true(config["max_batch_size"] > 0 and config["platform"] and "backend" in config)
    equal([(i["name"], i["data_type"], [int(n) for n in i["dims"]]) for i in config["input"]], [("transaction", "TYPE_FP32", [10])])
    equal([(o["name"], o["data_type"], [int(n) for n in o["dims"]]) for o in config["output"]], [("probability", "TYPE_FP32", [1])])
    equal(client.get_model_config("identity_string", "1")["input"][0]["data_type"], "TYPE_STRING")
    unbatched = client.get_model_config("scale_scalar")
    equal((unbatched["max_batch_size"], unbatched["input"][0]["dims"]), (0, []))
    fails(404, lambda: client.get_model_config("nothing"))


def test_golden_cases_in_binary():
    for case in cases():
        asked = outputs(case.outputs)
        for wanted in (asked, None):
            answer = client.infer(case.model, inputs(case.inputs, case.datatypes), str(case.version), wanted)
            for name in case.outputs:
                true("binary_data_size" in answer.get_output(name)["parameters"], "it is binary")
                case.check(name, answer.as_numpy(name))
            equal(answer.get_response()["model_version"], str(case.version))


def test_golden_cases_in_json():
    for case in filter(lambda case: case.has_json(), cases()):
        answer = client.infer(case.model, inputs(case.inputs, case.datatypes, False), str(case.version), outputs(case.outputs, False))
        for name in case.outputs:
            true("data" in answer.get_output(name), "it is JSON")
            case.check(name, answer.as_numpy(name))


def test_each_side_chooses_its_form():
    for binary_in in (True, False):
        for binary_out in (True, False):
            answer = client.infer("half_plus_two", half_plus_two([1, 2, 5], binary_in), "1", outputs(["y"], binary_out))
            equal(answer.as_numpy("y").tolist(), [2.5, 3.0, 4.5])
    two = inputs({"a": np.array([1], np.int32)}, {"a": "INT32"}) + inputs({"b": np.array([[2, 3]], np.int32)}, {"b": "INT32"}, False)
    mixed = client.infer("sum_diff", two, outputs=outputs(["d"], False) + outputs(["s"], True))
    equal([output["name"] for output in mixed.get_response()["outputs"]], ["d", "s"])
    equal((mixed.as_numpy("d").tolist(), mixed.as_numpy("s").tolist()), ([-4], [6]))


def test_only_the_outputs_asked_for_come_back():
    answer = client.infer("iris", inputs({"features": np.zeros((2, 4), np.float32)}, {"features": "FP32"}), outputs=outputs(["label"]))
    equal([output["name"] for output in answer.get_response()["outputs"]], ["label"])
    equal(answer.as_numpy("label").dtype, np.dtype(np.int64))
    true(answer.as_numpy("probabilities") is None)


def test_request_id_and_parameters():
    named = client.infer("half_plus_two", half_plus_two([1]), request_id="a-1")
    equal(named.get_response()["id"], "a-1")
    true("id" not in client.infer("half_plus_two", half_plus_two([1])).get_response())
    with_all = client.infer(
        "half_plus_two", half_plus_two([1]), sequence_id=7, sequence_start=True, sequence_end=True, priority=1,
        timeout=5_000_000, parameters={"text": "a", "number": 3, "flag": True, "real": 0.5},
    )
    equal(with_all.as_numpy("y").tolist(), [3.5])


def test_classification():
    features = inputs({"features": np.array([[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]], np.float32)}, {"features": "FP32"})
    plain = client.infer("iris", features, outputs=outputs(["probabilities"])).as_numpy("probabilities")
    for binary in (True, False):
        answer = client.infer("iris", features, outputs=outputs(["probabilities"], binary, classes=2))
        best = answer.as_numpy("probabilities")
        equal((list(best.shape), answer.get_output("probabilities")["datatype"]), ([2, 2], "BYTES"))
        for row, texts in zip(plain, best):
            order = np.argsort(-row)[:2]
            for index, text in zip(order, texts):
                text = text.decode() if isinstance(text, bytes) else str(text)
                equal(text.split(":")[:2], [f"{row[index]:.6f}", str(index)])
    more = client.infer("iris", features, outputs=outputs(["probabilities"], classes=99)).as_numpy("probabilities")
    equal(list(more.shape), [2, 3], "no more classes than there are")
    fails(400, lambda: client.infer(
        "identity_string", inputs({"x": np.array([[b"a"] * 4], np.object_)}, {"x": "BYTES"}), outputs=outputs(["y"], classes=1)))


def test_compression_both_ways():
    wide = np.arange(40_000, dtype=np.float32).reshape(2, -1)
    for request in (None, "gzip", "deflate"):
        for response in (None, "gzip", "deflate"):
            for binary in (True, False):
                answer = client.infer(
                    "row_mean", inputs({"x": wide}, {"x": "FP32"}, binary), outputs=outputs(["doubled", "mean"], binary),
                    request_compression_algorithm=request, response_compression_algorithm=response,
                )
                true((answer.as_numpy("doubled") == wide * 2).all(), f"{request} {response} {binary}")
                equal(list(answer.as_numpy("mean").shape), [2])


def test_requests_in_parallel():
    waiting = [client.async_infer("half_plus_two", half_plus_two([n]), "1", request_id=str(n)) for n in range(40)]
    for n, request in enumerate(waiting):
        answer = request.get_result()
        equal((answer.as_numpy("y").tolist(), answer.get_response()["id"]), ([n / 2 + 2], str(n)))


def test_bodies_made_and_read_apart_from_sending():
    body, length = http.InferenceServerClient.generate_request_body(half_plus_two([4.0]), outputs=outputs(["y"]))
    headers = {"Inference-Header-Content-Length": length}
    response = client._post("v2/models/half_plus_two/versions/1/infer", body, headers, None)
    equal(response.status_code, 200)
    equal(response.get("Content-Type"), "application/octet-stream")
    header = int(response.get("Inference-Header-Content-Length"))
    answer = http.InferenceServerClient.parse_response_body(response.read(), header_length=header)
    equal(answer.as_numpy("y").tolist(), [4.0])


def test_large_tensor():
    large = np.random.default_rng(1).random((1, 2 << 20), np.float32)
    answer = client.infer("row_mean", inputs({"x": large}, {"x": "FP32"}), outputs=outputs(["doubled"]))
    true((answer.as_numpy("doubled") == large * 2).all())


def test_mistakes_are_refused():
    fails(404, lambda: client.infer("nothing", half_plus_two([1])), "nothing")
    fails(404, lambda: client.infer("half_plus_two", half_plus_two([1]), "9"), "half_plus_two")
    fails(400, lambda: client.infer("half_plus_two", half_plus_two([[1]])), "x")
    fails(400, lambda: client.infer("half_plus_two", inputs({"x": np.array([1])}, {"x": "INT64"})), "INT64", "FP32")
    fails(400, lambda: client.infer("half_plus_two", inputs({"z": np.ones(1, np.float32)}, {"z": "FP32"})), "z")
    fails(400, lambda: client.infer("half_plus_two", half_plus_two([1]) * 2), "x")
    fails(400, lambda: client.infer("half_plus_two", half_plus_two([1]), outputs=outputs(["z"])), "z")
    fails(400, lambda: client.infer("sum_diff", inputs({"a": np.array([1], np.int32)}, {"a": "INT32"})), "b")
    true(client.is_server_live(), "the connections are still good")


def test_statistics():
    name = "digits"
    images = inputs({"image": np.zeros((3, 1, 8, 8), np.float32)}, {"image": "FP32"})
    client.infer(name, images)
    before = client.get_inference_statistics(name)["model_stats"][0]
    client.infer(name, images)
    fails(400, lambda: client.infer(name, half_plus_two([1])))
    after = client.get_inference_statistics(name, "1")["model_stats"][0]
    equal((after["name"], after["version"]), (name, "1"))
    equal(after["inference_count"] - before["inference_count"], 3)
    # Three rows may well run one by one where that is quicker.
    true(1 <= after["execution_count"] - before["execution_count"] <= 3)
    equal(after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"], 1)
    equal(after["inference_stats"]["fail"]["count"], before["inference_stats"]["fail"]["count"], "refusals do not count")
    true(after["last_inference"] >= before["last_inference"] > 1_700_000_000_000)
    for stage in ("queue", "compute_input", "compute_infer", "compute_output"):
        true(set(after["inference_stats"][stage]) == {"count", "ns"}, stage)
    rows = [(row["batch_size"], row["compute_infer"]["count"]) for row in after["batch_stats"]]
    equal(sum(count for _, count in rows), after["execution_count"])
    # What a run was padded with counts here, but not as inferences.
    true(sum(size * count for size, count in rows) >= after["inference_count"], rows)
    true(all(row["compute_infer"]["ns"] > 0 for row in after["batch_stats"]))
    everything = client.get_inference_statistics()["model_stats"]
    true({("half_plus_two", "1"), ("half_plus_two", "2")} <= {(entry["name"], entry["version"]) for entry in everything})
    unknown = refused(InferenceServerException, lambda: client.get_inference_statistics("nothing"), "nothing")
    true(unknown.status() in ("400", "404"), unknown)


def test_trace_settings():
    settings = client.get_trace_settings()
    equal(settings["trace_level"], ["OFF"])
    true({"trace_rate", "trace_count", "log_frequency", "trace_file"} <= set(settings), settings)
    equal(set(client.get_trace_settings("half_plus_two")), set(settings))
    equal(client.update_trace_settings(settings={"trace_level": ["OFF"], "trace_rate": None}), settings)
    # Files are never written on a client's word.
    refused(InferenceServerException, lambda: client.update_trace_settings(settings={"trace_file": "/tmp/trace.json"}))
    refused(InferenceServerException, lambda: client.update_trace_settings("half_plus_two", {"trace_file": "/tmp/trace.json"}))
    equal(client.get_trace_settings(), settings)


def test_log_settings():
    settings = client.get_log_settings()
    true({"log_info", "log_warning", "log_error", "log_verbose_level", "log_format", "log_file"} <= set(settings), settings)
    equal(client.update_log_settings({"log_info": True, "log_verbose_level": 0}), settings)
    refused(InferenceServerException, lambda: client.update_log_settings({"log_file": "/tmp/log.txt"}))
    fails(400, lambda: client.update_log_settings({"log_info": "yes"}))
    equal(client.get_log_settings(), settings)


def test_shared_memory_is_off():
    equal(client.get_system_shared_memory_status(), [])
    client.unregister_system_shared_memory()
    client.unregister_system_shared_memory("region")
    equal(client.get_cuda_shared_memory_status(), [])
    client.unregister_cuda_shared_memory()
    refused(InferenceServerException, lambda: client.register_system_shared_memory("region", "/region", 64))
    refused(InferenceServerException, lambda: client.register_cuda_shared_memory("region", "AAAA", 0, 64))
    shared = http.InferInput("x", [1], "FP32").set_shared_memory("region", 4)
    refused(InferenceServerException, lambda: client.infer("half_plus_two", [shared]))


def states():
    return {(entry["name"], entry.get("version")): (entry.get("state"), entry.get("reason")) for entry in client.get_model_repository_index()}


def test_repository():
    index = states()
    equal(index[("half_plus_two", "1")][0], "READY")
    equal(len(index), 22)
    client.unload_model("iris")
    true(not client.is_model_ready("iris"))
    equal(states()[("iris", "1")], ("UNAVAILABLE", "unloaded"))
    gone = refused(InferenceServerException, lambda: client.infer("iris", inputs({"features": np.zeros((1, 4), np.float32)}, {"features": "FP32"})))
    true(gone.status() in ("404", "503"), gone)
    true(client.is_model_ready("half_plus_two"), "others serve on")
    client.load_model("iris")
    true(client.is_model_ready("iris"))
    equal(states()[("iris", "1")][0], "READY")
    client.load_model("iris", headers={"X-Test": "1"})
    client.unload_model("iris", unload_dependents=True)
    client.load_model("iris")
    missing = refused(InferenceServerException, lambda: client.load_model("nothing"), "nothing")
    true(missing.status() in ("400", "404", "500"), missing)


def test_models_are_not_configured_by_clients():
    overridden = refused(InferenceServerException, lambda: client.load_model("iris", config=json.dumps({"max_batch_size": 1})))
    true(overridden.status() in ("400", "501"), overridden)
    true(client.is_model_ready("iris"), "what serves is left alone")


def test_asyncio_client():
    async def ask():
        async with aio.InferenceServerClient(DATA) as other:
            true(await other.is_server_live() and await other.is_server_ready())
            true(await other.is_model_ready("half_plus_two"))
            equal((await other.get_server_metadata())["name"], "millrace")
            equal((await other.get_model_metadata("iris"))["name"], "iris")
            equal((await other.get_model_config("iris"))["name"], "iris")
            true(len(await other.get_model_repository_index()) == 22)
            true((await other.get_inference_statistics("iris"))["model_stats"])
            equal((await other.get_trace_settings())["trace_level"], ["OFF"])
            true("log_info" in await other.get_log_settings())
            await other.unload_model("row_mean")
            true(not await other.is_model_ready("row_mean"))
            await other.load_model("row_mean")
            answers = await asyncio.gather(*(
                other.infer("half_plus_two", half_plus_two([n]), "1", request_compression_algorithm="gzip", response_compression_algorithm="deflate")
                for n in range(20)
            ))
            equal([answer.as_numpy("y").tolist() for answer in answers], [[n / 2 + 2] for n in range(20)])
    asyncio.run(ask())


main(globals())
