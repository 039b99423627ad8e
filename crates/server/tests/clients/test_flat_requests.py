"""The general endpoints by plain `requests`: `/predict`, `/batch_predict`, `/models`, `/health`.

What scripts for them depend on: errors under `detail`, floats for times, `batch_id` always present in an answer.
"""

import time

import numpy as np
import requests

from common import DATA, cases, equal, main, true

session = requests.Session()
session.trust_env = False


def ask(method, path, body=None, status=200):
    response = session.request(method, f"http://{DATA}{path}", json=body, timeout=30)
    equal(response.status_code, status, response.text)
    return response.json()


def question(model, data, **rest):
    return {"model_name": model, "input_data": data, **rest}


ROW = [116.27, 3.27, 0.45, 18.75, 4.57, 2.51, 1061.59, 9.0, 0.0, 0.0]


def test_golden_cases():
    asked = set()
    for case in cases():
        (_, value), (name, want) = next(iter(case.inputs.items())), next(iter(case.outputs.items()))
        fits = len(case.inputs) == len(case.outputs) == 1 and value.ndim == want.ndim == 2 and {value.dtype, want.dtype} <= {np.dtype("f4"), np.dtype("f8")}
        if not fits or not np.isfinite(value).all():
            continue
        for path in ("/predict", f"/predict/{case.model}"):
            answer = ask("POST", path, question(case.model, value.tolist(), model_version=str(case.version)))
            case.check(name, np.array(answer["predictions"], want.dtype))
            equal((answer["model_name"], answer["model_version"], answer["batch_id"]), (case.model, str(case.version), None))
            true(isinstance(answer["inference_time_ms"], float) and answer["inference_time_ms"] >= 0)
        asked.add(case.model)
    true({"fraud", "identity_fp32"} & asked, asked)


def test_batch_id_and_integers():
    answer = ask("POST", "/predict", question("fraud", [[1] * 10], batch_id="b-7"))
    equal((answer["batch_id"], len(answer["predictions"])), ("b-7", 1))
    equal(ask("POST", "/predict", question("fraud", [ROW], model_version=None, batch_id=None))["batch_id"], None)


def test_batch_predict_leaves_failures_out():
    batch = [question("fraud", [ROW], batch_id="1"), question("nothing", [ROW]), question("fraud", [[1.0]]), question("fraud", [ROW, ROW], batch_id="2")]
    answers = ask("POST", "/batch_predict", batch)
    equal([(answer["batch_id"], len(answer["predictions"])) for answer in answers], [("1", 1), ("2", 2)])
    equal(ask("POST", "/batch_predict", []), [])


def test_models_and_metrics():
    models = ask("GET", "/models")
    equal((models["half_plus_two"], models["fraud"]), (["1", "2"], ["1", "2"]))
    before = ask("GET", "/models/fraud/metrics?version=2")["metrics"]
    ask("POST", "/predict", question("fraud", [ROW]))
    after = ask("GET", "/models/fraud/metrics?version=2")["metrics"]
    equal((after["model_name"], after["version"], after["is_loaded"]), ("fraud", "2", True))
    equal(after["inference_count"] - before["inference_count"], 1)
    true(after["load_time"] > 0 and after["total_inference_time"] >= before["total_inference_time"])
    true(abs(after["average_latency_ms"] - 1000 * after["total_inference_time"] / after["inference_count"]) < 1e-6)
    true("detail" in ask("GET", "/models/nothing/metrics", status=404))


def test_health():
    health = ask("GET", "/health")
    equal(health["status"], "healthy")
    true(abs(health["timestamp"] - time.time()) < 60 and isinstance(health["timestamp"], float))


def test_mistakes():
    def fails(statuses, body, path="/predict"):
        response = session.post(f"http://{DATA}{path}", json=body, timeout=30)
        true(response.status_code in statuses and "detail" in response.json(), response.text)
    fails([404], question("nothing", [ROW]))
    fails([404], question("fraud", [ROW], model_version="9"))
    fails([422, 400], {"input_data": [ROW]})
    fails([422, 400], {"model_name": "fraud"})
    fails([422, 400], question("fraud", "text"))
    fails([422, 400], question("fraud", [[1.0] * 10, [1.0]]))
    fails([400], question("fraud", [[1.0]]))
    fails([422, 400], question("fraud", [1.0]))
    broken = session.post(f"http://{DATA}/predict", data="{", timeout=30)
    true(broken.status_code in (400, 422) and "detail" in broken.json())


main(globals())
