"""The stages in order: data, model, training, evaluation, export, verification, verdict, card."""

import logging
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mnist_jax import data, models
from mnist_jax.card import document
from mnist_jax.config import config_hash, formats_to_export
from mnist_jax.data import Dataset, Split
from mnist_jax.files import read_json, write_json
from mnist_jax.models.predict import Trained
from mnist_jax.release import inputs, seeds, shown, verify
from mnist_jax.release import prove as proof
from mnist_jax.release.records import Criteria, Release, Run, read_history
from mnist_jax.run import compilation_cache, environment, log, own_code, paths
from mnist_jax.run import folder as run_folder
from mnist_jax.run.paths import EXPORTED
from mnist_jax.run.stopwatch import TRAINING, Phases
from mnist_jax.training import evaluate, losses, processes
from mnist_jax.training.fit import Fitted
from mnist_jax.training.stage import build_model, load_trained, splits_of, train_and_save

LOGGER = logging.getLogger("mnist_jax")


def run(config: Mapping[str, Any], console: Console, phases: Phases) -> int:
    """Takes one configuration to its verdict; returns 0 where the model is released, else 1.

    Args:
        config: a recipe's keys.
        console: where tables and the progress bar go.
        phases: the stopwatch, started when the program was.

    Raises:
        UserError: the data, the folder or the configuration is at fault.
        StoppedError: another process of the run was lost.
    """
    environment.start_jax(
        os.environ,
        join=lambda: processes.join(
            config["coordinator"], config["num_processes"], config["process_id"]
        ),
    )
    with processes.watched():
        if processes.is_writer():
            return write_run(config, console, phases)
        return help_along(config, console, phases)


def write_run(config: Mapping[str, Any], console: Console, phases: Phases) -> int:
    """Runs every stage, in the run's folder; of several processes the first does."""
    run_dir = Path(config["output_dir"])
    with run_folder.claim(run_dir, config), log.to_file(run_dir / paths.LOG):
        LOGGER.info("run folder %s", run_dir)
        compilation_cache.use(os.environ)
        phases.end("imports")
        # ---- Data
        dataset, report, train, validation = inputs.read_data(config, console)
        run_folder.check_same_data(run_dir, dataset.data_hash)
        if report is not None:
            LOGGER.info("%s: %s", dataset.title, dataset.source)
        splits = splits_of(config, dataset, train, validation)
        phases.end("data")
        # ---- Model
        model = build_model(config, dataset)
        image_shape = (dataset.image_side, dataset.image_side, dataset.num_channels)
        models.check(
            model,
            config["model_id"],
            num_classes=len(dataset.class_names),
            image_shape=image_shape,
        )
        if not config["skip_export"]:
            if "onnx" not in formats_to_export(config):
                LOGGER.warning("without onnx among the formats this run cannot be released")
            LOGGER.info("checking that %s can be exported", config["model_id"])
            verify.check_parity_before_training(model, image_shape)
        write_json(run_dir / paths.CONFIG, describe_run(config, dataset))
        if report is not None:  # after the file by which a killed run is known again
            write_json(run_dir / paths.DATA_REPORT, report)
        phases.end("export check")
        # ---- Training
        fitted, predictor = train_and_save(config, dataset, model, splits, run_dir, console, phases)
        phases.end(TRAINING)
        status = 2  # of the other processes, should what follows raise
        try:
            # ---- Evaluation: the only use of the test split, after the epoch was chosen
            trained = load_trained(config, dataset, run_dir, predictor)
            test = data.read(dataset, "test")
            subject = measure_test(config, dataset, trained, test, run_dir)
            if config["num_seeds"] > 1:
                measure_seeds(config, dataset, fitted, trained, test, run_dir)
            phases.end("evaluation")
            # ---- Export, verification, verdict, card
            is_released = deliver(config, subject, run_dir, console, phases)
            run_folder.finish(run_dir)
            LOGGER.info("time: %s", phases)
            status = 0 if is_released else 1
        finally:
            processes.share(status)
        return status


def help_along(config: Mapping[str, Any], console: Console, phases: Phases) -> int:
    """Trains with the first process, which writes, and waits for its verdict."""
    console.quiet = True  # the first process says it all; errors go another way
    compilation_cache.use(os.environ)
    dataset, _, train, validation = inputs.read_data(config, console)
    model = build_model(config, dataset)
    nowhere = Path(config["output_dir"])  # nothing is written there
    splits = splits_of(config, dataset, train, validation)
    train_and_save(config, dataset, model, splits, nowhere, console, phases)
    return processes.share(None)


def describe_run(config: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """Returns what `config.json` records: everything that the run stands on."""
    described = {
        "config": {key: run_folder.jsonable(config[key]) for key in config},
        "config_hash": config_hash(config),
        "dataset": {key: value for key, value in dataset._asdict().items() if key != "folder"},
        "environment": environment.describe(),
    }
    own = own_code.describe(config)
    return described | ({"own_code": own} if own else {})


def measure_test(
    config: Mapping[str, Any], dataset: Dataset, trained: Trained, test: Split, run_dir: Path
) -> proof.Subject:
    """Measures the released weights on the test split."""
    run = run_folder.read_config(run_dir)
    # A run of an earlier version knows nothing of newer keys; they have what it did.
    run["config"] = {key: run_folder.jsonable(config[key]) for key in config} | run["config"]
    facts: dict[str, Any] = {key: config[key] for key in ("model_id", "criterion_id")}
    facts |= {"run": Run(**run), "names": data.names(dataset, "test")}
    if "imported" in run:
        return proof.measure(trained, test, **facts, validation=None, training=None)
    history = read_history(run_dir)
    epochs = history["epochs"]
    best = epochs[history["best_epoch"] - 1]
    return proof.measure(
        trained,
        test,
        **facts,
        validation={
            "epoch": best["epoch"],
            "accuracy": best["validation_accuracy"],
            "loss": best["validation_loss"],
            "num_examples": dataset.num_validation,
        },
        training={
            "best_epoch": history["best_epoch"],
            "num_epochs": len(epochs),
            "seconds": sum(row["seconds"] for row in epochs),
            "images_per_s": statistics.median(row["images_per_s"] for row in epochs),
        },
    )


def deliver_again(
    config: Mapping[str, Any], dataset: Dataset, run_dir: Path, console: Console, phases: Phases
) -> bool:
    """Takes a finished run to its verdict and card again; returns whether it is released."""
    trained = load_trained(config, dataset, run_dir)
    subject = measure_test(config, dataset, trained, data.read(dataset, "test"), run_dir)
    return deliver(config, subject, run_dir, console, phases)


def measure_seeds(
    config: Mapping[str, Any],
    dataset: Dataset,
    fitted: Sequence[Fitted],
    trained: Trained,
    test: Split,
    run_dir: Path,
) -> None:
    """Writes what every seed reaches; nothing is chosen by it."""
    measured = seeds.measure(
        config["seed"],
        fitted,
        evaluate.make_score(trained.predictor, losses.find(config["criterion_id"])),
        dataset.num_validation,
        test,
    )
    write_json(run_dir / paths.SEEDS, measured)
    for line in seeds.show(measured, has_means=dataset.num_leaks is not None):
        LOGGER.info(line)


def deliver(
    config: Mapping[str, Any],
    subject: proof.Subject,
    run_dir: Path,
    console: Console,
    phases: Phases,
) -> bool:
    """Proves and documents what was trained; returns whether the model is released.

    Args:
        config: the run's configuration, a recipe's keys.
        subject: the weights of the checkpoint on disk, measured on the test split.
        run_dir: the run's folder, with the JSON files of the stages before.
        console: where the table goes.
        phases: the stopwatch.
    """
    formats = []
    if not config["skip_export"]:
        # What an earlier export has left ships along, so it is exported and judged again too.
        wanted = formats_to_export(config)
        formats = [
            name
            for name in EXPORTED
            if name != "orbax" and (name in wanted or (run_dir / EXPORTED[name]).exists())
        ]
    release = document.conclude(
        subject,
        run_dir,
        formats=formats,
        criteria=Criteria.of(config),
        phases=phases,
        history=None if subject.training is None else read_history(run_dir),
        seeds=read_json(run_dir / paths.SEEDS) if config["num_seeds"] > 1 else None,
        has_pictures=not config["skip_visualizations"],
    )
    console.print(shown.table(release))
    LOGGER.info("%s: %s", release["verdict"], run_dir)
    return release["verdict"] == "released"


def prove(
    model: Any,
    images: np.ndarray,
    labels: np.ndarray,
    run_dir: str | os.PathLike[str],
    *,
    criteria: Criteria | None = None,
    class_names: Sequence[str] | None = None,
) -> Release:
    """Proves a network that was trained anywhere, as the pipeline does after training.

    It is exported to ONNX, safetensors and StableHLO; the files are compared with the network over
    all images and timed; the criteria judge; the model card says what is known.

    Args:
        model: a `flax.nnx.Module`; takes float32 `[batch, side, side, channels]`, 0 to 1, and
            returns logits `[batch, classes]`, or what `models.network.Network` describes; it is
            left in evaluation mode.
        images: of a test split that had no part in training; uint8, 0 to 255, or floats, 0 to 1;
            `[n, side, side]` or `[n, side, side, channels]`.
        labels: `[n]` whole numbers, 0 to 255; every class needs an image at least.
        run_dir: made if it is not there; it may hold an earlier proof, which is replaced.
        criteria: what a release must reach; None: the defaults of `mnist_jax.Criteria`.
        class_names: by label; None: the numbers.

    Returns:
        `logs/release.json`: `verdict` is "released" or "refused", `reasons` says why.

    Raises:
        UserError: the network cannot be exported, or an argument is not what it must be.
    """
    run_dir = Path(run_dir)
    subject = proof.given(model, images, labels, class_names)
    with run_folder.lent(run_dir), log.to_file(run_dir / paths.LOG):
        return document.conclude(
            subject,
            run_dir,
            formats=[name for name in EXPORTED if name != "orbax"],
            criteria=criteria or Criteria(),
            phases=Phases(),
        )
