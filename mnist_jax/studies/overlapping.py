"""Pairs of overlapping digits, MultiMNIST: how they are made, trained on and tested."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from mnist_jax import data, pipeline
from mnist_jax.data import Split
from mnist_jax.errors import UserError
from mnist_jax.export import onnx
from mnist_jax.files import write_bytes, write_json
from mnist_jax.models.network import (
    Structure,
    call_in_training,
    images_to_float,
    num_exported_parameters,
    reconstruct,
    take_apart,
)
from mnist_jax.models.predict import Predictor, Trained
from mnist_jax.release import compare, inputs
from mnist_jax.run import environment, paths
from mnist_jax.run import folder as run_folder
from mnist_jax.run import log as log_module
from mnist_jax.run.paths import EXPORTED
from mnist_jax.studies import scoring
from mnist_jax.training import losses, optimizers
from mnist_jax.training.losses.capsule_loss_v1 import margin_loss
from mnist_jax.training.reconstruction import reconstruction_loss
from mnist_jax.training.state import TrainState, first_state, next_state
from mnist_jax.training.step import make_streams, shuffled

LOGGER = logging.getLogger("mnist_jax")
CANVAS_SIDE = 36  # pixels
MAX_SHIFT_PX = 4
FIGURES = "logs/multi_mnist.json"
SEED_OF_TEST_PAIRS = 0
STEPS_BETWEEN_REPORTS = 200


class Partners(NamedTuple):
    """Where, among the examples sorted by class, each class lies."""

    by_class: Int[Array, " n"]  # examples, sorted by label
    first: Int[Array, " classes"]
    count: Int[Array, " classes"]


def sort_by_class(labels: UInt8[np.ndarray, " n"], num_classes: int) -> Partners:
    """Prepares the drawing of partners of another class."""
    count = np.bincount(labels, minlength=num_classes)
    first = np.cumsum(count) - count
    order = np.argsort(labels, kind="stable")
    return Partners(*(jnp.asarray(array, jnp.int32) for array in (order, first, count)))


def draw_partners(
    key: PRNGKeyArray, labels: UInt8[Array, " batch"], partners: Partners
) -> Int[Array, " batch"]:
    """Draws an example for each label, uniformly from those of all other classes."""
    own_count, own_first = partners.count[labels], partners.first[labels]
    num_others = len(partners.by_class) - own_count
    position = jax.random.randint(key, labels.shape, 0, num_others)
    # Counted past the examples of the own class.
    position = jnp.where(position < own_first, position, position + own_count)
    return partners.by_class[position]


def shift(
    key: PRNGKeyArray, images: Float[Array, "batch side side 1"]
) -> Float[Array, "batch side side 1"]:
    """Moves each image by whole pixels along each axis; the frame is wide enough for all ink."""
    shifts = jax.random.randint(key, (len(images), 2), -MAX_SHIFT_PX, MAX_SHIFT_PX + 1)
    pixels = jnp.arange(images.shape[1])

    def move(image, shift):  # what leaves on one side comes in on the other: all black
        return image[(pixels - shift[0]) % len(pixels)][:, (pixels - shift[1]) % len(pixels)]

    return jax.vmap(move)(images, shifts)


def make_pairs(
    key: PRNGKeyArray,
    chosen: Int[Array, " batch"],
    images: UInt8[Array, "n side side"],
    labels: UInt8[Array, " n"],
    partners: Partners,
) -> tuple[Float[Array, "2 batch side side 1"], UInt8[Array, "2 batch"]]:
    """Returns both digits of each pair, moved, and their labels; the pair's image is their sum.

    Args:
        key: one key for the batch.
        chosen: the first digit of each pair.
        images: all examples, in the middle of their frames.
        labels: of all examples.
        partners: of the same labels.
    """
    partner_key, *shift_keys = jax.random.split(key, 3)
    others = draw_partners(partner_key, labels[chosen], partners)
    digits = [
        shift(shift_key, images_to_float(images[index]))
        for shift_key, index in zip(shift_keys, (chosen, others), strict=True)
    ]
    return jnp.stack(digits), jnp.stack([labels[chosen], labels[others]])


def overlay(digits: Float[Array, "2 batch side side 1"]) -> Float[Array, "batch side side 1"]:
    """Adds the two digits of each pair, up to white."""
    return jnp.minimum(digits.sum(axis=0), 1.0)


def loss_of_pairs(
    model: Any,
    outputs: Array,
    digits: Float[Array, "2 batch side side 1"],
    labels: UInt8[Array, "2 batch"],
    config: Mapping[str, Any],
) -> Float[Array, " batch"]:
    """Returns the loss of each pair.

    Capsules: the margin loss with both classes present, and the error of the drawing of each digit
    from its own capsule. Other networks: the mean of the losses to either label.
    """
    criterion_id, weight = config["criterion_id"], config["reconstruction_weight"]
    if criterion_id != "capsule_loss_v1":
        criterion = losses.find(criterion_id)
        first, second = (criterion(outputs, of_one) for of_one in labels)
        return (first + second) / 2
    is_label = jax.nn.one_hot(labels, outputs.shape[1]).sum(axis=0)
    loss = margin_loss(outputs, is_label)
    if weight and hasattr(model, "reconstruct"):
        for digit, of_one in zip(digits, labels, strict=True):
            drawn = reconstruct(model, outputs, of_one, digit)
            loss += weight * reconstruction_loss(drawn, digit)
    return loss


def make_step(
    structure: Structure, optimizer: optax.GradientTransformation, config: Mapping[str, Any]
) -> Callable[..., tuple[TrainState, Array]]:
    """Builds the jitted `step(state, chosen, images, labels, partners) -> (state, loss)`.

    `chosen` are the first digits of a batch of pairs; the others are as in `make_pairs`.
    """
    streams = make_streams(config["seed"])

    @partial(jax.jit, donate_argnums=0)
    def step(state, chosen, images, labels, partners):
        def loss_fn(params):
            key = jax.random.fold_in(streams.augment, state.step)
            digits, labels_of_pairs = make_pairs(key, chosen, images, labels, partners)
            dropout = jax.random.fold_in(streams.dropout, state.step)
            model, outputs, model_state = call_in_training(
                structure, params, state.model_state, overlay(digits), dropout
            )
            loss = loss_of_pairs(model, outputs, digits, labels_of_pairs, config)
            return loss.mean(), model_state

        (loss, model_state), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        return next_state(state, gradients, model_state, optimizer, config["ema_decay"]), loss

    return step


def fit(config: Mapping[str, Any], model: nnx.Module, train: Split, num_classes: int) -> Any:
    """Trains for all epochs; returns the last state and the mean loss and seconds of each epoch."""
    num_batches = len(train.labels) // config["batch_size"]
    _, optimizer = optimizers.of_config(config, num_batches)
    structure, params, model_state = take_apart(model)
    state = first_state(params, model_state, optimizer, keeps_average=config["ema_decay"] > 0)
    partners = sort_by_class(train.labels, num_classes)
    step, on_device = make_step(structure, optimizer, config), jax.device_put(tuple(train))
    shuffle_key, rows = make_streams(config["seed"]).shuffle, []
    for epoch in range(1, config["epochs"] + 1):
        order = shuffled(shuffle_key, epoch, len(train.labels))
        start, batch_losses = time.perf_counter(), []
        for index in range(num_batches):
            first = index * config["batch_size"]
            chosen = order[first : first + config["batch_size"]]
            state, loss = step(state, chosen, *on_device, partners)
            batch_losses.append(loss)
            if (index + 1) % STEPS_BETWEEN_REPORTS == 0:
                LOGGER.debug("epoch %d, step %d: loss %.4f", epoch, index + 1, float(loss))
        mean_loss = float(np.mean(jax.device_get(batch_losses)))
        if not np.isfinite(mean_loss):
            raise UserError("the loss is not finite; give a smaller --learning-rate")
        seconds = time.perf_counter() - start
        rows.append({"epoch": epoch, "train_loss": mean_loss, "seconds": seconds})
        LOGGER.info("epoch %d/%d: loss %.4f; %.0f s", epoch, config["epochs"], mean_loss, seconds)
    return state, rows


def fixed_pairs(test: Split, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images, uint8 `[n, 36, 36]`, and labels, `[n, 2]`, of the fixed test pairs."""
    key = jax.random.key(SEED_OF_TEST_PAIRS)
    images, labels = jax.device_put((test.images, test.labels))
    partners = sort_by_class(test.labels, num_classes)
    digits, labels = make_pairs(key, jnp.arange(len(test.labels)), images, labels, partners)
    images = jnp.rint(overlay(digits)[..., 0] * 255).astype(jnp.uint8)
    return np.asarray(images), np.asarray(labels).T


def run(config: Mapping[str, Any]) -> int:
    """Trains, exports, tests; returns 0 where file and network agree, else 1."""
    environment.start_jax(os.environ)
    run_dir = Path(config["output_dir"])
    config = {**config, "image_side": CANVAS_SIDE}
    with run_folder.claim(run_dir, config), log_module.to_file(run_dir / paths.LOG):
        dataset, _ = inputs.of_config(config)
        num_classes = len(dataset.class_names)
        model = pipeline.build_model(config, dataset)
        train = data.read(dataset, "train")
        inputs.check_batch_size(config["batch_size"], len(train.labels))
        described = pipeline.describe_run(config, dataset)
        state, rows = fit(config, model, train, num_classes)
        predictor = Predictor(take_apart(model)[0])
        trained = Trained(predictor, state.weights, state.model_state)
        metadata = {"model_id": config["model_id"], "dataset_id": f"multi_{config['dataset_id']}"}
        file = run_dir / EXPORTED["onnx"]
        shape = (CANVAS_SIDE, CANVAS_SIDE, 1)
        write_bytes(file, onnx.to_bytes(trained.model(), shape, metadata))
        images, labels = fixed_pairs(data.read(dataset, "test"), num_classes)
        counts = scoring.count_right(compare.score(file, images), trained.scores(images), labels)
        figures = {
            "model_id": config["model_id"],
            "num_parameters": num_exported_parameters(state.weights),
            "run": described,
            "epochs": rows,
            **counts,
        }
        write_json(run_dir / FIGURES, figures)
        LOGGER.info(
            "both digits right: %d of %d pairs, %.4f (%.4f to %.4f)",
            counts["num_correct"],
            counts["num_examples"],
            counts["accuracy"],
            *counts["interval_95"],
        )
        wrong = counts["num_disagreements"]
        LOGGER.info("the ONNX file and JAX %s", f"DISAGREE on {wrong}" if wrong else "agree")
    return 1 if wrong else 0
