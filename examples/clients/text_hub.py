"""Vectors, similarities, labels and ranks for texts, as clients of text-embeddings-inference ask for them.

    millrace serve fixtures/text-models
    pip install huggingface_hub requests
    python examples/clients/text_hub.py [HOST:PORT]

prints one line for each.
"""

import sys

import requests
from huggingface_hub import InferenceClient

server = f"http://{sys.argv[1] if len(sys.argv) > 1 else 'localhost:8080'}"
texts = ["The wheel turns.", "The wheel is still.", "Rye flour is dark."]


def post(path, **body):
    answer = requests.post(server + path, json=body)
    if not answer.ok:
        error = answer.json()
        raise SystemExit(f"{answer.status_code} {error['error_type']}: {error['error']}")
    return answer.json()


# Hugging Face's client takes an address for a model.
vectors = InferenceClient(model=f"{server}/embed/bert_mean").feature_extraction(texts[0])
print("vector of shape", vectors.shape)
similarities = InferenceClient(model=f"{server}/similarity/bert_mean").sentence_similarity(texts[0], other_sentences=texts[1:])
print("similarities", similarities)

best = post("/predict/bert_labels", inputs=texts[0])[0]
print("label", best["label"], best["score"])
first = post("/rerank/xlm_roberta_ranker", query="What is rye flour?", texts=texts, return_text=True)[0]
print("best answer", first["text"], first["score"])
