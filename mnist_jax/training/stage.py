"""The training stage: from a configuration to weights on disk, for every seed of the run."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx
from rich.console import Console

from mnist_jax.data import Dataset, Split
from mnist_jax.files import write_json
from mnist_jax.models import MODELS
from mnist_jax.run import paths
from mnist_jax.run.stopwatch import Phases
from mnist_jax.training import checkpoint, evaluate, losses, seeds
from mnist_jax.training import devices as mesh_module
from mnist_jax.training import processes as distributed
from mnist_jax.training import state as state_module
from mnist_jax.training.augment import make_augment
from mnist_jax.training.fit import Fitted, fit
from mnist_jax.training.optimizers import make_optimizer, make_schedule
from mnist_jax.training.step import make_streams, make_train_steps

LOGGER = logging.getLogger("mnist_jax")


class Trained(NamedTuple):
    """A network with the weights that the checkpoint on disk holds."""

    graphdef: Any
    params: Any
    model_state: Any


def build_model(
    config: Mapping[str, Any], dataset: Dataset, compute_dtype: str = "float32"
) -> nnx.Module:
    """Builds the network with its first weights; they depend on the seed alone."""
    network = MODELS[config["model_id"]]
    losses.check_criterion(config["criterion_id"], config["model_id"], network.criteria)
    return network(
        num_classes=len(dataset.class_names),
        image_mean=dataset.image_mean,
        image_std=dataset.image_std,
        image_side=config["image_side"],
        **config["network"],
        rngs=nnx.Rngs(params=make_streams(config["seed"]).init),
        dtype=compute_dtype,
    )


def structure_in_training(config: Mapping[str, Any], dataset: Dataset) -> Any:
    """Returns the network's structure for training, which may compute in another precision."""
    return nnx.split(nnx.eval_shape(lambda: build_model(config, dataset, config["compute_dtype"])))[
        0
    ]


def train_and_save(
    config: Mapping[str, Any],
    dataset: Dataset,
    model: nnx.Module,
    train: Split,
    validation: Split,
    run_dir: Path,
    console: Console,
    phases: Phases,
) -> list[Fitted]:
    """Trains every seed; leaves the weights to release in the checkpoint, their history beside it.

    `model` is the network with the first weights of the first seed.

    Each group of seeds has its own folder of checkpoints until the run is finished, so that a run
    that was interrupted goes on with the seed, and the epoch, that it had come to. Of several
    processes the first writes; all get the same back.
    """
    fitted = []
    for group in seeds.groups(config):
        name = "" if config["num_seeds"] == 1 else seeds.describe(group)
        folder = run_dir / paths.TRAINING / name.replace(" ", "_")
        is_writer = distributed.is_writer()
        with checkpoint.TrainingCheckpoints(folder) if is_writer else nullcontext() as checkpoints:
            fitted += train_group(
                *(config, dataset, model, group, train, validation, checkpoints),
                tensorboard_dirs=[
                    run_dir / paths.TENSORBOARD / (f"seed_{seed}" if name else "")
                    for seed in group
                    if is_writer
                ],
                label=f"{name}: " if name else "",
                console=console,
                phases=phases,
            )
    if not distributed.is_writer():
        return fitted
    index = seeds.best_on_validation([one.history for one in fitted])
    released, epoch = fitted[index], fitted[index].history["best_epoch"]
    of_seed = f" of seed {config['seed'] + index}" if len(fitted) > 1 else ""
    LOGGER.info("keeping epoch %d%s, the best on validation", epoch, of_seed)
    checkpoint.save_released(run_dir, released.params, released.model_state)
    write_json(run_dir / paths.HISTORY, released.history)
    return fitted


def train_group(
    config: Mapping[str, Any],
    dataset: Dataset,
    model: nnx.Module,
    group: range,
    train: Split,
    validation: Split,
    checkpoints: checkpoint.TrainingCheckpoints | None,
    *,
    tensorboard_dirs: Sequence[Path],
    label: str,
    console: Console,
    phases: Phases,
) -> list[Fitted]:
    """Trains the seeds of a group side by side, or its only one; returns what became of each."""
    mesh = mesh_module.make_mesh(config["mesh"], config["batch_size"])
    num_batches = len(train.labels) // config["batch_size"]
    schedule = make_schedule(
        config["schedule_id"],
        config["learning_rate"],
        num_steps=config["epochs"] * num_batches,
        steps_per_epoch=num_batches,
        decay=config["learning_rate_decay"],
        floor=config["learning_rate_floor"],
    )
    optimizer = make_optimizer(
        config["optimizer_id"],
        schedule,
        weight_decay=config["weight_decay"],
        momentum=config["momentum"],
    )
    models = [
        model if seed == config["seed"] else build_model({**config, "seed": seed}, dataset)
        for seed in group
    ]
    parts = [state_module.take_apart(one) for one in models]
    graphdef, params, _ = parts[0]  # the structure is the same for all
    members = [
        (
            state_module.first_state(
                params, model_state, optimizer, keeps_average=config["ema_decay"] > 0
            ),
            make_streams(seed),
        )
        for seed, (_, params, model_state) in zip(group, parts, strict=True)
    ]
    state, streams = members[0] if len(group) == 1 else state_module.stack(members)
    augment = make_augment(
        config["augment_id"],
        max_shift_px=config["augment_shift_px"],
        max_rotation_degrees=config["augment_rotation_degrees"],
    )
    LOGGER.info(
        "%straining %s: %s parameters, epochs: %d, steps in each: %d, on %s%s",
        *(label, config["model_id"]),
        f"{state_module.num_parameters(params):,}",
        config["epochs"],
        num_batches,
        "" if mesh is None else f"{mesh.size} x ",
        jax.devices()[0].device_kind,
    )
    criterion = losses.CRITERIA[config["criterion_id"]]
    return fit(
        state,
        make_train_steps(
            structure_in_training(config, dataset),
            optimizer,
            criterion,
            streams,
            batch_size=config["batch_size"],
            augment=augment,
            reconstruction_weight=config["reconstruction_weight"],
            ema_decay=config["ema_decay"],
            mesh=mesh,
        ),
        evaluate.make_predict(graphdef, criterion),
        schedule,
        streams.shuffle,
        train,
        validation,
        epochs=config["epochs"],
        batch_size=config["batch_size"],
        checkpoints=checkpoints,
        tensorboard_dirs=tensorboard_dirs,
        label=label,
        console=console,
        phases=phases,
        mesh=mesh,
    )


def load_trained(config: Mapping[str, Any], dataset: Dataset, run_dir: Path) -> Trained:
    """Reads back what was saved: from here on everything stands on the checkpoint on disk."""
    graphdef, params, model_state = state_module.take_apart(build_model(config, dataset))
    return Trained(graphdef, *checkpoint.load_released(run_dir, params, model_state))
