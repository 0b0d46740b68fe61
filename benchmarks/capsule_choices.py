"""Trains `mnist_capsule_v1` for a few steps with each choice that its recipe leaves open.

    .venv/bin/python -m benchmarks.capsule_choices docs/capsule_choices.json --seeds 3

Where the paper and its authors' code differ, a recipe can follow either; here one choice at a time
departs from the default. All train on the same slice of MNIST for the same number of steps, and are
compared on validation images, after each epoch. The file is continued where it was left: a run that
is in it is not made again. What so few steps show is how fast learning begins, not where it ends.
"""

import argparse
from pathlib import Path
from typing import Any

from mnist_jax import data
from mnist_jax.config import default
from mnist_jax.data import Dataset, Split
from mnist_jax.files import read_json, write_json
from mnist_jax.models.network import take_apart
from mnist_jax.models.predict import Predictor
from mnist_jax.run import environment
from mnist_jax.training.stage import Splits, Stage, build_model
from mnist_jax.training.state import first_state
from mnist_jax.training.step import make_streams, no_progress, shuffled

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
    config |= {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "augment_shift_px": 2}
    config |= {"schedule_id": "constant"}
    splits = Splits(
        Split(*(part[:NUM_TRAIN] for part in data.read(dataset, "train"))),
        Split(*(part[:NUM_VALIDATION] for part in data.read(dataset, "validation"))),
    )
    structure, params, model_state = take_apart(build_model(config, dataset))
    predictor = Predictor(structure)
    stage, streams = Stage(config, dataset, splits, predictor), make_streams(seed)
    state = first_state(params, model_state, stage.optimizer)
    wrong, mean_losses = [], []
    for epoch in range(1, EPOCHS + 1):
        order = shuffled(streams.shuffle, epoch, NUM_TRAIN)
        state, seen = stage.train_steps(
            streams, state, no_progress(), stage.train, order, 0, stage.num_batches
        )
        scores = predictor.scores(state.weights, state.model_state, splits.validation.images)
        wrong.append(int((scores.argmax(axis=1) != splits.validation.labels).sum()))
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
