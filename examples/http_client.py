"""Scores images over HTTP, as bytes.

examples/http_client.py HOST:PORT MODEL IMAGES.npy, with tritonclient[http] installed
"""

import sys

import numpy as np
import tritonclient.http as triton

address, model, path = sys.argv[1:]
images = np.load(
    path, allow_pickle=False
)  # float32 [n, 1, 28, 28], grey levels 0 to 1, white on black

with triton.InferenceServerClient(address) as client:
    labels = client.get_model_metadata(model)["parameters"]["labels"]
    tensor = triton.InferInput("image", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images)
    scores = client.infer(model, [tensor]).as_numpy("scores")  # float32 [n, classes]

for row in scores:
    print(f"{labels[row.argmax()]} {row.max():.4f}")
