"""The training stage: from a configuration to weights on disk, for every seed of the run."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float
from rich.console import Console

from mnist_jax import models
from mnist_jax.data import Dataset, Split
from mnist_jax.files import write_json
from mnist_jax.models.network import num_parameters, output_kind, take_apart
from mnist_jax.models.predict import Predictor, Trained
from mnist_jax.run import paths
from mnist_jax.run.stopwatch import Phases
from mnist_jax.training import (
    checkpoint,
    losses,
    optimizers,
    pictures,
    processes,
    seeds,
    signals,
)
from mnist_jax.training.augment import Amounts, make_augment
from mnist_jax.training.class_weights import of_classes
from mnist_jax.training.devices import make_mesh, replicate
from mnist_jax.training.evaluate import make_score, summarise
from mnist_jax.training.fit import Fitted, Functions, Outputs, fit
from mnist_jax.training.reached import Weights
from mnist_jax.training.reporter import Reporter
from mnist_jax.training.state import first_state
from mnist_jax.training.step import StepSettings, make_streams, make_train_steps, shuffled

LOGGER = logging.getLogger("mnist_jax")


class Splits(NamedTuple):
    """What a training may look at."""

    train: Split
    validation: Split
    class_weights: Float[np.ndarray, " classes"] | None = None  # None: all images count alike


def splits_of(
    config: Mapping[str, Any], dataset: Dataset, train: Split, validation: Split
) -> Splits:
    """Returns the splits, with the weights of the classes that the configuration asks for.

    Raises:
        UserError: the weights are not those of the classes.
    """
    weights = of_classes(config["class_weights"], train.labels, dataset.class_names)
    return Splits(train, validation, weights)


def build_model(
    config: Mapping[str, Any], dataset: Dataset, compute_dtype: str = "float32"
) -> nnx.Module:
    """Builds the network with its first weights; they depend on the seed alone.

    Raises:
        UserError: the network cannot be built, or the loss does not suit it.
    """
    network = models.find(config["model_id"])
    num_classes = len(dataset.class_names)
    losses.check_fit(config["criterion_id"], config["model_id"], output_kind(network), num_classes)
    streams = make_streams(config["seed"])
    return models.build(
        config["model_id"],
        num_classes=num_classes,
        image_side=dataset.image_side,
        num_channels=dataset.num_channels,
        image_mean=dataset.image_mean,
        image_std=dataset.image_std,
        settings=config["network"],
        rngs=nnx.Rngs(params=streams.init, dropout=streams.dropout),
        dtype=compute_dtype,
    )


class Stage:
    """What the trainings of a run share: everything but the seed."""

    def __init__(
        self, config: Mapping[str, Any], dataset: Dataset, splits: Splits, predictor: Predictor
    ) -> None:
        """Builds what they share; `predictor` is of the network in float32."""
        self.config, self.dataset = config, dataset
        mesh = make_mesh(config["mesh"], config["batch_size"])
        self.mesh = mesh
        self.train = Split(*replicate(tuple(splits.train), mesh))
        self.num_batches = len(splits.train.labels) // config["batch_size"]
        self.schedule, self.optimizer = optimizers.of_config(config, self.num_batches)
        criterion = losses.find(config["criterion_id"])
        settings = StepSettings(
            batch_size=config["batch_size"],
            augment=make_augment(
                config["augment_id"],
                (dataset.image_side, dataset.image_side, dataset.num_channels),
                Amounts.of(config),
            ),
            reconstruction_weight=config["reconstruction_weight"],
            ema_decay=config["ema_decay"],
            class_weights=splits.class_weights,
            mesh=mesh,
        )
        structure = predictor.structure
        if config["compute_dtype"] != "float32":
            structure, _, _ = take_apart(build_model(config, dataset, config["compute_dtype"]))
        self.train_steps = make_train_steps(structure, self.optimizer, criterion, settings)
        score = make_score(predictor, criterion)
        validation = Split(*jax.device_put(tuple(splits.validation)))

        def validate(weights: Weights, reporter: Reporter) -> tuple[float, float]:
            scores, example_losses = score(*weights, validation)
            reporter.answered(
                lambda: pictures.draw(splits.validation, scores.argmax(axis=1), dataset.class_names)
            )
            measured = summarise(scores, example_losses, splits.validation.labels)
            return measured["accuracy"], measured["loss"]

        self.validate = validate

    def fit_seed(self, seed: int, model: nnx.Module, outputs: Outputs) -> Fitted:
        """Trains one seed from the first weights of `model`."""
        _, params, model_state = take_apart(model)
        streams = make_streams(seed)
        num_images = len(self.train.labels)
        functions = Functions(
            train_steps=lambda *arguments: self.train_steps(streams, *arguments),
            order=lambda epoch: replicate(shuffled(streams.shuffle, epoch, num_images), self.mesh),
            validate=lambda weights: self.validate(weights, outputs.reporter),
            schedule=self.schedule,
        )
        keeps_average = self.config["ema_decay"] > 0
        return fit(
            first_state(params, model_state, self.optimizer, keeps_average=keeps_average),
            self.train,
            functions,
            outputs,
            epochs=self.config["epochs"],
            batch_size=self.config["batch_size"],
            patience=self.config["patience"],
        )


def train_and_save(
    config: Mapping[str, Any],
    dataset: Dataset,
    model: nnx.Module,
    splits: Splits,
    run_dir: Path,
    console: Console,
    phases: Phases,
) -> tuple[list[Fitted], Predictor]:
    """Trains every seed; leaves the weights to release in the checkpoint, their history beside it.

    `model` is the network with the first weights of the first seed. Each seed has its own folder of
    checkpoints until the run is finished, so that an interrupted run resumes with the seed, and the
    step, that it had come to. Of several processes the first writes; all get the same back.
    """
    structure, params, _ = take_apart(model)
    predictor = Predictor(structure)
    stage = Stage(config, dataset, splits, predictor)
    LOGGER.info(
        "training %s: %s parameters, %s of %d steps, on %s%s",
        config["model_id"],
        f"{num_parameters(params):,}",
        "1 epoch" if config["epochs"] == 1 else f"{config['epochs']} epochs",
        stage.num_batches,
        "" if stage.mesh is None else f"{stage.mesh.size} x ",
        jax.devices()[0].device_kind,
    )
    fitted = []
    is_writer, is_one = processes.is_writer(), config["num_seeds"] == 1
    for seed in seeds.of_run(config):
        name = "" if is_one else f"seed_{seed}"
        if seed != config["seed"]:
            model = build_model({**config, "seed": seed}, dataset)
        with ExitStack() as stack:
            checkpoints = tensorboard = None
            if is_writer:
                folder = run_dir / paths.TRAINING / name
                checkpoints = stack.enter_context(checkpoint.TrainingCheckpoints(folder))
                if config["tensorboard"]:
                    tensorboard = run_dir / paths.TENSORBOARD / name
            label = "" if is_one else f"seed {seed}: "
            reporter = Reporter(console, phases, label=label, tensorboard=tensorboard)
            # Of several processes none stops by itself: the others would wait for its next step.
            stop = stack.enter_context(signals.deferred(is_wanted=jax.process_count() == 1))
            outputs = Outputs(checkpoints, stack.enter_context(reporter), stop)
            fitted.append(stage.fit_seed(seed, model, outputs))
    if is_writer:
        _save_best(config, fitted, run_dir)
    return fitted, predictor


def _save_best(config: Mapping[str, Any], fitted: list[Fitted], run_dir: Path) -> None:
    """Leaves the weights of the best seed and epoch, with their history, in the run's folder."""
    index = seeds.best_on_validation([one.history for one in fitted])
    released = fitted[index]
    of_seed = f" of seed {config['seed'] + index}" if len(fitted) > 1 else ""
    LOGGER.info(
        "keeping epoch %d%s, the best on validation", released.history["best_epoch"], of_seed
    )
    checkpoint.save_released(run_dir, *released.best)
    write_json(run_dir / paths.HISTORY, released.history)


def load_trained(
    config: Mapping[str, Any], dataset: Dataset, run_dir: Path, predictor: Predictor | None = None
) -> Trained:
    """Reads back what was saved: from here on everything stands on the checkpoint on disk."""
    structure, params, model_state = take_apart(build_model(config, dataset))
    weights = checkpoint.load_released(run_dir, params, model_state)
    return Trained(predictor or Predictor(structure), *weights)
