"""What is meant for a GPU; with small sizes it runs on a CPU too, to try it."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import ours, peers
from benchmarks.interleaved import OURS, Part, result
from mnist_jax import data
from mnist_jax.training.evaluate import summarise

BEST_BATCH = 512  # of the sweep; to be chosen on the GPU at hand
SWEEP = (64, 128, 256, 512, 1024, 2048)
NUM_SEEDS = 30


def training(is_quick: bool) -> Part:
    """An epoch of 60,000 images in one dispatch, in bfloat16, beside PyTorch's ways to do it."""
    images, labels = ours.random_data(64 if is_quick else 60_000)
    batch = 16 if is_quick else BEST_BATCH

    def make_ours(compute_dtype: str):
        config = ours.recipe(batch_size=batch, compute_dtype=compute_dtype)
        return ours.Training(config, images, labels).epoch

    peer = partial(peers.make_training, images, labels, batch_size=batch)
    loader = partial(peers.make_training_from_loader, images, labels, batch_size=batch)
    graphs = partial(peers.make_training_in_cuda_graphs, images, labels, batch_size=batch)
    last = {"layout": "channels_last"}
    return Part(
        "gpu_training",
        f"Epoch of {len(labels):,} images, mnist_cnn_v1, batch {batch}",
        "images/s",
        len(labels),
        {
            OURS: partial(make_ours, "bfloat16"),
            "mnist_jax, float32": partial(make_ours, "float32"),
            "PyTorch": partial(peer, layout="default"),
            "PyTorch channels_last": partial(peer, **last),
            "PyTorch channels_last, bfloat16": partial(peer, **last, bfloat16=True),
            "PyTorch channels_last, bfloat16, compiled": partial(
                peer, **last, bfloat16=True, compiled=True
            ),
            "PyTorch channels_last, bfloat16, CUDA graphs": graphs,
            "PyTorch, DataLoader, 4 workers": partial(loader, num_workers=4),
        },
    )


def sweep(is_quick: bool) -> Part:
    """This project's epoch by batch size, in bfloat16."""
    images, labels = ours.random_data(64 if is_quick else 60_000)
    batches = (16, 32) if is_quick else SWEEP

    def make_ours(batch: int):
        config = ours.recipe(batch_size=batch, compute_dtype="bfloat16")
        return ours.Training(config, images, labels).epoch

    return Part(
        "gpu_sweep",
        "Epoch of mnist_cnn_v1 in bfloat16 by batch size",
        "images/s",
        len(labels),
        {f"batch {batch}": partial(make_ours, batch) for batch in batches},
    )


def sabour(is_quick: bool) -> Part:
    """An epoch of the capsule network; the fastest published one takes 20.5 s (V100, 2018)."""
    images, labels = ours.random_data(8 if is_quick else 60_000)

    def make_ours(compute_dtype: str):
        changes = {"compute_dtype": compute_dtype, "batch_size": 4 if is_quick else 128}
        config = ours.recipe("mnist_capsule_v1", **changes)
        return ours.Training(config, images, labels).epoch

    return Part(
        "gpu_sabour",
        f"Epoch of {len(labels):,} images, mnist_capsule_v1 with its recipe",
        "s",
        1,
        {f"mnist_jax, {name}": partial(make_ours, name) for name in ("bfloat16", "float32")},
    )


def time_to_accuracy(is_quick: bool, manual_dir: Path, data_dir: Path) -> dict[str, Any]:
    """Trains `mnist_cnn_fast_v1` with many seeds; what is compiled before the clock starts."""
    dataset = data.prepare("mnist_v1", data_dir, manual_dir)
    train, test = (data.read(dataset, split) for split in ("train", "test"))
    changes = {}
    if is_quick:
        train, test = (data.Split(*(array[:512] for array in split)) for split in (train, test))
        changes = {"epochs": 1, "batch_size": 64}
    seconds, accuracies = [], []
    for seed in [0, *range(2 if is_quick else NUM_SEEDS)]:
        config = ours.recipe("mnist_cnn_fast_v1", seed=seed, **changes)
        # The seed is a constant of the compiled steps: take one, so that they are compiled.
        training = ours.Training(config, *train)
        first_state = jax.tree.map(lambda leaf: leaf.copy(), training.state)
        training.epoch()
        training.state = jax.block_until_ready(first_state)
        start = time.perf_counter()
        for epoch in range(1, config["epochs"] + 1):
            training.epoch(epoch)
        seconds.append(time.perf_counter() - start)
        scores, losses = training.make_score()(test)
        accuracies.append(summarise(scores, losses, test.labels)["accuracy"])
    seconds, accuracies = seconds[1:], accuracies[1:]  # the first run warmed everything up
    note = (
        f"test accuracy {np.mean(accuracies):.4f} ± {np.std(accuracies, ddof=1):.4f} "
        f"({len(accuracies)} seeds, from {min(accuracies):.4f}); compilation and evaluation apart"
    )
    title = f"Training mnist_cnn_fast_v1 to the end, epochs: {config['epochs']}"
    return result("gpu_time_to_accuracy", title, "s", 1, {OURS: seconds}, [note])
