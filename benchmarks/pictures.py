"""Preparing a folder of own pictures, and answering for one, beside bare loops."""

import atexit
import io
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from flax import nnx
from PIL import Image

from benchmarks import onnx_loop
from benchmarks.interleaved import OURS, Part
from benchmarks.pillow_loop import decode, decode_and_send, loop
from mnist_jax import models
from mnist_jax.data import own
from mnist_jax.data.decoding import CHUNK
from mnist_jax.export.onnx import to_bytes
from mnist_jax.serve import listed, predict

SIDE, NUM_CLASSES = 100, 10


def preparing(is_quick: bool) -> Part:
    """JPEG files on disk, which the page cache holds, to arrays; processes start each time."""
    number = 500 if is_quick else 10_000
    folder = _folder()
    paths = _write(folder / "jpegs", number, SIDE)

    return Part(
        "pictures",
        f"Preparing {number:,} JPEG files of {SIDE}x{SIDE} in colour, all cores",
        "images/s",
        number,
        {
            OURS: lambda: partial(own.prepare, folder / "jpegs", folder / "data", own.Settings()),
            "Pillow, decoded and dropped": lambda: partial(loop, decode, paths, CHUNK),
            "Pillow, arrays sent back": lambda: partial(loop, decode_and_send, paths, CHUNK),
            "torchvision ImageFolder, DataLoader": lambda: _torchvision(folder / "jpegs"),
        },
        before=partial(shutil.rmtree, folder / "data", ignore_errors=True),
    )


def predicting(is_quick: bool) -> Part:
    """JPEG files on disk to scores, in memory; processes and sessions start each time."""
    number, side = 256 if is_quick else 2048, 64
    folder = _folder()
    paths, file = _write(folder / "jpegs", number, side), folder / "model.onnx"
    model = models.build(
        "small_resnet_v1",
        rngs=nnx.Rngs(0),
        **models.Facts(num_classes=NUM_CLASSES, image_side=side, num_channels=3),
    )
    file.write_bytes(to_bytes(model, (side, side, 3), {"fit": "pad"}))

    def refuse(path: str, reason: str) -> None:
        raise RuntimeError(f"{path}: {reason}")

    def answer():
        classifier = predict.load(file)
        found = listed.list_files([str(folder / "jpegs")], b"\n", refuse)
        count = sum(len(names) for names, _ in predict.answers(classifier, found, "pad", refuse))
        assert count == number

    begin = partial(onnx_loop.open_model, str(file))
    return Part(
        "predict",
        f"Answering for {number:,} JPEG files of {side}x{side}, small_resnet_v1, all cores",
        "images/s",
        number,
        {
            OURS: lambda: answer,
            "Pillow and ONNX Runtime, one by one": lambda: partial(
                loop, onnx_loop.one_by_one, paths, CHUNK, begin
            ),
            "Pillow and ONNX Runtime, batches of 64": lambda: partial(
                loop, onnx_loop.together, paths, CHUNK, begin
            ),
        },
    )


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mnist_jax_pictures_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _write(folder: Path, number: int, side: int) -> list[str]:
    """Writes smooth random pictures, which JPEG makes as large as photographs of this size."""
    random, paths = np.random.default_rng(0), []
    for index in range(number):
        coarse = Image.fromarray(random.integers(0, 256, (side // 4, side // 4, 3), np.uint8))
        contents = io.BytesIO()
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(contents, "JPEG", quality=85)
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
