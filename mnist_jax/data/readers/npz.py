"""`.npz` files with the names of MedMNIST or of Keras."""

import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

from mnist_jax.data.readers.listing import MAX_ARRAY_BYTES, Listing, array_part, classes_of, wrong

_LAYOUTS = {
    "MedMNIST's names": {
        split: (f"{name}_images", f"{name}_labels")
        for split, name in (("train", "train"), ("validation", "val"), ("test", "test"))
    },
    "Keras's names": {
        split: (f"x_{name}", f"y_{name}")
        for split, name in (("train", "train"), ("validation", "val"), ("test", "test"))
    },
}
_REMEDY = "name the arrays train_images, train_labels and so on, or x_train, y_train and so on"


def read(path: Path) -> Listing:
    """Reads the arrays, each at most `MAX_ARRAY_BYTES`.

    Raises:
        UserError: the archive is damaged or encrypted, an array is missing, of another type or
            shape, or too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            files = [name for name in archive.namelist() if name.endswith(".npy")]
            members = {name.removesuffix(".npy") for name in files}
            for title, layout in _LAYOUTS.items():
                if set(layout["train"]) <= members:
                    return _listing(path, archive, members, title, layout)
    except (
        OSError,
        EOFError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
        RuntimeError,  # it is encrypted, or packed in a way that is not known
    ) as e:
        raise wrong(path, f"is damaged ({e})", "write it again with numpy.savez") from e
    found = ", ".join(sorted(members)[:8]) or "no array"
    raise wrong(path, f"holds {found}, and no images and labels to train on", _REMEDY)


def _listing(
    path: Path,
    archive: zipfile.ZipFile,
    members: set[str],
    title: str,
    layout: dict[str, tuple[str, str]],
) -> Listing:
    parts = {}
    for split, (images, labels) in layout.items():
        if images in members and labels not in members:
            raise wrong(path, f"holds {images} and no {labels}", _REMEDY)
        if images in members:
            arrays = (_array(path, archive, name) for name in (images, labels))
            parts[split] = array_part(path, next(arrays), next(arrays), split)
    return Listing(f".npz with {title}", parts, classes_of(parts))


def _array(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise ValueError(f"{name} is in version {version} of .npy")
        shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, which are never loaded")
    size = math.prod(shape) * dtype.itemsize
    if size > MAX_ARRAY_BYTES:
        raise ValueError(f"{name} declares {size:,} bytes, more than {MAX_ARRAY_BYTES:,}")
    with archive.open(f"{name}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)
