#!/bin/sh
# One question to each of the text endpoints.
#
#   millrace serve fixtures/text-models
#   sh examples/clients/text.sh [HOST:PORT]
#
# prints what is known of a model, then vectors, similarities, ranks, labels, tokens and a text. The weights of these
# models are random: the numbers mean nothing.
set -eu
at="http://${1:-localhost:8080}"
ask() { curl --fail --silent --show-error -H 'content-type: application/json' "$@"; echo; }

ask "$at/info/bert_mean"

# The model stands at the end of the path, in the body as `model`, or in the query. It may be left out where only one fits.
ask "$at/embed/bert_mean" -d '{"inputs": ["The wheel turns.", "Rye flour is dark."], "dimensions": 4}'
ask "$at/embed" -d '{"model": "bert_mean:1", "inputs": "flour", "prompt_name": "query", "normalize": false}'
ask "$at/embed_all?model=bert_mean" -d '{"inputs": "flour"}'
ask "$at/similarity/bert_mean" \
  -d '{"inputs": {"source_sentence": "The wheel turns.", "sentences": ["The wheel is still.", "Rye flour is dark."]}}'

# OpenAI's form.
ask "$at/v1/embeddings" -d '{"model": "bert_mean", "input": "The wheel turns.", "encoding_format": "base64"}'

# There is one ranking model here, so nobody has to name it.
ask "$at/rerank" -d '{"query": "What is rye flour?", "texts": ["The wheel turns.", "Rye flour is dark."], "return_text": true}'

# A text, a pair, and a batch of both.
ask "$at/predict/bert_labels" -d '{"inputs": "Rye flour is dark."}'
ask "$at/predict/bert_labels" -d '{"inputs": [["What is rye flour?", "Rye flour is dark."], ["The wheel turns."]], "raw_scores": true}'

ask "$at/tokenize/bert_mean" -d '{"inputs": "The wheel turns."}'
ask "$at/decode/bert_mean" -d '{"ids": [2, 81, 86, 105, 47, 3]}'
