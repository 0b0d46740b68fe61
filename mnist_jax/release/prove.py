"""From a trained network to a verdict: exports, verifies, times and judges."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx
from jaxtyping import Float

from mnist_jax import models
from mnist_jax.data import DATASET_IDS, Split
from mnist_jax.errors import UserError, printable
from mnist_jax.export import onnx, safetensors, stablehlo
from mnist_jax.files import sha256, write_bytes
from mnist_jax.models.network import num_exported_parameters, take_apart
from mnist_jax.models.predict import Predictor, Trained
from mnist_jax.release import each_class, records, shown, verify
from mnist_jax.release.criteria import judge
from mnist_jax.release.records import Criteria, Metrics, Release, Run, Training, Validation
from mnist_jax.run import environment, own_code
from mnist_jax.run.paths import EXPORTED
from mnist_jax.run.stopwatch import Phases
from mnist_jax.training import evaluate, losses

LOGGER = logging.getLogger("mnist_jax")
OWN_IMAGES = "own_images"  # the data set's id where a network was not trained here


class Subject(NamedTuple):
    """A trained network on the images that it is tested with, and what is known of it."""

    trained: Trained
    test: Split  # images uint8, or float32 0 to 1 with an axis of channels
    scores: Float[np.ndarray, "n classes"]
    metrics: Metrics
    run: Run
    training: Training | None = None  # None where it was not trained here
    names: Sequence[str] | None = None  # of the test pictures; None: they have none

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        height, width, *channels = self.test.images.shape[1:]
        return height, width, channels[0] if channels else 1


def measure(
    trained: Trained,
    test: Split,
    *,
    run: Run,
    model_id: str,
    criterion_id: str,
    validation: Validation | None,
    training: Training | None,
    names: Sequence[str] | None = None,
) -> Subject:
    """Measures a network on the test split.

    Args:
        trained: the weights to release.
        test: the test split.
        run: what the network stands on.
        model_id: its id, or its reference.
        criterion_id: the loss to measure.
        validation: what the validation split said of the weights.
        training: how they were trained.
        names: of the test pictures.
    """
    dataset = run["dataset"]
    score = evaluate.make_score(trained.predictor, losses.find(criterion_id))
    scores, example_losses = score(trained.params, trained.model_state, test)
    class_names = tuple(dataset["class_names"])
    metrics = Metrics(
        model_id=own_code.short_name(model_id),
        dataset_id=dataset["dataset_id"],
        criterion_id=own_code.short_name(criterion_id),
        outputs=trained.predictor.structure.outputs,
        split="test",
        **evaluate.measure(scores, example_losses, test.labels, class_names),
        **each_class.measure(scores, test.labels),
        num_parameters=num_exported_parameters(trained.params),
        validation=validation,
    )
    LOGGER.info("test accuracy %.4f (%d images)", metrics["accuracy"], metrics["num_examples"])
    if metrics["dataset_id"] not in DATASET_IDS:
        LOGGER.info("%s", printable(shown.each_class(metrics)))
    subject = Subject(trained, test, scores, metrics, run, training, names)
    metrics["image_shape"] = list(subject.image_shape)
    return subject


def given(
    model: Any, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str] | None
) -> Subject:
    """Measures a network that was trained elsewhere; see `mnist_jax.prove`.

    Raises:
        UserError: the network, the images or the labels are not what they must be.
    """
    if not isinstance(model, nnx.Module):
        raise UserError(f"model is a {type(model).__name__}; give a flax.nnx.Module")
    test = _checked(np.asarray(images), np.asarray(labels))
    if class_names is None:
        class_names = [str(index) for index in range(int(test.labels.max()) + 1)]
    for index, name in enumerate(class_names):
        if not isinstance(name, str):
            raise UserError(f"class_names holds {name!r}, which is not a text; give texts")
        if not (test.labels == index).any():
            raise UserError(f"class {name!r} has no image among those given; add some of it")
    if test.labels.max() >= len(class_names):
        raise UserError(
            f"label {test.labels.max()} has no name: class_names has {len(class_names)}; name all"
        )
    structure, params, model_state = take_apart(model)
    shape = (*test.images.shape[1:3], test.images.shape[3] if test.images.ndim == 4 else 1)
    model_id = type(model).__name__.lower()
    models.check(model, model_id, num_classes=len(class_names), image_shape=shape)
    run: Run = {
        "config": None,
        "config_hash": None,
        "dataset": {
            "dataset_id": OWN_IMAGES,
            "class_names": list(class_names),
            "num_test": len(test.labels),
            "data_hash": sha256(test.images.tobytes() + test.labels.tobytes()),
        },
        "environment": environment.describe(),
    }
    return measure(
        Trained(Predictor(structure), params, model_state),
        test,
        run=run,
        model_id=model_id,
        # Of what the network gives, whatever it was trained with.
        criterion_id="capsule_loss_v1" if structure.outputs == "capsules" else "nll",
        validation=None,
        training=None,
    )


def _checked(images: np.ndarray, labels: np.ndarray) -> Split:
    """Returns images and labels as the proof takes them.

    Raises:
        UserError: a shape, a type or a level is not what it must be.
    """
    if images.ndim not in (3, 4) or images.shape[1] != images.shape[2] or not len(images):
        raise UserError(
            f"images have the shape {images.shape}; give [n, side, side] or [n, side, side, "
            "channels], one image at least"
        )
    if images.dtype != np.uint8:
        if not np.issubdtype(images.dtype, np.floating):
            raise UserError(f"images are {images.dtype}; give uint8 0 to 255, or floats 0 to 1")
        if not (images.min() >= 0 and images.max() <= 1):
            raise UserError(
                f"images range from {images.min():g} to {images.max():g}; give floats 0 to 1"
            )
        images = images.astype(np.float32)
        images = images[..., None] if images.ndim == 3 else images
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"labels are {labels.dtype} {labels.shape}; give one whole number for each image"
        )
    if labels.min() < 0 or labels.max() > 255:
        raise UserError(f"labels range from {labels.min()} to {labels.max()}; give 0 to 255")
    return Split(images, labels.astype(np.uint8))


def prove(
    subject: Subject,
    run_dir: Path,
    *,
    formats: Sequence[str],
    criteria: Criteria,
    phases: Phases,
    seeds: Any = None,
) -> Release:
    """Exports a network, verifies the files, judges; leaves the three JSON files in `run_dir`.

    Args:
        subject: what to prove.
        run_dir: where it goes.
        formats: what to write; none: nothing is exported, and the release refused.
        criteria: what a release must reach.
        phases: the stopwatch.
        seeds: what `seeds.json` says, of a run with several.
    """
    if formats:  # first: what cannot be exported leaves an earlier proof as it is
        write_exports(formats, subject, run_dir)
        phases.end("export")
    records.write_metrics(run_dir, subject.metrics)
    verification = None
    if formats:
        LOGGER.info("verifying %s on %d test images", ", ".join(formats), len(subject.test.labels))
        verification = verify.verify_files(
            run_dir,
            formats,
            test=subject.test,
            jax_scores=subject.scores,
            trained=subject.trained,
            metadata=export_metadata(subject),
        )
        records.write_verification(run_dir, verification)
        phases.end("verification")
    release = judge(
        criteria,
        run=subject.run,
        metrics=subject.metrics,
        training=subject.training,
        verification=verification,
    )
    if seeds is not None:
        release["seeds"] = seeds
    records.write_release(run_dir, release)
    return release


def write_exports(formats: Sequence[str], subject: Subject, run_dir: Path) -> None:
    """Writes the model in each format but orbax, the checkpoint, which is there already.

    The same weights give the same bytes. Where one format fails, none is written.
    """
    versions = json.dumps(environment.versions(), sort_keys=True)
    metadata = export_metadata(subject) | {"versions": versions}
    trained, shape = subject.trained, subject.image_shape
    model = trained.model()
    writers = {
        "onnx": lambda: onnx.to_bytes(model, shape, metadata),
        "safetensors": lambda: safetensors.to_bytes(trained.params, trained.model_state, metadata),
        "stablehlo": lambda: stablehlo.to_bytes(model, shape),
    }
    for name, contents in [(name, writers[name]()) for name in formats]:
        write_bytes(run_dir / EXPORTED[name], contents)


def export_metadata(subject: Subject) -> dict[str, str]:
    """Returns what an exported file says of what it comes from, whatever made the file."""
    run, dataset = subject.run, subject.run["dataset"]
    metadata = {
        "model_id": subject.metrics["model_id"],
        "dataset_id": dataset["dataset_id"],
        "class_names": json.dumps(dataset["class_names"]),
        "data_hash": dataset["data_hash"],
    }
    config = run["config"]
    if config is not None and config["data"]:
        metadata["fit"] = config["fit"]  # how the user's own pictures were prepared
    if run["config_hash"] is not None:
        metadata["config_hash"] = run["config_hash"]
    if "imported" in run:
        metadata["imported_sha256"] = run["imported"]["sha256"]
    if own := run.get("own_code"):
        hashes = {key: code["sha256"] for key, code in own.items()}
        metadata["own_code"] = json.dumps(hashes, sort_keys=True)
    return metadata
