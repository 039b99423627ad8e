"""The face pipeline by Triton's own Python client over gRPC.

What it depends on: an array of objects goes into `raw_input_contents` with a length before each element, and outputs of no
rows come back as arrays of no rows.
"""

import numpy as np
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from common import DATA, equal, main, refused
from faces import PHOTOGRAPH, PIXEL, tensors

client = grpc.InferenceServerClient(DATA)


def infer(pictures, outputs=None):
    image = grpc.InferInput("image", [len(pictures)], "BYTES")
    image.set_data_from_numpy(np.array(pictures, dtype=np.object_))
    return client.infer("face_pipeline", [image], outputs=outputs)


def test_tensors():
    tensors(infer([PIXEL, PHOTOGRAPH]))
    none = infer([PIXEL], [grpc.InferRequestedOutput("landmarks"), grpc.InferRequestedOutput("face_count")])
    equal((none.as_numpy("landmarks").shape, none.as_numpy("face_count").tolist()), ((0, 5, 2), [0]))
    metadata = client.get_model_metadata("face_pipeline", as_json=True)
    equal(metadata["outputs"][3]["shape"], ["-1", "5", "2"])


def test_bad_pictures_are_named():
    error = refused(InferenceServerException, lambda: infer([PIXEL, b"no picture"]), "instance 1")
    equal(error.status(), "StatusCode.INVALID_ARGUMENT")


main(globals())
