"""This project's training and evaluation, as the pipeline puts them together, on random images."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mnist_jax import config as config_module
from mnist_jax.data import Dataset
from mnist_jax.training import evaluate
from mnist_jax.training import state as state_module
from mnist_jax.training.augment import make_augment
from mnist_jax.training.losses import CRITERIA
from mnist_jax.training.optimizers import make_optimizer, make_schedule
from mnist_jax.training.stage import build_model, structure_in_training
from mnist_jax.training.step import make_streams, make_train_steps, no_progress, shuffled

MEAN, STD = 0.1307, 0.3081  # of MNIST's train split
DATASET = Dataset(
    dataset_id="random",
    title="Random images",
    source="",
    license="",
    citation="",
    class_names=tuple("0123456789"),
    folder=Path(),
    data_hash="",
    num_train=0,
    num_validation=0,
    num_test=0,
    image_mean=MEAN,
    image_std=STD,
)


def recipe(name: str = "", **changes: Any) -> dict[str, Any]:
    """Returns the keys of `configs/NAME.py`, or the defaults, with some of them changed."""
    if not name:
        return config_module.default().to_dict() | changes
    path = Path(__file__).parents[1] / "configs" / f"{name}.py"
    return config_module.load_recipe(path).to_dict() | changes


def random_data(num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images, uint8 `[n, 28, 28]`, and labels; times do not depend on what they show."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (num_images, 28, 28), dtype=np.uint8)
    return images, random.integers(0, 10, num_images, dtype=np.uint8)


class Training:
    """A network in training; `epochs` trains it, `accuracy` measures it."""

    def __init__(
        self,
        config: Mapping[str, Any],
        images: np.ndarray,
        labels: np.ndarray,
        num_seeds: int = 1,
    ) -> None:
        self.config, self.num_images = config, len(labels)
        self.num_batches = len(labels) // config["batch_size"]
        schedule = make_schedule(
            config["schedule_id"],
            config["learning_rate"],
            num_steps=config["epochs"] * self.num_batches,
            steps_per_epoch=self.num_batches,
            decay=config["learning_rate_decay"],
            floor=config["learning_rate_floor"],
        )
        optimizer = make_optimizer(
            config["optimizer_id"],
            schedule,
            weight_decay=config["weight_decay"],
            momentum=config["momentum"],
        )
        keeps_average = config["ema_decay"] > 0
        members = []
        for seed in range(config["seed"], config["seed"] + num_seeds):
            model = build_model({**config, "seed": seed}, DATASET)
            self.graphdef, params, model_state = state_module.take_apart(model)
            state = state_module.first_state(
                params, model_state, optimizer, keeps_average=keeps_average
            )
            members.append((state, make_streams(seed)))
        side_by_side = members[0] if num_seeds == 1 else state_module.stack(members)
        self.state, self.streams = side_by_side
        self.steps = make_train_steps(
            structure_in_training(config, DATASET),
            optimizer,
            CRITERIA[config["criterion_id"]],
            self.streams,
            batch_size=config["batch_size"],
            augment=make_augment(
                config["augment_id"],
                max_shift_px=config["augment_shift_px"],
                max_rotation_degrees=config["augment_rotation_degrees"],
            ),
            reconstruction_weight=config["reconstruction_weight"],
            ema_decay=config["ema_decay"],
        )
        self.data = jax.device_put((images, labels))

    def epoch(self, number: int = 1, num_batches: int | None = None) -> None:
        """Takes an epoch's steps, or the first few of them, and waits for them."""
        order = shuffled(self.streams.shuffle, number, self.num_images)
        count = num_batches or self.num_batches
        progress = no_progress(order.shape[:-1])
        self.state, progress = self.steps(self.state, progress, *self.data, order, 0, count)
        jax.block_until_ready(progress)

    def make_predict(self) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
        """Returns this project's evaluation with the weights as they are now."""
        predict = evaluate.make_predict(self.graphdef, CRITERIA[self.config["criterion_id"]])
        return lambda *split: predict(self.state.weights, self.state.model_state, *split)
