#!/bin/sh
# One question to one model in every REST protocol.
#
#   millrace serve fixtures/models
#   sh examples/clients/rest.sh [HOST:PORT]
#
# half_plus_two says 3.5, 4 and 5.5 each time.
set -eu
at="http://${1:-localhost:8080}"
ask() { curl --fail --silent --show-error "$@"; echo; }

# TensorFlow Serving, and KServe v1: rows, then columns.
ask "$at/v1/models/half_plus_two:predict" -d '{"instances": [1.0, 2.0, 5.0]}'
ask "$at/v1/models/half_plus_two:predict" -d '{"inputs": {"x": [1.0, 2.0, 5.0]}}'

# The Open Inference Protocol, as Triton, KServe v2, MLServer and Seldon speak it.
ask "$at/v2/models/half_plus_two/infer" \
  -d '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [3], "data": [1.0, 2.0, 5.0]}]}'

# TorchServe.
ask "$at/predictions/half_plus_two" -d '[1.0, 2.0, 5.0]'

# KServe's CloudEvents, in their binary form.
ask "$at/v1/models/half_plus_two:predict" -H 'content-type: application/json' -H 'ce-specversion: 1.0' -H 'ce-id: 1' \
  -H 'ce-type: example' -H 'ce-source: rest.sh' -d '{"instances": [1.0, 2.0, 5.0]}'

# The general endpoints take tables: one row of ten numbers here.
ask "$at/predict" -H 'content-type: application/json' -d '{"model_name": "fraud",
  "input_data": [[116.27, 3.27, 0.45, 18.75, 4.57, 2.51, 1061.59, 9.0, 0.0, 0.0]]}'
