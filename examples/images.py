"""Writes the first 100 embedded digits, for the other examples.

examples/images.py FOLDER

`images.npy` for the Python clients, and `request.json`, the same in the protocol's JSON.
"""

import json
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from mnist_jax.data.digits import upscale

folder = Path(sys.argv[1])
pixels = upscale(load_digits().images[:100].astype(np.uint8))
images = pixels[:, None].astype(np.float32) / np.float32(255)  # [100, 1, 28, 28], 0 to 1

np.save(folder / "images.npy", images)
image = {"name": "image", "datatype": "FP32", "shape": images.shape, "data": images.tolist()}
(folder / "request.json").write_text(json.dumps({"inputs": [image]}))
