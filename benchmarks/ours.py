"""This project's training and evaluation, as the pipeline puts them together, on random images."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mnist_jax import config as config_module
from mnist_jax.data import Dataset, Split
from mnist_jax.models.network import take_apart
from mnist_jax.models.predict import Predictor
from mnist_jax.training import losses
from mnist_jax.training.evaluate import make_score
from mnist_jax.training.stage import Splits, Stage, build_model
from mnist_jax.training.state import first_state
from mnist_jax.training.step import make_streams, no_progress, shuffled

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
    image_side=28,
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
    """A network in training; `epoch` trains it, `score` measures it."""

    def __init__(self, config: Mapping[str, Any], images: np.ndarray, labels: np.ndarray) -> None:
        structure, params, model_state = take_apart(build_model(config, DATASET))
        self.predictor = Predictor(structure)
        split = Split(images, labels)
        self.stage = Stage(config, DATASET, Splits(split, split), self.predictor)
        self.streams = make_streams(config["seed"])
        self.state = first_state(
            params, model_state, self.stage.optimizer, keeps_average=config["ema_decay"] > 0
        )

    def epoch(self, number: int = 1, num_batches: int | None = None) -> None:
        """Takes an epoch's steps, or the first few of them, and waits for them."""
        stage = self.stage
        order = shuffled(self.streams.shuffle, number, len(stage.train.labels))
        count = num_batches or stage.num_batches
        self.state, progress = stage.train_steps(
            self.streams, self.state, no_progress(), stage.train, order, 0, count
        )
        jax.block_until_ready(progress)

    def make_score(self) -> Callable[[Split], tuple[np.ndarray, np.ndarray]]:
        """Returns this project's evaluation with the weights as they are now."""
        criterion = losses.find(self.stage.config["criterion_id"])
        score = make_score(self.predictor, criterion)
        return lambda split: score(self.state.weights, self.state.model_state, split)
