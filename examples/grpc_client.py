"""Scores images over gRPC.

examples/grpc_client.py HOST:PORT MODEL IMAGES.npy
"""

import sys

import numpy as np
import tritonclient.grpc as triton

address, model, path = sys.argv[1:]
images = np.load(
    path, allow_pickle=False
)  # float32 [n, 1, 28, 28], grey levels 0 to 1, white on black

with triton.InferenceServerClient(address) as client:
    tensor = triton.InferInput("image", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images)
    scores = client.infer(model, [tensor]).as_numpy("scores")  # float32 [n, classes]

for row in scores:
    print(f"{row.argmax()} {row.max():.4f}")
