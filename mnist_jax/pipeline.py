"""The stages in order: data, model, training, evaluation, export, verification, verdict, card."""

import json
import logging
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mnist_jax import data
from mnist_jax.card import capsule_pictures, capsule_plots, model_card
from mnist_jax.config import config_hash, formats_to_export
from mnist_jax.data import Dataset, Split
from mnist_jax.errors import UserError
from mnist_jax.export import onnx, safetensors, stablehlo
from mnist_jax.files import read_json, write_bytes, write_json
from mnist_jax.release import criteria as release
from mnist_jax.release import verify
from mnist_jax.run import compilation_cache, environment, paths
from mnist_jax.run import folder as run_folder
from mnist_jax.run import log as log_module
from mnist_jax.run.paths import EXPORTED
from mnist_jax.run.stopwatch import TRAINING, Phases
from mnist_jax.training import evaluate, losses, seeds
from mnist_jax.training import processes as distributed
from mnist_jax.training import state as state_module
from mnist_jax.training.devices import make_mesh
from mnist_jax.training.fit import Fitted
from mnist_jax.training.stage import Trained, build_model, load_trained, train_and_save

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
        join=lambda: distributed.join(
            config["coordinator"], config["num_processes"], config["process_id"]
        ),
    )
    with distributed.watched():
        if distributed.is_writer():
            return write_run(config, console, phases)
        return help_along(config, console, phases)


def write_run(config: Mapping[str, Any], console: Console, phases: Phases) -> int:
    """Runs every stage, in the run's folder; of several processes the first does."""
    run_dir = Path(config["output_dir"])
    with run_folder.claim(run_dir, config), log_module.to_file(run_dir / paths.LOG):
        LOGGER.info("run folder %s", run_dir)
        compilation_cache.use(os.environ)
        phases.end("imports")
        # ---- Data
        dataset, train, validation = read_data(config)
        phases.end("data")
        # ---- Model
        model = build_model(config, dataset)
        if not config["skip_export"]:
            if "onnx" not in formats_to_export(config):
                LOGGER.warning("without onnx among the formats this run cannot be released")
            LOGGER.info("checking that %s can be exported", config["model_id"])
            verify.check_parity_before_training(model)
        write_json(run_dir / paths.CONFIG, describe_run(config, dataset))
        phases.end("export check")
        # ---- Training
        fitted = train_and_save(config, dataset, model, train, validation, run_dir, console, phases)
        phases.end(TRAINING)
        status = 2  # of the other processes, should what follows raise
        try:
            # ---- Evaluation: the only use of the test split, after the epoch was chosen
            trained = load_trained(config, dataset, run_dir)
            test = data.read(dataset, "test", config["image_side"])
            scores = evaluate_and_save(config, dataset, trained, test, run_dir)
            if config["num_seeds"] > 1:
                measure_seeds(config, dataset, fitted, trained, test, run_dir)
            phases.end("evaluation")
            # ---- Export, verification, verdict, card
            is_released = deliver(config, trained, test, scores, run_dir, console, phases)
            run_folder.finish(run_dir)
            LOGGER.info("time: %s", phases)
            status = 0 if is_released else 1
        finally:
            distributed.share(status)
        return status


def help_along(config: Mapping[str, Any], console: Console, phases: Phases) -> int:
    """Trains with the first process, which writes, and waits for its verdict."""
    console.quiet = True  # the first process says it all; errors go another way
    compilation_cache.use(os.environ)
    dataset, train, validation = read_data(config)
    model = build_model(config, dataset)
    nowhere = Path(config["output_dir"])  # nothing is written there
    train_and_save(config, dataset, model, train, validation, nowhere, console, phases)
    return distributed.share(None)


def read_data(config: Mapping[str, Any]) -> tuple[Dataset, Split, Split]:
    """Returns the data set with its train and validation splits, prepared if need be.

    Raises:
        UserError: the data is at fault, or a batch does not suit it or the devices.
    """
    make_mesh(config["mesh"], config["batch_size"])
    dataset = prepare_data(config)
    train, validation = (
        data.read(dataset, split, config["image_side"]) for split in ("train", "validation")
    )
    check_batch_size(config["batch_size"], len(train.labels))
    return dataset, train, validation


def prepare_data(config: Mapping[str, Any]) -> Dataset:
    """Makes sure that the configured data set lies prepared on disk."""
    manual_dir = Path(config["manual_dir"]) if config["manual_dir"] else None
    return data.prepare(config["dataset_id"], Path(config["data_dir"]), manual_dir)


def check_batch_size(batch_size: int, num_train: int) -> None:
    """Refuses a batch that an epoch cannot fill.

    Raises:
        UserError: `batch_size` is above `num_train`.
    """
    if batch_size > num_train:
        raise UserError(
            f"batch_size is {batch_size}, but the train split has {num_train} images; give a "
            "--batch-size of at most that"
        )


def describe_run(config: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """Returns what `config.json` records: everything that the run stands on."""
    return {
        "config": {key: run_folder.jsonable(config[key]) for key in config},
        "config_hash": config_hash(config),
        "dataset": {key: value for key, value in dataset._asdict().items() if key != "folder"},
        "environment": environment.describe(),
    }


def evaluate_and_save(
    config: Mapping[str, Any], dataset: Dataset, trained: Trained, test: Split, run_dir: Path
) -> Any:
    """Measures the released weights on the test split; returns the scores, `[n, classes]`."""
    predict = evaluate.make_predict(trained.graphdef, losses.CRITERIA[config["criterion_id"]])
    scores, example_losses = predict(trained.params, trained.model_state, test.images, test.labels)
    history = read_json(run_dir / paths.HISTORY)
    best = history["epochs"][history["best_epoch"] - 1]
    metrics = {
        "model_id": config["model_id"],
        "dataset_id": config["dataset_id"],
        "criterion_id": config["criterion_id"],
        "split": "test",
        **evaluate.measure(scores, example_losses, test.labels, dataset.class_names),
        "num_parameters": num_exported_parameters(trained.params),
        "validation": {
            "epoch": best["epoch"],
            "accuracy": best["validation_accuracy"],
            "loss": best["validation_loss"],
            "num_examples": dataset.num_validation,
        },
    }
    write_json(run_dir / paths.METRICS, metrics)
    LOGGER.info("test accuracy %.4f (%d images)", metrics["accuracy"], metrics["num_examples"])
    return scores


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
        fitted,
        seeds.groups(config),
        evaluate.make_predict(trained.graphdef, losses.CRITERIA[config["criterion_id"]]),
        dataset.num_validation,
        test,
    )
    write_json(run_dir / paths.SEEDS, measured)
    for line in seeds.show(measured):
        LOGGER.info(line)


def num_exported_parameters(params: Mapping[str, Any]) -> int:
    """Counts the trainable numbers without a decoder, which is not exported."""
    return state_module.num_parameters({k: v for k, v in params.items() if k != "decoder"})


def deliver(
    config: Mapping[str, Any],
    trained: Trained,
    test: Split,
    scores: np.ndarray,
    run_dir: Path,
    console: Console,
    phases: Phases,
) -> bool:
    """Exports, verifies, judges and documents; returns whether the model is released.

    Args:
        config: the run's configuration, a recipe's keys.
        trained: the weights of the checkpoint on disk.
        test: the test split.
        scores: what JAX makes of it, `[n, classes]`.
        run_dir: the run's folder, with the JSON files of the stages before.
        console: where the table goes.
        phases: the stopwatch.
    """
    run = run_folder.read_config(run_dir)
    # A run of an earlier version knows nothing of newer keys; they have what it did.
    run["config"] = {key: run_folder.jsonable(config[key]) for key in config} | run["config"]
    metrics, history = (read_json(run_dir / name) for name in (paths.METRICS, paths.HISTORY))
    verification = None
    if not config["skip_export"]:
        # Those that an earlier export has left ship along, so they are made anew and judged too.
        wanted = formats_to_export(config)
        formats = [
            name for name in EXPORTED if name in wanted or (run_dir / EXPORTED[name]).exists()
        ]
        present = [name for name in formats if name != "orbax"]
        write_exports(present, trained, run, run_dir)
        phases.end("export")
        LOGGER.info("verifying %s on %d test images", ", ".join(present), len(test.labels))
        verification = verify.verify_files(
            run_dir, present, *test, scores, *trained, export_metadata(run)
        )
        write_json(run_dir / paths.VERIFICATION, verification)
        phases.end("verification")
    seconds = sum(row["seconds"] for row in history["epochs"])
    training = {
        "best_epoch": history["best_epoch"],
        "num_epochs": len(history["epochs"]),
        "seconds": seconds,
        "images_per_s": statistics.median(row["images_per_s"] for row in history["epochs"]),
    }
    verdict = release.judge(config, run, metrics, training, verification)
    if config["num_seeds"] > 1:
        verdict["seeds"] = read_json(run_dir / paths.SEEDS)
    if not config["skip_visualizations"]:
        from mnist_jax.card import plots

        plots.draw(verdict, history, run_dir / "model_card" / "plots")
        model = state_module.rebuild(*trained)
        if hasattr(model, "reconstruct"):
            capsule_pictures.record(model, *test, scores, run_dir)
            capsule_plots.draw(run_dir, metrics["class_names"])
    write_json(run_dir / paths.RELEASE, verdict)
    model_card.write(run_dir)
    phases.end("card")
    console.print(release.table(verdict))
    LOGGER.info("%s: %s", verdict["verdict"], run_dir)
    return verdict["verdict"] == "released"


def write_exports(
    formats: Sequence[str], trained: Trained, run: Mapping[str, Any], run_dir: Path
) -> None:
    """Writes the model in each format but orbax, the checkpoint, which is there already.

    The same weights give the same bytes.
    """
    versions = json.dumps(environment.versions(), sort_keys=True)
    metadata = export_metadata(run) | {"versions": versions}
    model = state_module.rebuild(*trained)
    writers = {
        "onnx": lambda: onnx.to_bytes(model, metadata),
        "safetensors": lambda: safetensors.to_bytes(trained.params, trained.model_state, metadata),
        "stablehlo": lambda: stablehlo.to_bytes(model),
    }
    for name in formats:
        write_bytes(run_dir / EXPORTED[name], writers[name]())


def export_metadata(run: Mapping[str, Any]) -> dict[str, str]:
    """Returns what an exported file says of the run it comes from, whatever made the file."""
    dataset = run["dataset"]
    return {
        "model_id": run["config"]["model_id"],
        "dataset_id": dataset["dataset_id"],
        "class_names": json.dumps(dataset["class_names"]),
        "config_hash": run["config_hash"],
        "data_hash": dataset["data_hash"],
    }
