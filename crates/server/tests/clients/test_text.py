"""Text models by the clients of others: OpenAI's package, and Hugging Face's for text-embeddings-inference.

What they depend on:
- `openai` asks for base64 unless it is told otherwise, and tells errors apart by their status and `error.code`.
- `huggingface_hub` posts to the address that it is given and takes what comes as an array.
"""

import json
import os

import numpy as np
import openai
from huggingface_hub import InferenceClient

from common import DATA, FIXTURES, equal, main, refused, true

os.environ["NO_PROXY"] = "*"
client = openai.OpenAI(base_url=f"http://{DATA}/v1", api_key="none", max_retries=0, timeout=30)

with open(os.path.join(FIXTURES, "cases", "text", "roberta_mean.json"), encoding="utf-8") as file:
    CASE = next(case for case in json.load(file)["cases"] if "right" in case["note"])
TEXTS = CASE["texts"]
GOLDEN = np.array(CASE["outputs"]["sentence_embedding"]["data"]).reshape(len(TEXTS), -1)


def close(got, want):
    equal(got.shape, want.shape)
    true(np.allclose(got, want, rtol=0, atol=1e-5), f"{got} is not {want}")


def vectors(answer):
    equal([entry.index for entry in answer.data], list(range(len(answer.data))))
    return np.array([entry.embedding for entry in answer.data])


def test_openai_embeddings_of_one_text_and_of_several():
    answer = client.embeddings.create(model="roberta_mean", input=TEXTS)
    equal((answer.object, answer.model, answer.data[0].object), ("list", "roberta_mean", "embedding"))
    close(vectors(answer), GOLDEN)
    equal(answer.usage.prompt_tokens, sum(CASE["inputs"]["attention_mask"]["data"]))
    equal(answer.usage.total_tokens, answer.usage.prompt_tokens)
    close(vectors(client.embeddings.create(model="roberta_mean", input=TEXTS[0])), GOLDEN[:1])
    close(vectors(client.embeddings.create(model="roberta_mean:1", input=TEXTS)), GOLDEN)


def test_openai_floats_and_base64_are_the_same_numbers():
    floats = vectors(client.embeddings.create(model="roberta_mean", input=TEXTS, encoding_format="float"))
    close(floats, GOLDEN)
    base64 = client.embeddings.create(model="roberta_mean", input=TEXTS)
    true(np.array_equal(floats.astype(np.float32), vectors(base64).astype(np.float32)))


def test_openai_token_ids_stand_for_texts():
    length = sum(CASE["inputs"]["attention_mask"]["data"][: CASE["inputs"]["input_ids"]["shape"][1]])
    ids = CASE["inputs"]["input_ids"]["data"][:length]
    close(vectors(client.embeddings.create(model="roberta_mean", input=ids)), GOLDEN[:1])
    close(vectors(client.embeddings.create(model="roberta_mean", input=[ids, ids])), GOLDEN[[0, 0]])


def test_openai_dimensions_cut_vectors():
    short = vectors(client.embeddings.create(model="roberta_mean", input=TEXTS, dimensions=8))
    cut = GOLDEN[:, :8]
    close(short, cut / np.linalg.norm(cut, axis=1, keepdims=True))


def test_openai_errors_are_those_that_the_package_knows():
    unknown = refused(openai.NotFoundError, lambda: client.embeddings.create(model="text-embedding-3-small", input="a"))
    equal((unknown.status_code, unknown.code, unknown.type), (404, "model_not_found", "invalid_request_error"))
    true("roberta_mean" in str(unknown), str(unknown))
    for options in [{"input": ""}, {"input": []}, {"input": "a", "dimensions": 4096}]:
        error = refused(openai.BadRequestError, lambda: client.embeddings.create(model="roberta_mean", **options))
        equal((error.status_code, error.type), (400, "invalid_request_error"))
    error = refused(openai.BadRequestError, lambda: client.embeddings.create(model="bert_labels", input="a"))
    true("classification" in str(error), str(error))


def test_hugging_face_feature_extraction():
    hub = InferenceClient(model=f"http://{DATA}/embed/roberta_mean", timeout=30)
    close(np.asarray(hub.feature_extraction(TEXTS[0])), GOLDEN[:1])
    close(np.asarray(hub.feature_extraction(TEXTS[0], normalize=True, truncate=True, truncation_direction="right")), GOLDEN[:1])


def test_hugging_face_sentence_similarity():
    hub = InferenceClient(model=f"http://{DATA}/similarity/roberta_mean", timeout=30)
    close(np.array(hub.sentence_similarity(TEXTS[0], other_sentences=TEXTS[1:])), GOLDEN[1:] @ GOLDEN[0])


main(globals())
