"""TorchServe's inference and management APIs by plain `requests`, and over gRPC with stubs from our own `.proto` files.

What scripts for TorchServe depend on:
- `curl -d` sends `application/x-www-form-urlencoded` whatever the body is; `curl -T` sends PUT; `requests` with
  `files={"data": …}` sends multipart.
- Versions are strings such as "1.0", and an answer to "describe" is always a list.
- Parameters of the management API are in the query string. Errors are told apart by `type`.
"""

import stubs  # noqa: F401  makes the modules below

import io
import json
import uuid

import grpc
import inference_pb2
import inference_pb2_grpc
import management_pb2
import management_pb2_grpc
import numpy as np
import requests
from google.protobuf.empty_pb2 import Empty

from common import ADMIN, DATA, cases, equal, main, refused, true

INFERENCE, MANAGEMENT = f"http://{DATA}", f"http://{ADMIN}"
session = requests.Session()
session.trust_env = False


def ask(method, url, status=200, **options):
    response = session.request(method, url, timeout=30, **options)
    equal(response.status_code, status, response.text)
    uuid.UUID(response.headers["x-request-id"])
    return response.json()


def fails(method, url, status, kind, *texts, **options):
    error = ask(method, url, status, **options)
    equal((set(error), error["code"], error["type"]), ({"code", "type", "message"}, status, kind))
    for text in texts:
        true(text in error["message"], error["message"])


def predict(name, body, status=200, method="POST", **options):
    return ask(method, f"{INFERENCE}/predictions/{name}", status, data=body, **options)


JSON = {"content-type": "application/json"}


def test_ping_and_description():
    equal(ask("GET", f"{INFERENCE}/ping"), {"status": "Healthy"})
    for method, path in (("OPTIONS", "/"), ("GET", "/api-description")):
        description = ask(method, INFERENCE + path)
        true(description["openapi"].startswith("3."))
        true({"/ping", "/predictions/{model_name}", "/predictions/{model_name}/{model_version}"} <= set(description["paths"]))
        managing = ask(method, MANAGEMENT + path)
        true({"/models", "/models/{model_name}"} <= set(managing["paths"]))


def test_golden_cases():
    for case in cases():
        arrays = {name: value for name, value in case.inputs.items()}
        # UINT16 has no form in TensorFlow Serving's JSON, whose rules these bodies follow.
        if not case.has_json() or {"BYTES", "UINT16"} & set(case.datatypes.values()) or case.model == "half_plus_two":
            continue
        if any(not np.isfinite(value).all() for value in arrays.values() if value.dtype.kind == "f"):
            continue
        body = {name: value.tolist() for name, value in arrays.items()}
        if len(body) == 1:
            body = next(iter(body.values()))
        answer = predict(f"{case.model}/{case.version}.0", json.dumps(body), headers=JSON)
        answer = answer if len(case.outputs) > 1 else {next(iter(case.outputs)): answer}
        for name, want in case.outputs.items():
            case.check(name, np.array(answer[name], want.dtype))


def test_every_way_to_send_a_body():
    for headers in (JSON, {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}, {}):
        equal(predict("half_plus_two/1", "[1.0, 2.0, 5.0]", headers=headers), [2.5, 3.0, 4.5])
    equal(predict("half_plus_two/1", "[1.0]", method="PUT"), [2.5])
    equal(predict("half_plus_two/1.0", '{"instances": [1.0]}', headers=JSON), [2.5])
    equal(predict("half_plus_two", '{"inputs": [1.0]}', headers=JSON), [3.5])
    equal(predict("half_plus_two", '{"x": [1.0]}', headers=JSON), [3.5])
    part = {"data": ("body.json", io.BytesIO(b"[1.0, 2.0]"), "application/json")}
    equal(predict("half_plus_two/1", None, files=part), [2.5, 3.0])
    equal(predict("sum_diff", '{"a": [1], "b": [[2, 3]]}', headers=JSON), {"s": [6], "d": [-4]})


def test_mistakes():
    fails("POST", f"{INFERENCE}/predictions/nothing", 404, "ModelNotFoundException", "nothing", data="[1]")
    fails("POST", f"{INFERENCE}/predictions/half_plus_two/9", 404, "ModelVersionNotFoundException", "half_plus_two", data="[1]")
    fails("POST", f"{INFERENCE}/predictions", 404, "ResourceNotFoundException", data="[1]")
    fails("POST", f"{INFERENCE}/predictions/half_plus_two", 400, "BadRequestException", data="not JSON")
    fails("POST", f"{INFERENCE}/predictions/half_plus_two", 400, "BadRequestException", data="[[1.0], [2.0, 3.0]]")
    fails("GET", f"{MANAGEMENT}/models/nothing", 404, "ModelNotFoundException", "nothing")
    fails("DELETE", f"{MANAGEMENT}/models", 405, "MethodNotAllowedException")
    fails("PUT", f"{MANAGEMENT}/models/iris?min_worker=3&max_worker=1", 400, "BadRequestException")
    fails("POST", f"{MANAGEMENT}/models", 400, "BadRequestException", "url")
    for url in ("http://example.invalid/m.mar", "file:///etc/passwd", "/etc", "../secret", "a/../../b"):
        response = session.post(f"{MANAGEMENT}/models", params={"url": url}, timeout=30)
        true(response.status_code in (400, 404), f"{url}: {response.text}")


def test_management_is_not_on_the_data_port():
    for method, path in (("PUT", "/models/iris"), ("DELETE", "/models/iris"), ("POST", "/models?url=iris")):
        true(session.request(method, INFERENCE + path, timeout=30).status_code >= 400, path)
    equal(len(ask("GET", f"{MANAGEMENT}/models/iris")), 1)


def test_list():
    everything = ask("GET", f"{MANAGEMENT}/models")
    names = [entry["modelName"] for entry in everything["models"]]
    equal((names, len(names)), (sorted(names), 20))
    true(all(entry["modelUrl"] for entry in everything["models"]))
    first = ask("GET", f"{MANAGEMENT}/models?limit=15")
    equal((len(first["models"]), first["nextPageToken"]), (15, "15"))
    rest = ask("GET", f"{MANAGEMENT}/models?limit=15&next_page_token=15")
    equal([entry["modelName"] for entry in first["models"] + rest["models"]], names)
    equal(ask("GET", f"{MANAGEMENT}/models?limit=0")["models"], [])


def test_describe():
    for path, versions in (("", ["2.0"]), ("/1.0", ["1.0"]), ("/all", ["1.0", "2.0"])):
        described = ask("GET", f"{MANAGEMENT}/models/half_plus_two{path}")
        equal(sorted(entry["modelVersion"] for entry in described), versions)
    entry = ask("GET", f"{MANAGEMENT}/models/iris?customized=true")[0]
    equal((entry["modelName"], entry["loadedAtStartup"]), ("iris", True))
    true({"modelUrl", "runtime", "minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "jobQueueStatus"} <= set(entry), entry)
    worker = entry["workers"][0]
    equal((worker["status"], worker["gpu"]), ("READY", False))
    true({"id", "startTime"} <= set(worker) and {"remainingCapacity", "pendingRequests"} <= set(entry["jobQueueStatus"]))


def test_scale():
    url = f"{MANAGEMENT}/models/fraud"
    payment = json.dumps([[116.27, 3.27, 0.45, 18.75, 4.57, 2.51, 1061.59, 9.0, 0.0, 0.0]])
    equal(ask("PUT", f"{url}?min_worker=2&synchronous=true"), {"status": "Workers scaled to 2 for model: fraud"})
    equal(len(ask("GET", url)[0]["workers"]), 2)
    equal(ask("PUT", f"{url}/2.0?min_worker=0&max_worker=0&synchronous=true"), {"status": "Workers scaled to 0 for model: fraud, version: 2.0"})
    fails("POST", f"{INFERENCE}/predictions/fraud", 503, "ServiceUnavailableException", "fraud", data=payment)
    equal(ask("PUT", f"{url}?min_worker=1", 202), {"status": "Processing worker updates..."})
    equal(ask("PUT", f"{url}?min_worker=1&synchronous=true"), {"status": "Workers scaled to 1 for model: fraud"})
    equal(len(predict("fraud", payment)), 1)
    fails("PUT", f"{MANAGEMENT}/models/nothing", 404, "ModelNotFoundException", "nothing")


def test_set_default():
    url = f"{MANAGEMENT}/models/half_plus_two"
    equal(ask("PUT", f"{url}/1.0/set-default"), {"status": 'Default version successfully updated for model "half_plus_two" to "1.0"'})
    equal(predict("half_plus_two", "[4.0]"), [4.0])
    ask("PUT", f"{url}/2.0/set-default")
    equal(predict("half_plus_two", "[4.0]"), [5.0])
    fails("PUT", f"{url}/9.0/set-default", 404, "ModelVersionNotFoundException", "half_plus_two")


def test_register_and_unregister():
    url = f"{MANAGEMENT}/models"
    fails("POST", f"{url}?url=missing", 404, "ModelNotFoundException", "missing")
    registered = ask("POST", f"{url}?url=unnamed_dims&model_name=doubler&initial_workers=1&synchronous=true")
    true("doubler" in registered["status"] and "registered" in registered["status"], registered)
    equal(predict("doubler", "[[1, 2, 3, 4]]"), [[2, 4, 6, 8]])
    fails("POST", f"{url}?url=unnamed_dims&model_name=doubler&initial_workers=1", 409, "ConflictStatusException", "doubler")
    true("doubler" in [entry["modelName"] for entry in ask("GET", url)["models"]])
    equal(ask("DELETE", f"{url}/doubler"), {"status": 'Model "doubler" unregistered'})
    fails("DELETE", f"{url}/doubler", 404, "ModelNotFoundException", "doubler")
    fails("POST", f"{INFERENCE}/predictions/doubler", 404, "ModelNotFoundException", data="[[1, 2, 3, 4]]")
    none = ask("POST", url, json={"url": "unnamed_dims", "model_name": "doubler"})
    true("0 initial workers" in none["status"], none)
    fails("POST", f"{INFERENCE}/predictions/doubler", 503, "ServiceUnavailableException", "doubler", data="[[1, 2, 3, 4]]")
    ask("PUT", f"{url}/doubler?min_worker=1&synchronous=true")
    equal(predict("doubler", "[[1, 2, 3, 4]]"), [[2, 4, 6, 8]])
    ask("DELETE", f"{url}/doubler/1.0")
    later = ask("POST", f"{url}?url=unnamed_dims&model_name=doubler&initial_workers=1&synchronous=false", 202)
    equal(later, {"status": "Processing worker updates..."})
    fails("DELETE", f"{url}/half_plus_two", 403, "InvalidModelVersionException", "half_plus_two")
    equal(ask("DELETE", f"{url}/half_plus_two/1.0"), {"status": 'Model "half_plus_two" unregistered'})
    equal(predict("half_plus_two", "[4.0]"), [5.0])


def test_metrics():
    text = session.get(f"{INFERENCE}/metrics", timeout=30).text
    true('ts_inference_requests_total{' in text and "ts_inference_latency_microseconds" in text)
    only = session.get(f"{INFERENCE}/metrics?name[]=ts_inference_requests_total", timeout=30).text
    families = {line.split()[2] for line in only.splitlines() if line.startswith("# TYPE")}
    equal(families, {"ts_inference_requests_total"})


inference = inference_pb2_grpc.InferenceAPIsServiceStub(grpc.insecure_channel(DATA))
management = management_pb2_grpc.ManagementAPIsServiceStub(grpc.insecure_channel(ADMIN))


def question(name, body, key="data", version=""):
    return inference_pb2.PredictionsRequest(model_name=name, model_version=version, input={key: body})


def test_grpc_inference():
    equal(json.loads(inference.Ping(Empty()).health), {"status": "Healthy"})
    for key in ("data", "body"):
        equal(json.loads(inference.Predictions(question("half_plus_two", b"[1.0, 2.0]", key)).prediction), [3.5, 4.0])
    equal([json.loads(answer.prediction) for answer in inference.StreamPredictions(question("half_plus_two", b"[1.0]"))], [[3.5]])
    both_ways = inference.StreamPredictions2(question("half_plus_two", b"[%d.0]" % n) for n in range(3))
    equal(sorted(json.loads(answer.prediction)[0] for answer in both_ways), [3.0, 3.5, 4.0])
    error = refused(grpc.RpcError, lambda: inference.Predictions(question("nothing", b"[1.0]")))
    true(error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL) and "nothing" in error.details(), error)


def test_grpc_management():
    listed = json.loads(management.ListModels(management_pb2.ListModelsRequest(limit=100)).msg)
    true("iris" in [entry["modelName"] for entry in listed["models"]])
    described = json.loads(management.DescribeModel(management_pb2.DescribeModelRequest(model_name="iris")).msg)
    equal((described[0]["modelName"], described[0]["modelVersion"]), ("iris", "1.0"))
    scaled = management.ScaleWorker(management_pb2.ScaleWorkerRequest(model_name="iris", min_worker=2, max_worker=2, synchronous=True))
    true("iris" in scaled.msg)
    management.SetDefault(management_pb2.SetDefaultRequest(model_name="iris", model_version="1.0"))
    registered = management.RegisterModel(management_pb2.RegisterModelRequest(
        url="unnamed_dims", model_name="again", initial_workers=1, synchronous=True))
    true("again" in registered.msg)
    equal(json.loads(inference.Predictions(question("again", b"[[1, 2, 3, 4]]")).prediction), [[2, 4, 6, 8]])
    true("again" in management.UnregisterModel(management_pb2.UnregisterModelRequest(model_name="again")).msg)
    error = refused(grpc.RpcError, lambda: management.UnregisterModel(management_pb2.UnregisterModelRequest(model_name="again")))
    equal(error.code(), grpc.StatusCode.NOT_FOUND)
    error = refused(grpc.RpcError, lambda: management.ScaleWorker(
        management_pb2.ScaleWorkerRequest(model_name="iris", min_worker=3, max_worker=1)))
    equal(error.code(), grpc.StatusCode.INVALID_ARGUMENT)
    on_data = management_pb2_grpc.ManagementAPIsServiceStub(grpc.insecure_channel(DATA))
    true(refused(grpc.RpcError, lambda: on_data.ListModels(management_pb2.ListModelsRequest())).code() in
         (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED))


main(globals())
