"""Preparing a folder of own pictures, beside loops that decode and keep nothing."""

import atexit
import io
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.interleaved import OURS, Part
from benchmarks.pillow_loop import decode, decode_and_send, loop
from mnist_jax.data import own
from mnist_jax.data.decoding import CHUNK

SIDE, NUM_CLASSES = 100, 10


def preparing(is_quick: bool) -> Part:
    """JPEG files on disk, which the page cache holds, to arrays; processes start each time."""
    number = 500 if is_quick else 10_000
    folder = Path(tempfile.mkdtemp(prefix="mnist_jax_pictures_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    paths = _write(folder / "jpegs", number)

    def make_ours():
        def prepare():
            shutil.rmtree(folder / "data", ignore_errors=True)
            own.prepare(folder / "jpegs", folder / "data", own.Settings())

        return prepare

    return Part(
        "pictures",
        f"Preparing {number:,} JPEG files of {SIDE}x{SIDE} in colour, all cores",
        "images/s",
        number,
        {
            OURS: make_ours,
            "Pillow, decoded and dropped": lambda: partial(loop, decode, paths, CHUNK),
            "Pillow, arrays sent back": lambda: partial(loop, decode_and_send, paths, CHUNK),
            "torchvision ImageFolder, DataLoader": lambda: _torchvision(folder / "jpegs"),
        },
    )


def _write(folder: Path, number: int) -> list[str]:
    """Writes smooth random pictures, which JPEG makes as large as photographs of this size."""
    random, paths = np.random.default_rng(0), []
    for index in range(number):
        coarse = Image.fromarray(random.integers(0, 256, (25, 25, 3), np.uint8))
        contents = io.BytesIO()
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(contents, "JPEG", quality=85)
        path = folder / str(index % NUM_CLASSES) / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents.getvalue())
        paths.append(str(path))
    return paths


def _torchvision(folder: Path):
    from torch.utils.data import DataLoader  # pyright: ignore[reportMissingImports]
    from torchvision import datasets, transforms  # pyright: ignore[reportMissingImports]

    data = datasets.ImageFolder(str(folder), transforms.PILToTensor())
    cores = len(os.sched_getaffinity(0))

    def read():
        for _ in DataLoader(data, batch_size=CHUNK, num_workers=cores):
            pass

    return read
