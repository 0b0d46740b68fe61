"""Times the CNN's training step beside PyTorch's, in turn, in one process.

    scripts/install bench
    .venv/bin/python -m benchmarks.training_step [--rounds 15]

Same network, batch of 64, float32, Adam, dropout, images in memory (random: the time does not
depend on them). Each round times every candidate once, so that a machine whose speed drifts drifts
for all; what counts is the ratio within a round. Prints a Markdown table; `--json FILE` keeps the
figures.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

from mnist_jax import environment
from mnist_jax import state as state_module
from mnist_jax.losses import nll
from mnist_jax.models import MODELS
from mnist_jax.optimizers import make_optimizer
from mnist_jax.step import make_streams, make_train_steps, no_progress, shuffled

BATCH_SIZE = 64
NUM_IMAGES = 6_400
STEPS = 10
OURS = "mnist_jax"


class TorchCNN(torch.nn.Module):
    """The same network as `mnist_cnn_v1`, as pytorch/examples writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(1, 32, 3)
        self.conv2 = torch.nn.Conv2d(32, 64, 3)
        self.dropout1 = torch.nn.Dropout(0.25)
        self.dense1 = torch.nn.Linear(9216, 128)
        self.dropout2 = torch.nn.Dropout(0.5)
        self.dense2 = torch.nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images, `[batch, 1, 28, 28]`, to logits."""
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        x = self.dropout1(torch.nn.functional.max_pool2d(x, 2))
        x = self.dropout2(torch.relu(self.dense1(torch.flatten(x, 1))))
        return self.dense2(x)


def make_ours(images: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    """Builds a function that takes `STEPS` steps of this project's training and waits for them."""
    streams = make_streams(0)
    model = MODELS["mnist_cnn_v1"](
        num_classes=10, image_mean=0.1307, image_std=0.3081, rngs=nnx.Rngs(params=streams.init)
    )
    graphdef, params, model_state = state_module.take_apart(model)
    optimizer = make_optimizer(
        "adam", optax.constant_schedule(1e-3), weight_decay=0.0, momentum=0.0
    )
    steps = make_train_steps(
        graphdef,
        optimizer,
        nll,
        streams,
        batch_size=BATCH_SIZE,
        augment=None,
        reconstruction_weight=0.0,
        ema_decay=0.0,
    )
    state = state_module.first_state(params, model_state, optimizer)
    data = jax.device_put((images, labels))
    order = shuffled(streams.shuffle, 1, len(labels))

    def run() -> None:
        nonlocal state
        state, progress = steps(state, no_progress(), *data, order, 0, STEPS)
        jax.block_until_ready(progress)

    return run


def make_torch(
    images: np.ndarray, labels: np.ndarray, memory_format: torch.memory_format
) -> Callable[[], None]:
    """Builds the same for a plain PyTorch loop over tensors in memory."""
    torch.manual_seed(0)
    network = TorchCNN().to(memory_format=memory_format)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    pixels = torch.tensor(images)[:, None]
    truth = torch.tensor(labels, dtype=torch.long)

    def run() -> None:
        order = torch.randperm(len(truth))
        for step in range(STEPS):
            chosen = order[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
            batch = (pixels[chosen].float() / 255 - 0.1307) / 0.3081
            optimizer.zero_grad()
            logits = network(batch.contiguous(memory_format=memory_format))
            torch.nn.functional.cross_entropy(logits, truth[chosen]).backward()
            optimizer.step()

    return run


def seconds_per_step(runners: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Times every runner once a round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for counted in [False] + [True] * rounds:
        for name, run in runners.items():
            start = time.perf_counter()
            run()
            if counted:
                seconds[name].append((time.perf_counter() - start) / STEPS)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (NUM_IMAGES, 28, 28), dtype=np.uint8)
    labels = random.integers(0, 10, NUM_IMAGES, dtype=np.uint8)
    runners = {
        OURS: make_ours(images, labels),
        "PyTorch, default": make_torch(images, labels, torch.contiguous_format),
        "PyTorch, channels_last": make_torch(images, labels, torch.channels_last),
    }
    seconds = seconds_per_step(runners, options.rounds)
    print(f"| {options.rounds} rounds | images/s | {OURS} is faster by a factor of |")
    print("| --- | --- | --- |")
    for name, values in seconds.items():
        speed = BATCH_SIZE / statistics.median(values)
        ratios = [value / ours for value, ours in zip(values, seconds[OURS], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {name} | {speed:,.0f} | {spread if name != OURS else ''} |")
    machine = f"{environment.cpu_name()}, {torch.get_num_threads()} threads"
    print(f"\n{machine}; jax {jax.__version__}, torch {torch.__version__}, {jnp.float32.__name__}")
    if options.json:
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        record = {"machine": machine, "versions": versions | environment.versions()}
        options.json.write_text(json.dumps(record | {"seconds_per_step": seconds}, indent=2))


if __name__ == "__main__":
    main()
