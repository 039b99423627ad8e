"""Vectors for texts by OpenAI's own client.

    millrace serve fixtures/text-models
    pip install openai numpy
    python examples/clients/text_openai.py [HOST:PORT] [MODEL]

prints how many tokens there were and how similar each text is to the first. The key is not looked at.
"""

import sys

import numpy
from openai import OpenAI

address, model = (sys.argv[1:] + ["localhost:8080", "roberta_mean"][len(sys.argv) - 1 :])[:2]
client = OpenAI(base_url=f"http://{address}/v1", api_key="none")

texts = ["The wheel turns.", "The wheel is still.", "Rye flour is dark."]
answer = client.embeddings.create(model=model, input=texts)
vectors = numpy.array([entry.embedding for entry in answer.data])

print(f"{answer.model}: {answer.usage.prompt_tokens} tokens, vectors of {vectors.shape[1]} numbers")
for text, similarity in zip(texts, vectors @ vectors[0]):
    print(f"{similarity:6.3f}  {text}")
