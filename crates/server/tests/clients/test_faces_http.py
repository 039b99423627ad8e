"""The face pipeline by plain `requests` and by Triton's own Python client over HTTP.

What they depend on: `requests` sends the bytes of a file as they are, with no content type at all; Triton's client puts a
length before each element of a numpy array of objects, and reads outputs of no rows as arrays of no rows.
"""

import numpy as np
import requests
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

from common import DATA, equal, main, refused, true
from faces import PHOTOGRAPH, PIXEL, b64, golden, tensors

session = requests.Session()
session.trust_env = False


def ask(method, path, status=200, **options):
    response = session.request(method, f"http://{DATA}{path}", timeout=60, **options)
    equal(response.status_code, status, response.text)
    return response.json()


def test_rows_by_requests():
    path = "/v1/models/face_pipeline:predict"
    body = {"signature_name": "serving_default", "instances": [{"image": b64(PHOTOGRAPH)}, {"image": b64(PIXEL)}]}
    predictions = ask("POST", path, json=body)["predictions"]
    equal((len(predictions[0]["faces"]), predictions[1]), (1, {"faces": []}))
    golden(**predictions[0]["faces"][0])
    detection = ask("POST", "/v1/models/face_detection:predict", json={"instances": [b64(PHOTOGRAPH)]})
    equal([len(detection["predictions"][0][key]) for key in ("detection_boxes", "detection_scores", "landmark_positions")], [1] * 3)
    error = ask("POST", path, 400, json={"instances": [b64(PHOTOGRAPH), b64(b"no picture")]})
    true("instance 1" in error["error"], error)


def test_a_file_by_requests():
    path = "/predictions/face_pipeline"
    for options in ({"data": PHOTOGRAPH}, {"files": {"data": ("astronaut.png", PHOTOGRAPH, "image/png")}}):
        [faces] = ask("POST", path, **options)["faces"]
        equal(len(faces), 1)
        golden(**faces[0])


def test_tensors_by_tritonclient():
    client = http.InferenceServerClient(DATA, network_timeout=60)

    def infer(pictures, outputs=None):
        image = http.InferInput("image", [len(pictures)], "BYTES")
        image.set_data_from_numpy(np.array(pictures, dtype=np.object_))
        return client.infer("face_pipeline", [image], outputs=outputs)
    tensors(infer([PIXEL, PHOTOGRAPH]))
    names = ("face_count", "bbox", "confidence", "landmarks", "embedding")
    tensors(infer([PIXEL, PHOTOGRAPH], [http.InferRequestedOutput(name, binary_data=False) for name in names]))
    none = infer([PIXEL], [http.InferRequestedOutput("landmarks"), http.InferRequestedOutput("face_count")])
    equal((none.as_numpy("landmarks").shape, none.as_numpy("face_count").tolist()), ((0, 5, 2), [0]))
    metadata = client.get_model_metadata("face_pipeline")
    equal(metadata["inputs"], [{"name": "image", "datatype": "BYTES", "shape": [-1]}])
    equal(metadata["outputs"][3], {"name": "landmarks", "datatype": "FP32", "shape": [-1, 5, 2]})
    refused(InferenceServerException, lambda: infer([PIXEL, b"no picture"]), "instance 1")


main(globals())
