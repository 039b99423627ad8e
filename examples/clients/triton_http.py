"""Triton's own client against millrace: binary tensors both ways, metadata, statistics.

    millrace serve fixtures/models
    pip install 'tritonclient[http]'
    python examples/clients/triton_http.py [HOST:PORT]

prints what the model takes, and `fraud 2: 0.927, 1 rows so far` (the count grows with each run).
"""

import sys

import numpy as np
import tritonclient.http as triton

client = triton.InferenceServerClient(sys.argv[1] if len(sys.argv) > 1 else "localhost:8080")
print(client.get_model_metadata("fraud")["inputs"])

payment = np.array([[116.27, 3.27, 0.45, 18.75, 4.57, 2.51, 1061.59, 9.0, 0.0, 0.0]], np.float32)
transaction = triton.InferInput("transaction", list(payment.shape), "FP32").set_data_from_numpy(payment)
answer = client.infer("fraud", [transaction], outputs=[triton.InferRequestedOutput("probability")])

rows = client.get_inference_statistics("fraud")["model_stats"][0]["inference_count"]
version = answer.get_response()["model_version"]
print(f"fraud {version}: {answer.as_numpy('probability')[0, 0]:.3f}, {rows} rows so far")
