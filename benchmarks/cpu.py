"""Training, evaluation and exported files on a CPU, each beside PyTorch's best configurations."""

import logging
import tempfile
import warnings
from functools import partial
from pathlib import Path

import jax
import numpy as np
import torch
from flax import nnx

from benchmarks import ours, peers
from benchmarks.interleaved import OURS, Part
from mnist_jax.data import Split
from mnist_jax.export.onnx import to_bytes
from mnist_jax.export.session import open_session
from mnist_jax.models import network as network_module
from mnist_jax.pipeline import build_model

BATCH_SIZE = 64
EVALUATION_BATCHES = (64, 250, 1000)
LATENCY_CALLS = {1: 100, 32: 8}  # calls a run, by batch


def training(is_quick: bool) -> Part:
    """The training step of `mnist_cnn_v1`: same batch, float32, Adam, dropout, data in memory."""
    images, labels = ours.random_data(BATCH_SIZE * (4 if is_quick else 20))

    def make_ours():
        return ours.Training(ours.recipe(batch_size=BATCH_SIZE), images, labels).epoch

    torch_epoch = partial(peers.make_training, images, labels, batch_size=BATCH_SIZE)
    loader = partial(peers.make_training_from_loader, images, labels, batch_size=BATCH_SIZE)
    return Part(
        "training",
        f"Training mnist_cnn_v1, batch {BATCH_SIZE}, float32, data in memory",
        "images/s",
        len(labels),
        {
            OURS: make_ours,
            **{name: partial(torch_epoch, **form) for name, form in peers.FORMS.items()},
            "PyTorch, DataLoader": partial(loader, num_workers=0),
        },
    )


def evaluation(is_quick: bool) -> Part:
    """Scores of a whole split, from uint8 images to an array on the host."""
    images, labels = ours.random_data(1_000 if is_quick else 10_000)

    def make_ours():
        score = ours.Training(ours.recipe(), images, labels).make_score()
        split = Split(*jax.device_put((images, labels)))
        return lambda: score(split)

    peer = partial(peers.make_evaluation, images)
    by_batch = {
        f"{name}, batches of {batch}": partial(peer, batch_size=batch, **form)
        for name, form in peers.FORMS.items()
        for batch in EVALUATION_BATCHES
    }
    return Part(
        "evaluation",
        f"Evaluating mnist_cnn_v1 on {len(labels):,} images, float32, torch.inference_mode",
        "images/s",
        len(labels),
        {OURS: make_ours, **by_batch},
    )


def latency(is_quick: bool, *, batch: int) -> Part:
    """ONNX Runtime on one thread: this project's file beside PyTorch's export of its weights."""
    calls = max(1, LATENCY_CALLS[batch] // (4 if is_quick else 1))
    model = build_model(ours.recipe(), ours.DATASET)
    weights = peers.with_weights(network_module.take_apart(model)[1])
    image = np.random.default_rng(0).random((batch, 1, 28, 28), np.float32)

    def session(content: bytes | Path):
        session = open_session(content, "all", num_threads=1)
        name = session.get_inputs()[0].name

        def run():
            for _ in range(calls):
                (scores,) = session.run(None, {name: image})
            return scores

        return run

    def ours_file():
        return session(to_bytes(model, (28, 28, 1), {}))

    def torch_file(dynamo: bool):
        example = torch.rand(2, 1, 28, 28)
        shapes = (
            {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
            if dynamo
            else {"dynamic_axes": {"image": {0: "batch"}}, "input_names": ["image"]}
        )
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own parts, and of the older form
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            network, path = peers.Exported(weights).eval(), Path(folder, "model.onnx")
            torch.onnx.export(network, (example,), str(path), dynamo=dynamo, **shapes)
            run = session(path)
        np.testing.assert_allclose(
            run(),
            jax.device_get(nnx.jit(network_module.scores)(model, image.transpose(0, 2, 3, 1))),
            atol=1e-5,
        )
        return run

    return Part(
        f"latency_{batch}",
        f"mnist_cnn_v1 in ONNX Runtime, one thread, batch {batch}",
        "ms",
        calls,
        {
            OURS: ours_file,
            "torch.onnx.export": lambda: torch_file(True),
            "torch.onnx.export, dynamo=False": lambda: torch_file(False),
        },
    )
