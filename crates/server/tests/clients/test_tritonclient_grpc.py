"""Triton's own Python client over gRPC: every call that it has, streams included.

What this client depends on, found in its source:
- Inputs always travel as `raw_input_contents`, one entry per input; answers are read from `raw_output_contents` by the
  position of the output, so there must be one raw entry for every output, or none at all.
- `timeout` and `sequence_id` come as `int64_param`, `priority` as `uint64_param`; `class_count` as an `int64_param`
  named `classification`.
- A message of a stream with a non-empty `error_message` is an error whatever else it holds; requests and answers are
  matched by the caller, by `id`.
- `stop_stream` half-closes and then waits for the answers that are still due.
- Requests may be compressed with gzip or deflate; any answer may be.
- `keepalive` options send HTTP/2 pings, also without a call in flight.
"""

import asyncio
import json
import queue

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.grpc.aio as aio
from tritonclient.utils import InferenceServerException

from common import DATA, cases, equal, main, refused, true

client = grpc.InferenceServerClient(DATA)


def inputs(arrays, datatypes):
    made = []
    for name, array in arrays.items():
        tensor = grpc.InferInput(name, list(array.shape), datatypes[name])
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


def half_plus_two(values):
    return inputs({"x": np.array(values, np.float32)}, {"x": "FP32"})


def outputs(names, classes=0):
    return [grpc.InferRequestedOutput(name, class_count=classes) for name in names]


def fails(code, act, *texts):
    equal(refused(InferenceServerException, act, *texts).status(), f"StatusCode.{code}")


def test_health():
    true(client.is_server_live() and client.is_server_ready())
    true(client.is_model_ready("half_plus_two") and client.is_model_ready("half_plus_two", "1"))
    for model, version in (("nothing", ""), ("half_plus_two", "9")):
        try:
            true(not client.is_model_ready(model, version), "it may say no, or that it knows no such model")
        except InferenceServerException as error:
            equal(error.status(), "StatusCode.NOT_FOUND")


def test_server_metadata():
    metadata = client.get_server_metadata(headers={"x-test": "1"})
    equal(metadata.name, "millrace")
    true({"binary_tensor_data", "classification", "statistics", "model_repository"} <= set(metadata.extensions))
    equal(client.get_server_metadata(as_json=True)["name"], "millrace")


def test_model_metadata():
    metadata = client.get_model_metadata("half_plus_two", as_json=True)
    equal((metadata["name"], metadata["versions"]), ("half_plus_two", ["1", "2"]))
    equal(metadata["inputs"], [{"name": "x", "datatype": "FP32", "shape": ["-1"]}])
    equal(list(client.get_model_metadata("half_plus_two", "1").versions), ["1"])
    equal(list(client.get_model_metadata("scale_scalar").inputs[0].shape), [])
    fails("NOT_FOUND", lambda: client.get_model_metadata("nothing"), "nothing")
    fails("NOT_FOUND", lambda: client.get_model_metadata("half_plus_two", "9"), "half_plus_two")


def test_model_config():
    config = client.get_model_config("fraud").config
    equal((config.name, list(config.input[0].dims), list(config.output[0].dims)), ("fraud", [10], [1]))
    true(config.max_batch_size > 0 and config.platform)
    as_json = client.get_model_config("identity_string", "1", as_json=True)["config"]
    equal(as_json["input"][0]["data_type"], "TYPE_STRING")
    fails("NOT_FOUND", lambda: client.get_model_config("nothing"))


def test_golden_cases():
    for case in cases():
        for asked in (outputs(case.outputs), None):
            answer = client.infer(case.model, inputs(case.inputs, case.datatypes), str(case.version), asked)
            response = answer.get_response()
            equal(len(response.raw_output_contents), len(response.outputs), "one raw entry for each output")
            true(all(not output.HasField("contents") for output in response.outputs))
            equal(response.model_version, str(case.version))
            for name in case.outputs:
                case.check(name, answer.as_numpy(name))


def test_outputs_ids_and_parameters():
    features = inputs({"features": np.zeros((2, 4), np.float32)}, {"features": "FP32"})
    answer = client.infer("iris", features, outputs=outputs(["label", "probabilities"]), request_id="a-1")
    equal(([output.name for output in answer.get_response().outputs], answer.get_response().id), (["label", "probabilities"], "a-1"))
    equal(answer.get_output("label").datatype, "INT64")
    equal(client.infer("iris", features, outputs=outputs(["label"])).as_numpy("probabilities"), None)
    everything = client.infer(
        "half_plus_two", half_plus_two([1]), sequence_id="a", sequence_start=True, sequence_end=True, priority=1,
        timeout=5_000_000, parameters={"text": "a", "number": 3, "flag": True, "real": 0.5}, client_timeout=20.0,
    )
    equal(everything.as_numpy("y").tolist(), [3.5])
    equal(everything.get_response(as_json=True)["model_name"], "half_plus_two")


def test_classification():
    features = inputs({"features": np.array([[5.1, 3.5, 1.4, 0.2]], np.float32)}, {"features": "FP32"})
    plain = client.infer("iris", features).as_numpy("probabilities")[0]
    answer = client.infer("iris", features, outputs=outputs(["probabilities"], classes=2))
    equal((answer.get_output("probabilities").datatype, list(answer.get_output("probabilities").shape)), ("BYTES", [1, 2]))
    order = np.argsort(-plain)[:2]
    texts = [text.decode().split(":")[:2] for text in answer.as_numpy("probabilities")[0]]
    equal(texts, [[f"{plain[index]:.6f}", str(index)] for index in order])


def test_compression():
    wide = np.arange(40_000, dtype=np.float32).reshape(2, -1)
    for algorithm in (None, "gzip", "deflate"):
        answer = client.infer("row_mean", inputs({"x": wide}, {"x": "FP32"}), compression_algorithm=algorithm)
        true((answer.as_numpy("doubled") == wide * 2).all(), algorithm)


def test_large_tensor():
    large = np.random.default_rng(1).random((1, 2 << 20), np.float32)
    true((client.infer("row_mean", inputs({"x": large}, {"x": "FP32"})).as_numpy("doubled") == large * 2).all())


def test_callbacks():
    answers = queue.Queue()
    for n in range(40):
        client.async_infer("half_plus_two", half_plus_two([n]), lambda result, error: answers.put((result, error)), "1", request_id=str(n))
    for _ in range(40):
        result, error = answers.get(timeout=20)
        equal(error, None)
        equal(result.as_numpy("y").tolist(), [int(result.get_response().id) / 2 + 2])
    client.async_infer("nothing", half_plus_two([1]), lambda result, error: answers.put((result, error)))
    result, error = answers.get(timeout=20)
    equal((result, error.status()), (None, "StatusCode.NOT_FOUND"))
    context = client.async_infer("half_plus_two", half_plus_two([1]), lambda result, error: answers.put((result, error)))
    context.cancel()
    result, error = answers.get(timeout=20)
    true(error is None or error.status() == "StatusCode.CANCELLED", error)


def test_mistakes_are_refused():
    fails("NOT_FOUND", lambda: client.infer("nothing", half_plus_two([1])), "nothing")
    fails("NOT_FOUND", lambda: client.infer("half_plus_two", half_plus_two([1]), "9"), "half_plus_two")
    fails("INVALID_ARGUMENT", lambda: client.infer("half_plus_two", half_plus_two([1]), "first"))
    fails("INVALID_ARGUMENT", lambda: client.infer("half_plus_two", half_plus_two([[1]])), "x")
    fails("INVALID_ARGUMENT", lambda: client.infer("half_plus_two", inputs({"x": np.array([1])}, {"x": "INT64"})), "INT64", "FP32")
    fails("INVALID_ARGUMENT", lambda: client.infer("half_plus_two", inputs({"z": np.ones(1, np.float32)}, {"z": "FP32"})), "z")
    fails("INVALID_ARGUMENT", lambda: client.infer("half_plus_two", half_plus_two([1]) * 2), "x")
    fails("INVALID_ARGUMENT", lambda: client.infer("half_plus_two", half_plus_two([1]), outputs=outputs(["z"])), "z")


class Stream:
    """One stream of a client of its own, and its answers in the order in which they came."""

    def __init__(self, **options):
        self.client, self.answers = grpc.InferenceServerClient(DATA), queue.Queue()
        self.client.start_stream(lambda result, error: self.answers.put((result, error)), **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()

    def ask(self, *arguments, **named):
        self.client.async_stream_infer(*arguments, **named)

    def next(self):
        return self.answers.get(timeout=20)


def test_stream():
    with Stream() as stream:
        for n in range(50):
            stream.ask("half_plus_two", half_plus_two([n]), "1", request_id=str(n))
        ids = set()
        for _ in range(50):
            result, error = stream.next()
            equal(error, None)
            response = result.get_response()
            equal(result.as_numpy("y").tolist(), [int(response.id) / 2 + 2])
            true(response.parameters["triton_final_response"].bool_param)
            ids.add(response.id)
        equal(len(ids), 50)


def test_an_account_stands_in_the_parameters():
    asked = {"millrace_explain": True}
    plain = client.infer("half_plus_two", half_plus_two([1]))
    told = client.infer("half_plus_two", half_plus_two([1]), parameters=asked)
    equal(told.as_numpy("y").tolist(), plain.as_numpy("y").tolist())
    equal(dict(plain.get_response().parameters), {})
    with Stream() as stream, Stream(headers={"x-millrace-explain": "1"}) as asking:
        # One after the other, so that they do not share a run.
        stream.ask("half_plus_two", half_plus_two([1]), parameters=asked)
        streamed = [stream.next()[0].get_response()]
        asking.ask("half_plus_two", half_plus_two([1]))
        streamed.append(asking.next()[0].get_response())
        for response in (told.get_response(), *streamed):
            account = json.loads(response.parameters["millrace_explain"].string_param)
            equal((account["model"], account["rows"], account["batch"]["requests"]), ("half_plus_two", 1, 1))
            true(abs(sum(account["stages_us"].values()) - account["total_us"]) < 1e-3, account)


def test_stream_goes_on_after_an_error():
    with Stream(compression_algorithm="gzip", stream_timeout=20.0) as stream:
        stream.ask("nothing", half_plus_two([1]), request_id="bad")
        result, error = stream.next()
        true(result is None and "nothing" in str(error), error)
        stream.ask("half_plus_two", half_plus_two([[1]]), request_id="bad")
        true(stream.next()[1] is not None)
        stream.ask("half_plus_two", half_plus_two([1]), "1", request_id="good", enable_empty_final_response=True)
        result, error = stream.next()
        equal((error, result.as_numpy("y").tolist(), result.get_response().id), (None, [2.5], "good"))


def test_stopping_a_stream_waits_for_the_answers_that_are_due():
    with Stream() as stream:
        for n in range(20):
            stream.ask("half_plus_two", half_plus_two([n]), request_id=str(n))
        stream.client.stop_stream()
        equal(stream.answers.qsize(), 20)
        true(all(error is None for _, error in (stream.next() for _ in range(20))))


def test_stopping_a_stream_at_once():
    with Stream() as stream:
        stream.ask("half_plus_two", half_plus_two([1]))
        stream.client.stop_stream(cancel_requests=True)
        last = [stream.next() for _ in range(stream.answers.qsize())][-1:]
        for _, error in last:
            true(error is None or error.status() == "StatusCode.CANCELLED", error)
        true(client.is_server_live())


def test_a_stream_may_ask_for_real_statuses():
    with Stream(headers={"triton_grpc_error": "true"}) as stream:
        stream.ask("half_plus_two", half_plus_two([1]), "1", request_id="good")
        equal(stream.next()[1], None)
        stream.ask("nothing", half_plus_two([1]))
        result, error = stream.next()
        equal((result, error.status()), (None, "StatusCode.NOT_FOUND"))


def test_statistics():
    images = inputs({"image": np.zeros((3, 1, 8, 8), np.float32)}, {"image": "FP32"})
    client.infer("digits", images)
    before = client.get_inference_statistics("digits").model_stats[0]
    client.infer("digits", images)
    after = client.get_inference_statistics("digits", "1").model_stats[0]
    equal(after.inference_count - before.inference_count, 3)
    equal(after.inference_stats.success.count - before.inference_stats.success.count, 1)
    equal(sum(row.compute_infer.count for row in after.batch_stats), after.execution_count)
    true(sum(row.batch_size * row.compute_infer.count for row in after.batch_stats) >= after.inference_count)
    everything = client.get_inference_statistics(as_json=True)["model_stats"]
    true(len(everything) >= 21, len(everything))
    refused(InferenceServerException, lambda: client.get_inference_statistics("nothing"), "nothing")


def test_trace_settings():
    settings = client.get_trace_settings(as_json=True)["settings"]
    equal(settings["trace_level"]["value"], ["OFF"])
    true("trace_level" in client.get_trace_settings("half_plus_two").settings)
    client.update_trace_settings(settings={"trace_level": ["OFF"], "trace_rate": None})
    refused(InferenceServerException, lambda: client.update_trace_settings(settings={"trace_file": "/tmp/trace.json"}))
    equal(client.get_trace_settings(as_json=True)["settings"], settings)


def test_log_settings():
    settings = client.get_log_settings(as_json=True)["settings"]
    true({"log_info", "log_warning", "log_error", "log_verbose_level", "log_format"} <= set(settings), settings)
    client.update_log_settings({"log_info": True, "log_verbose_level": 0})
    refused(InferenceServerException, lambda: client.update_log_settings({"log_file": "/tmp/log.txt"}))
    equal(client.get_log_settings(as_json=True)["settings"], settings)


def test_shared_memory_is_off():
    equal(len(client.get_system_shared_memory_status().regions), 0)
    client.unregister_system_shared_memory()
    client.unregister_system_shared_memory("region")
    equal(len(client.get_cuda_shared_memory_status().regions), 0)
    client.unregister_cuda_shared_memory()
    fails("UNIMPLEMENTED", lambda: client.register_system_shared_memory("region", "/region", 64))
    fails("UNIMPLEMENTED", lambda: client.register_cuda_shared_memory("region", b"AAAA", 0, 64))
    shared = grpc.InferInput("x", [1], "FP32").set_shared_memory("region", 4)
    refused(InferenceServerException, lambda: client.infer("half_plus_two", [shared]))


def test_repository():
    def states():
        return {(entry.name, entry.version): (entry.state, entry.reason) for entry in client.get_model_repository_index().models}
    equal(states()[("half_plus_two", "1")][0], "READY")
    equal(len(states()), 22)
    client.unload_model("iris")
    equal(states()[("iris", "1")], ("UNAVAILABLE", "unloaded"))
    gone = refused(InferenceServerException, lambda: client.infer("iris", inputs({"features": np.zeros((1, 4), np.float32)}, {"features": "FP32"})))
    true(gone.status() in ("StatusCode.NOT_FOUND", "StatusCode.UNAVAILABLE"), gone)
    client.load_model("iris")
    true(client.is_model_ready("iris"))
    client.unload_model("iris", unload_dependents=True)
    client.load_model("iris")
    equal(client.get_model_repository_index(as_json=True)["models"][0]["state"], "READY")
    refused(InferenceServerException, lambda: client.load_model("nothing"), "nothing")


def test_models_are_not_configured_by_clients():
    fails("UNIMPLEMENTED", lambda: client.load_model("iris", config=json.dumps({"max_batch_size": 1})))
    fails("UNIMPLEMENTED", lambda: client.load_model("iris", config="{}", files={"file:1/model.onnx": b"onnx"}))
    true(client.is_model_ready("iris"), "what serves is left alone")


def test_keepalive_options():
    options = grpc.KeepAliveOptions(keepalive_time_ms=1_000, keepalive_permit_without_calls=True, http2_max_pings_without_data=0)
    with grpc.InferenceServerClient(DATA, keepalive_options=options) as other:
        true(other.is_server_live())


def test_asyncio_client():
    async def ask():
        async with aio.InferenceServerClient(DATA) as other:
            true(await other.is_server_live() and await other.is_server_ready())
            true(await other.is_model_ready("half_plus_two"))
            equal((await other.get_server_metadata()).name, "millrace")
            equal((await other.get_model_metadata("iris")).name, "iris")
            equal((await other.get_model_config("iris")).config.name, "iris")
            equal(len((await other.get_model_repository_index()).models), 22)
            true((await other.get_inference_statistics("iris")).model_stats)
            true("trace_level" in (await other.get_trace_settings()).settings)
            true("log_info" in (await other.get_log_settings()).settings)
            await other.unload_model("row_mean")
            await other.load_model("row_mean")
            answers = await asyncio.gather(*(other.infer("half_plus_two", half_plus_two([n]), "1") for n in range(20)))
            equal([answer.as_numpy("y").tolist() for answer in answers], [[n / 2 + 2] for n in range(20)])

            async def requests():
                for n in range(20):
                    yield {"model_name": "half_plus_two", "inputs": half_plus_two([n]), "model_version": "1", "request_id": str(n)}
            got = {}
            async for result, error in other.stream_infer(requests()):
                equal(error, None)
                got[int(result.get_response().id)] = result.as_numpy("y").tolist()
            equal(got, {n: [n / 2 + 2] for n in range(20)})
    asyncio.run(ask())


main(globals())
