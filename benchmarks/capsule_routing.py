"""The exported routing of `mnist_capsule_v1` beside exports of the same sums by einsum.

"An einsum export" can mean several things:

* the port of this network in github.com/EscVM/Efficient-CapsNet (utils/layers_hinton.py): one
  einsum for the votes, products and sums for the routing;
* procedure 1 of the paper with three einsums, in five orders of the axes of weights and votes
  (i inputs, k input dims, j classes, d dims), which decide what ONNX Runtime must transpose at each
  run: `ijdk` is the paper's, a matrix for each input and class; `jikd` with `bjid` that of the
  einsums in Efficient-CapsNet's own layers, the form most often copied.

The convolutions, the same in all files, are timed alone too: what no routing can save.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.interleaved import OURS, Part
from mnist_jax.export.onnx import to_bytes
from mnist_jax.export.session import open_session
from mnist_jax.models.capsules import squash
from mnist_jax.models.sabour import SabourCapsNet

RUNS_A_TURN = 20
PORT = "einsum, as Efficient-CapsNet's port"
CONVOLUTIONS = f"{OURS}: its convolutions alone"  # what no routing can be faster than
ORDERS = (("ijdk", "ij"), ("ikjd", "ij"), ("jikd", "ij"), ("jidk", "ji"), ("jikd", "ji"))


class OtherwiseRouted(SabourCapsNet):
    """The same network with a routing of its own, also where it is exported."""

    def __call__(self, images):
        """Returns the class capsules."""
        return self.route(self.primary_capsules(images))[0]


class PortedCapsNet(OtherwiseRouted):
    """The same network with the routing as the port writes it."""

    def route(self, capsules):
        """Returns the class capsules and the couplings."""
        votes = jnp.einsum("bji,jik->bjk", capsules, self.vote_weights[...])
        votes = votes.reshape(-1, 1152, 10, 16)
        logits = jnp.zeros((*votes.shape[:3], 1))
        for iteration in range(3):
            couplings = jax.nn.softmax(logits, axis=2)
            sums = jnp.sum(votes * couplings, axis=1, keepdims=True)
            classes = squash(sums + self.class_biases[...][None, None])
            if iteration < 2:
                logits = logits + jnp.sum(votes * classes, axis=-1, keepdims=True)
        return classes[:, 0], couplings


class OnlyConvolutions(SabourCapsNet):
    """The part that all forms share."""

    def __call__(self, images):
        """Returns ten capsules that need all convolutions."""
        return self.primary_capsules(images)[:, :10]


class EinsumCapsNet(OtherwiseRouted):
    """The same network with the routing as procedure 1 of the paper has it."""

    order: tuple[str, str]  # of the axes of the weights, and of the votes

    def route(self, capsules):
        """Returns the class capsules and the couplings."""
        order, ij = self.order
        weights = self.vote_weights[...].reshape(1152, 8, 10, 16)
        with jax.ensure_compile_time_eval():
            weights = jnp.transpose(weights, ["ikjd".index(axis) for axis in order])
        votes = jnp.einsum(f"{order},bik->b{ij}d", weights, capsules)
        logits = jnp.zeros(votes.shape[:3])
        for _ in range(3):
            couplings = jax.nn.softmax(logits, axis=1 + ij.index("j"))
            sums = jnp.einsum(f"b{ij},b{ij}d->bjd", couplings, votes)
            classes = squash(sums + self.class_biases[...][None])
            logits = logits + jnp.einsum(f"b{ij}d,bjd->b{ij}", votes, classes)
        return classes, couplings


def build(network, order=None):
    model = network(num_classes=10, rngs=nnx.Rngs(0))
    if order is not None:
        model.order = order
    return model


def part(is_quick: bool) -> Part:
    """Scores of one image from each file, which hold the same weights."""
    models = {OURS: build(SabourCapsNet), PORT: build(PortedCapsNet)}
    models |= {f"einsum {w},bik->b{v}d": build(EinsumCapsNet, (w, v)) for w, v in ORDERS}
    models |= {CONVOLUTIONS: build(OnlyConvolutions)}
    image = {"image": np.random.default_rng(0).random((1, 1, 28, 28), np.float32)}
    expected: list[np.ndarray] = []
    runs = RUNS_A_TURN // (4 if is_quick else 1)

    def runner(name: str):
        session = open_session(to_bytes(models[name], (28, 28, 1), {}), "all", num_threads=1)
        if name != CONVOLUTIONS:
            expected.append(session.run(None, image)[0])
            np.testing.assert_allclose(expected[-1], expected[0], atol=1e-5)

        def run():
            for _ in range(runs):
                session.run(None, image)

        return run

    return Part(
        "capsule_routing",
        "mnist_capsule_v1 in ONNX Runtime, one thread, one image: our routing and einsum's forms",
        "ms",
        runs,
        {name: partial(runner, name) for name in models},
    )
