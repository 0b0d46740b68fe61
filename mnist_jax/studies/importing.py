"""A run of weights that were trained elsewhere: put into a network, proven and documented."""

import argparse
import inspect
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax import nnx
from rich.console import Console

from mnist_jax import command, data, models, pipeline
from mnist_jax.config import default
from mnist_jax.data import Dataset
from mnist_jax.errors import UserError
from mnist_jax.export import weight_files
from mnist_jax.files import read_json, sha256, write_json
from mnist_jax.models import foreign
from mnist_jax.models.network import output_kind, take_apart
from mnist_jax.release import inputs, verify
from mnist_jax.release.records import Imported
from mnist_jax.run import compilation_cache, environment, log, paths
from mnist_jax.run import folder as run_folder
from mnist_jax.run.stopwatch import Phases
from mnist_jax.training import checkpoint
from mnist_jax.training.stage import load_trained

LOGGER = logging.getLogger("mnist_jax")


def run(
    config: Mapping[str, Any], options: argparse.Namespace, console: Console, phases: Phases
) -> int:
    """Takes a file of weights to its verdict, in a run's folder; returns the exit status."""
    network, usual = models.find(config["model_id"]), default()["criterion_id"]
    if output_kind(network) == "capsules" and config["criterion_id"] == usual:
        config = {**config, "criterion_id": "capsule_loss_v1"}
    weights = weight_files.read(options.weights)
    check_input(config["model_id"], weights.origin, options)
    mapping = None
    if options.mapping is not None:
        mapping = read_json(Path(command.expand(str(options.mapping))))
        if not isinstance(mapping, dict):
            raise UserError(f"{options.mapping} is not a JSON object; map our names to the file's")
    environment.start_jax(os.environ)
    run_dir = Path(config["output_dir"])
    with run_folder.claim(run_dir, config), log.to_file(run_dir / paths.LOG):
        LOGGER.info("run folder %s", run_dir)
        compilation_cache.use(os.environ)
        dataset, _ = inputs.of_config(config)
        phases.end("data")
        placed = put(config, dataset, weights, options, mapping)
        imported = Imported(
            file=options.weights.name,
            sha256=sha256(options.weights),
            source=options.source,
            licence=options.licence,
            input={
                "divisor": options.input_divisor,
                "mean": options.input_mean,
                "std": options.input_std,
            },
            tensors=placed.names,
            has_decoder=placed.has_decoder,
        )
        described = pipeline.describe_run(config, dataset) | {"imported": imported}
        write_json(run_dir / paths.CONFIG, described)
        (run_dir / paths.TRAINING).mkdir(parents=True, exist_ok=True)  # until it is finished
        checkpoint.save_released(run_dir, placed.params, placed.model_state)
        trained = load_trained(config, dataset, run_dir)
        test = data.read(dataset, "test")
        subject = pipeline.measure_test(config, dataset, trained, test, run_dir)
        phases.end("evaluation")
        is_released = pipeline.deliver(config, subject, run_dir, console, phases)
        run_folder.finish(run_dir)
        return 0 if is_released else 1


def check_input(model_id: str, origin: str, options: argparse.Namespace) -> None:
    """Makes sure that what the network was fed with is known.

    Raises:
        UserError: it is not, or is said of a network that takes images as they are.
    """
    given = {"mean": options.input_mean, "std": options.input_std}
    normalises = "image_mean" in inspect.signature(models.find(model_id).__init__).parameters
    if origin == "ours":
        if options.input_divisor is not None or any(one is not None for one in given.values()):
            raise UserError("the file says itself how images are normalised; leave --input-... out")
        return
    for name, value in given.items():
        if normalises and value is None:
            raise UserError(
                f"{model_id} normalises its images; give --input-{name}, as in training"
            )
        if not normalises and value is not None:
            raise UserError(f"{model_id} does not normalise; leave --input-{name} out")
    if normalises and not (options.input_std > 0 and abs(options.input_mean) < 1e6):
        raise UserError(
            f"input-mean is {options.input_mean}, input-std {options.input_std}; give a mean and a "
            "deviation above 0 of pixels 0 to 1"
        )
    if not normalises and options.input_divisor is None:
        raise UserError("give --input-divisor 255 or 256: what pixels 0 to 255 were divided by")


def put(
    config: Mapping[str, Any],
    dataset: Dataset,
    weights: weight_files.Weights,
    options: argparse.Namespace,
    mapping: Mapping[str, Any] | None,
) -> foreign.Placed:
    """Builds the network and puts the weights into it, for images 0 to 1.

    Raises:
        UserError: an array is left over, is missing or does not fit.
    """
    scale = 1.0 if options.input_divisor is None else 255 / options.input_divisor
    normalises = options.input_mean is not None
    facts = (
        {"image_mean": options.input_mean / scale, "image_std": options.input_std / scale}
        if normalises
        else {}
    )
    model = models.build(
        config["model_id"],
        num_classes=len(dataset.class_names),
        image_side=dataset.image_side,
        num_channels=dataset.num_channels,
        settings=config["network"],
        rngs=nnx.Rngs(config["seed"]),
        **facts,
    )
    shape = (dataset.image_side, dataset.image_side, dataset.num_channels)
    models.check(model, config["model_id"], num_classes=len(dataset.class_names), image_shape=shape)
    if not config["skip_export"]:
        verify.check_parity_before_training(model, shape)
    _, params, model_state = take_apart(model)
    placed = foreign.place(
        weights.arrays,
        params,
        model_state,
        origin=weights.origin,
        model_id=config["model_id"],
        is_ordered=weights.is_ordered,
        mapping=mapping,
    )
    LOGGER.info("weights: %s", json.dumps(placed.names))
    if normalises:
        return placed
    params, model_state = foreign.absorb_scale(
        config["model_id"], placed.params, placed.model_state, scale
    )
    return placed._replace(params=params, model_state=model_state)
