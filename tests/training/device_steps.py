"""Takes 50 steps on a mesh; a program for tests/training/test_devices.py.

python tests/training/device_steps.py MODEL_ID NUM_DEVICES... : a line of JSON for each, with the
difference of the weights from those on the first mesh, as a share of the way they have gone.
"""

import json
import sys

import jax
import numpy as np
from flax import nnx

from mnist_jax import models
from mnist_jax.data import Split
from mnist_jax.models.network import take_apart
from mnist_jax.models.predict import one_copy
from mnist_jax.training import losses
from mnist_jax.training.augment import Amounts, make_augment
from mnist_jax.training.devices import make_mesh, replicate
from mnist_jax.training.optimizers import make_optimizer
from mnist_jax.training.state import first_state
from mnist_jax.training.step import (
    StepSettings,
    make_streams,
    make_train_steps,
    no_progress,
    shuffled,
)

BATCH_SIZE, NUM_STEPS = 16, 50


def steps(model_id: str, num_devices: int) -> tuple[list, list, dict[str, float]]:
    """Returns the weights after the steps and before, and what the steps have added up to."""
    mesh = make_mesh(num_devices, BATCH_SIZE)
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, BATCH_SIZE * NUM_STEPS, dtype=np.uint8)
    images = random.integers(0, 60, (len(labels), 28, 28), dtype=np.uint8)
    images[np.arange(len(labels)), 2 * labels + 4] = 255  # a bright row for each class
    streams = make_streams(3)
    model = models.build(
        model_id,
        num_classes=10,
        image_mean=0.2,
        image_std=0.3,
        rngs=nnx.Rngs(params=streams.init, dropout=streams.dropout),
    )
    structure, params, model_state = take_apart(model)
    optimizer = make_optimizer("sgd", lambda _: 0.01, weight_decay=0.0, momentum=0.5)
    criterion = losses.find("nll" if structure.outputs == "logits" else "capsule_loss_v1")
    settings = StepSettings(
        batch_size=BATCH_SIZE,
        augment=make_augment(
            "shift_and_rotate", (28, 28, 1), Amounts(shift_px=2, rotation_degrees=10.0)
        ),
        reconstruction_weight=0.0005,
        ema_decay=0.9,
        mesh=mesh,
    )
    train_steps = make_train_steps(structure, optimizer, criterion, settings)
    state = first_state(params, model_state, optimizer, keeps_average=True)
    start = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    split = Split(*replicate((images, labels), mesh))
    order = replicate(shuffled(streams.shuffle, 1, len(labels)), mesh)
    state, progress = one_copy(
        train_steps(streams, state, no_progress(), split, order, 0, NUM_STEPS)
    )
    weights = [np.asarray(leaf) for leaf in jax.tree.leaves(state.weights)]
    return weights, start, {name: float(value) for name, value in progress._asdict().items()}


if __name__ == "__main__":
    first = None
    for num_devices in map(int, sys.argv[2:]):
        weights, start, progress = steps(sys.argv[1], num_devices)
        first = first or weights
        difference, way = (
            sum(float(((a - b) ** 2).sum()) for a, b in zip(weights, others, strict=True)) ** 0.5
            for others in (first, start)
        )
        line = {"devices": num_devices, "difference": difference / way, **progress}
        print(json.dumps(line), flush=True)
