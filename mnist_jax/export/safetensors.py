"""The weights as named tensors: `params/conv1/kernel`, `model_state/image_mean`."""

import json
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load, save


def to_bytes(params: Any, model_state: Any, metadata: dict[str, str]) -> bytes:
    """Packs nested dictionaries of arrays; the same arrays and metadata give the same bytes.

    A key of digits stands for a position in a list, an int in the dictionary.
    """
    tree = jax.device_get({"params": params, "model_state": model_state})
    leaves, _ = jax.tree.flatten_with_path(tree)
    tensors = {
        "/".join(str(key.key) for key in path): np.asarray(leaf, order="C") for path, leaf in leaves
    }
    data = save(tensors)
    # The library writes metadata in random order, so it is put in here, sorted; the header's length
    # comes first, in 8 bytes, and spaces fill it up to a multiple of 8.
    size = int.from_bytes(data[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(data[8 : 8 + size])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def from_bytes(data: bytes) -> tuple[Any, Any]:
    """Reads what `to_bytes` wrote; returns params and model_state, NumPy arrays at the leaves."""
    tree: dict[str, Any] = {"params": {}, "model_state": {}}
    for name, tensor in load(data).items():
        *parents, last = (int(key) if key.isdigit() else key for key in name.split("/"))
        node: Any = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = tensor
    return tree["params"], tree["model_state"]
