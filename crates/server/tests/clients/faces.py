"""What the suites about faces share: the photograph, the golden answer, and when an answer is it."""

import base64
import json
import os

import numpy as np

from common import FIXTURES, equal, true

with open(os.path.join(FIXTURES, "face", "astronaut.png"), "rb") as file:
    PHOTOGRAPH = file.read()
with open(os.path.join(FIXTURES, "face", "golden_astronaut.json"), encoding="utf-8") as file:
    GOLDEN = json.load(file)["faces"][0]
with open(os.path.join(FIXTURES, "images", "one_pixel.png"), "rb") as file:
    PIXEL = file.read()


def b64(picture):
    return {"b64": base64.b64encode(picture).decode()}


def golden(bbox, confidence, landmarks, embedding):
    """Fails unless this is the face of the photograph: within a hundredth of a pixel, and the same person."""
    pixel = 0.01 / 512
    for got, want, tolerance in (
        (bbox, GOLDEN["bbox"], pixel), (confidence, GOLDEN["confidence"], 1e-4), (landmarks, GOLDEN["landmarks"], pixel),
    ):
        equal(np.shape(got), np.shape(want))
        true(np.abs(np.subtract(got, want)).max() <= tolerance, f"{got} is not {want}")
    embedding = np.asarray(embedding, np.float64)
    cosine = embedding @ GOLDEN["embedding"] / np.linalg.norm(embedding) / np.linalg.norm(GOLDEN["embedding"])
    true(cosine >= 0.9999, f"the embeddings' cosine is {cosine}")


def tensors(answer):
    """Fails unless the tensors of an answer to the pixel and the photograph hold no face and the one."""
    equal(answer.as_numpy("face_count").tolist(), [0, 1])
    golden(*(answer.as_numpy(name)[0] for name in ("bbox", "confidence", "landmarks", "embedding")))
