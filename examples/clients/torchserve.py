"""TorchServe's two APIs: predictions on the data port, management on the admin port.

    millrace serve fixtures/models
    pip install requests
    python examples/clients/torchserve.py [HOST:PORT] [ADMIN_HOST:PORT]

prints the health, an answer, the models, and what scaling a model says.
"""

import sys

import requests

data, admin = (sys.argv[1:] + ["localhost:8080", "localhost:8081"][len(sys.argv) - 1 :])[:2]

print(requests.get(f"http://{data}/ping").json())

iris = [[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]]
answer = requests.post(f"http://{data}/predictions/iris", json=iris)
answer.raise_for_status()
print(answer.json()["label"])

print([model["modelName"] for model in requests.get(f"http://{admin}/models", params={"limit": 3}).json()["models"]])
scaled = requests.put(f"http://{admin}/models/iris", params={"min_worker": 2, "synchronous": "true"})
print(scaled.json()["status"])
