"""Times the exported routing of `mnist_capsule_v1` against exports of the paper's sums by einsum.

    python benchmarks/capsule_routing.py

All files hold the same weights, and are run in turns, on one image and on one thread. The einsums
differ in the order of the axes of weights and votes (i inputs, k input dims, j classes, d dims),
which decides what ONNX Runtime has to transpose at each run: `ijdk` is the paper's, a matrix for
each input and class; `jikd` with `bjid` is that of Efficient-CapsNet's code. The convolutions, the
same in all files, are timed too.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
from flax import nnx

from mnist_jax.export.onnx import to_bytes
from mnist_jax.models.capsules import squash
from mnist_jax.models.sabour_capsule import SabourCapsNet

NUM_TURNS = 15
RUNS_A_TURN = 20
ORDERS = (("ijdk", "ij"), ("ikjd", "ij"), ("jikd", "ij"), ("jidk", "ji"), ("jikd", "ji"))


class EinsumCapsNet(SabourCapsNet):
    """The same network with the routing as procedure 1 of the paper has it."""

    def __call__(self, images, rngs=None):
        """Returns the class capsules."""
        order, ij = self.order
        weights = self.vote_weights[...].reshape(1152, 8, 10, 16)
        with jax.ensure_compile_time_eval():
            weights = jnp.transpose(weights, ["ikjd".index(axis) for axis in order])
        votes = jnp.einsum(
            f"{order},bik->b{ij}d", weights, self.primary_capsules(images, is_exported=True)
        )
        logits = jnp.zeros(votes.shape[:3])
        for _ in range(3):
            couplings = jax.nn.softmax(logits, axis=1 + ij.index("j"))
            sums = jnp.einsum(f"b{ij},b{ij}d->bjd", couplings, votes)
            capsules = squash(sums + self.class_biases[...][None])
            logits = logits + jnp.einsum(f"b{ij}d,bjd->b{ij}", votes, capsules)
        return capsules


class OnlyConvolutions(SabourCapsNet):
    """The part that all forms share."""

    def scores(self, images):
        """Returns some numbers that need all convolutions."""
        return jnp.sum(self.primary_capsules(images, is_exported=True), axis=1)


def build(network, order=None):
    model = network(num_classes=10, image_mean=0.13, image_std=0.31, rngs=nnx.Rngs(0))
    model.order = order
    return model


def main() -> None:
    models = {"ours": build(SabourCapsNet), "convolutions alone": build(OnlyConvolutions)}
    models |= {f"einsum {w},bik->b{v}d": build(EinsumCapsNet, (w, v)) for w, v in ORDERS}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(
            to_bytes(model, {}), options, providers=["CPUExecutionProvider"]
        )
        for name, model in models.items()
    }
    image = {"image": np.random.default_rng(0).random((1, 1, 28, 28), np.float32)}
    expected = sessions["ours"].run(None, image)[0]
    seconds = {name: [] for name in sessions}
    for _ in range(NUM_TURNS):
        for name, session in sessions.items():
            for run in range(-3, RUNS_A_TURN):  # the first bring its weights back into the caches
                start = time.perf_counter()
                scores = session.run(None, image)[0]
                if run >= 0:
                    seconds[name].append(time.perf_counter() - start)
            if name != "convolutions alone":
                np.testing.assert_allclose(scores, expected, atol=1e-5)
    ours = np.median(seconds["ours"])
    for name, values in seconds.items():
        p50, p90 = np.quantile(values, [0.5, 0.9])
        times = f"p50 {1e3 * p50:6.2f} ms  p90 {1e3 * p90:6.2f} ms"
        print(f"{name:22} {times}  ours/this {ours / p50:.2f}")


if __name__ == "__main__":
    main()
