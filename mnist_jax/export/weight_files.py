"""Files of weights that others have written: PyTorch, safetensors, Keras, NumPy; read as arrays."""

import io
import zipfile
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from mnist_jax.errors import UserError, first_line

Origin = Literal["torch", "keras", "ours"]  # whose layout the arrays have


class Weights(NamedTuple):
    """Named arrays of one network."""

    arrays: dict[str, np.ndarray]
    origin: Origin
    is_ordered: bool  # whether the arrays come in the order of the layers


def read(path: Path) -> Weights:
    """Reads a file of weights; its ending says what it is.

    `.pth` and `.pt` hold a PyTorch `state_dict`, alone or under the key `state_dict` or
    `model_state_dict`; nothing in them is run. `.h5` and `.hdf5` are what Keras's `save_weights`
    and `save` write. `.npz` holds arrays with Keras's axes, in the order of the layers.
    `.safetensors` is this project's where its names begin with `params/`, else PyTorch's.

    Raises:
        UserError: the file is missing, of another kind or damaged, or a library is missing.
    """
    readers = {
        **dict.fromkeys((".pth", ".pt"), _read_torch),
        **dict.fromkeys((".h5", ".hdf5"), _read_keras),
        ".safetensors": _read_safetensors,
        ".npz": _read_npz,
    }
    if path.suffix not in readers:
        raise UserError(f"{path} ends in {path.suffix!r}; give one of {', '.join(readers)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; name a file of weights") from error
    try:
        weights = readers[path.suffix](content)
    except UserError:
        raise
    except ImportError as error:
        extra = "import" if error.name == "h5py" else "bench"
        raise UserError(
            f"{path.name} needs {error.name}, which is not installed; run scripts/install {extra}"
        ) from error
    except Exception as error:  # each library has kinds of its own
        raise UserError(
            f"{path} cannot be read as {path.suffix} ({first_line(error)}); save the weights again"
        ) from error
    if not weights.arrays:
        raise UserError(f"{path} holds no arrays; save the weights of a trained network")
    for name, array in weights.arrays.items():
        if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
            raise UserError(f"{name} in {path} holds what is not a finite float; train again")
    return weights


def _read_torch(content: bytes) -> Weights:
    import torch  # pyright: ignore[reportMissingImports]

    state: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    for key in ("state_dict", "model_state_dict"):
        state = state[key] if isinstance(state, dict) and key in state else state
    if not isinstance(state, dict) or not all(torch.is_tensor(one) for one in state.values()):
        raise UserError("the file holds no state_dict; save model.state_dict() with torch.save")
    return Weights(
        {
            name.removeprefix("module."): tensor.detach().float().numpy()  # of DataParallel
            for name, tensor in state.items()
            if not name.endswith("num_batches_tracked")
        },
        "torch",
        is_ordered=True,
    )


def _read_safetensors(content: bytes) -> Weights:
    from safetensors.numpy import load

    arrays = {
        name: array
        for name, array in sorted(load(content).items())
        if not name.endswith("num_batches_tracked")
    }
    is_ours = all(name.startswith(("params/", "model_state/")) for name in arrays)
    return Weights(arrays, "ours" if is_ours else "torch", is_ordered=False)


def _read_keras(content: bytes) -> Weights:
    import h5py

    arrays = {}
    with h5py.File(io.BytesIO(content), "r") as file:
        group: Any = file.get("model_weights", file)
        if "layer_names" not in group.attrs:  # Keras 3: by name alone
            group.visititems(
                lambda name, one: arrays.update({name: one[()]} if hasattr(one, "shape") else {})
            )
            arrays = {k: v for k, v in arrays.items() if not k.startswith("optimizer/")}
            return Weights(arrays, "keras", is_ordered=False)
        for layer in map(_text, group.attrs["layer_names"]):
            for name in map(_text, group[layer].attrs["weight_names"]):
                arrays[f"{layer}/{name}"] = np.asarray(group[layer][name], np.float32)
    return Weights(arrays, "keras", is_ordered=True)


def _read_npz(content: bytes) -> Weights:
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise ValueError("it is not a ZIP archive")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return Weights({name: arrays[name] for name in arrays.files}, "keras", is_ordered=True)


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
