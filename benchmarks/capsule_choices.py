"""Trains `mnist_capsule_v1` for a few steps with each choice that its recipe leaves open.

    .venv/bin/python -m benchmarks.capsule_choices docs/capsule_choices.json --seeds 3

Where the paper and its authors' code differ, a recipe can follow either; here one choice at a time
departs from the default. All train on the same slice of MNIST for the same number of steps, and are
compared on validation images, after each epoch. The file is taken up where it was left: a run that
is in it is not made again. What so few steps show is how fast learning begins, not where it ends.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mnist_jax import data, pipeline
from mnist_jax.config import default
from mnist_jax.data import Dataset, Split
from mnist_jax.files import read_json, write_json
from mnist_jax.run import environment
from mnist_jax.training import evaluate, losses
from mnist_jax.training import state as state_module
from mnist_jax.training.augment import make_augment
from mnist_jax.training.optimizers import make_optimizer, make_schedule
from mnist_jax.training.step import make_streams, make_train_steps, no_progress, shuffled

CHOICES: dict[str, dict[str, Any]] = {
    "default": {},
    "primary factor 1, as in the paper": {"network": {"primary_factor": 1.0}},
    "reconstruction weight 0.01, as in the code": {"reconstruction_weight": 0.01},
    "no biases of class capsules, as in the paper": {"network": {"has_class_biases": False}},
    "gradient of the last iteration alone": {"network": {"stop_routing_gradient": True}},
    "1 routing iteration": {"network": {"routing_iterations": 1}},
}
NUM_TRAIN, NUM_VALIDATION, BATCH_SIZE, EPOCHS = 1_600, 1_000, 40, 4


def train(dataset: Dataset, changes: dict[str, Any], seed: int) -> dict[str, Any]:
    """Trains once; returns the number of wrong validation images and the mean loss by epoch."""
    config = default().to_dict() | changes
    config |= {"model_id": "mnist_capsule_v1", "criterion_id": "capsule_loss_v1", "seed": seed}
    num_batches = NUM_TRAIN // BATCH_SIZE
    schedule = make_schedule(
        *("constant", config["learning_rate"]),
        num_steps=EPOCHS * num_batches,
        steps_per_epoch=num_batches,
        decay=1.0,
        floor=0.0,
    )
    optimizer = make_optimizer("adam", schedule, weight_decay=0.0, momentum=0.0)
    graphdef, params, model_state = state_module.take_apart(pipeline.build_model(config, dataset))
    state = state_module.first_state(params, model_state, optimizer)
    streams = make_streams(seed)
    criterion = losses.CRITERIA[config["criterion_id"]]
    train_steps = make_train_steps(
        *(graphdef, optimizer, criterion, streams),
        batch_size=BATCH_SIZE,
        augment=make_augment("shift_and_rotate", max_shift_px=2, max_rotation_degrees=0.0),
        reconstruction_weight=config["reconstruction_weight"],
        ema_decay=0.0,
    )
    predict = evaluate.make_predict(graphdef, criterion)
    images, labels = Split(*(part[:NUM_TRAIN] for part in data.read(dataset, "train")))
    validation = Split(*(part[:NUM_VALIDATION] for part in data.read(dataset, "validation")))
    on_device = jax.device_put((images, labels))
    wrong, mean_losses = [], []
    for epoch in range(1, EPOCHS + 1):
        order = shuffled(streams.shuffle, epoch, NUM_TRAIN)
        state, seen = train_steps(state, no_progress(), *on_device, order, 0, num_batches)
        scores, _ = predict(state.weights, state.model_state, *validation)
        wrong.append(int((np.asarray(scores).argmax(axis=1) != validation.labels).sum()))
        mean_losses.append(float(seen.loss_sum) / int(seen.num_seen))
    return {"seed": seed, "num_wrong": wrong, "train_loss": mean_losses}


def main() -> None:
    """Makes the runs that the file lacks, seed by seed."""
    parser = argparse.ArgumentParser("benchmarks.capsule_choices", allow_abbrev=False)
    parser.add_argument("file", type=Path, help="where the figures are kept")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each choice")
    parser.add_argument("--max-runs", type=int, default=10_000, help="stop after so many")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--manual-dir", type=Path, default=None)
    options = parser.parse_args()
    dataset = data.prepare("mnist_v1", options.data_dir, options.manual_dir)
    figures = {
        "command": "python -m benchmarks.capsule_choices docs/capsule_choices.json",
        "num_train": NUM_TRAIN,
        "num_validation": NUM_VALIDATION,
        "num_steps": EPOCHS * (NUM_TRAIN // BATCH_SIZE),
        "batch_size": BATCH_SIZE,
        "environment": environment.describe(),
        "choices": [
            {"name": name, "changes": changes, "runs": []} for name, changes in CHOICES.items()
        ],
    }
    if options.file.exists():
        figures = read_json(options.file)
    missing = [
        (choice, seed)
        for seed in range(options.seeds)
        for choice in figures["choices"]
        if seed not in [run["seed"] for run in choice["runs"]]
    ]
    for choice, seed in missing[: options.max_runs]:
        choice["runs"].append(train(dataset, choice["changes"], seed))
        write_json(options.file, figures)
        print(f"seed {seed}, {choice['name']}: {choice['runs'][-1]['num_wrong']} wrong")


if __name__ == "__main__":
    main()
