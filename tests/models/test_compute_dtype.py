"""Every network trains with bfloat16 layers, and keeps everything else in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mnist_jax import models
from mnist_jax.config import MODELS
from mnist_jax.data import Split
from mnist_jax.models.network import call_in_training, take_apart
from mnist_jax.training import losses
from mnist_jax.training.state import first_state
from mnist_jax.training.step import StepSettings, make_streams, make_train_steps, no_progress
from tests.compiling import quick_build, quick_jit

BATCH_SIZE = 4


def build(model_id, dtype):
    return models.build(model_id, num_classes=10, rngs=nnx.Rngs(0), dtype=dtype)


# The default suite compiles the small ones; the slow suite all.
SLOW_TO_COMPILE = (
    *("mnist_capsule_v1", "mnist_sabour_cnn_v1", "small_resnet_v1"),
    *("mnist_efficient_capsule_v1", "mnist_hvc_capsule_v1"),
)
NETWORKS = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW_TO_COMPILE else name
    for name in MODELS
]


@pytest.fixture(scope="module", params=NETWORKS)
def trained(request):
    """The states and losses of a few steps on one batch."""
    structure, params, model_state = take_apart(
        quick_build(lambda: build(request.param, "bfloat16"))
    )
    optimizer = optax.adam(1e-3)
    criterion = losses.find("nll" if structure.outputs == "logits" else "capsule_loss_v1")
    settings = StepSettings(batch_size=BATCH_SIZE, reconstruction_weight=0.0005)
    steps = make_train_steps(structure, optimizer, criterion, settings)
    step = quick_jit(lambda *given: steps(*given, 0, 1))
    random = np.random.default_rng(0)
    images = jnp.array(random.integers(0, 256, (BATCH_SIZE, 28, 28), dtype=np.uint8))
    labels = jnp.array(np.arange(BATCH_SIZE, dtype=np.uint8))
    split, order, streams = Split(images, labels), jnp.arange(BATCH_SIZE), make_streams(0)
    state, seen = first_state(params, model_state, optimizer), []
    for _ in range(6):
        state, progress = step(streams, state, no_progress(), split, order)
        seen.append(progress.loss_sum)
    return state, seen


def test_weights_optimizer_and_losses_stay_float32(trained):
    state, seen = trained
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    for leaf in jax.tree.leaves((state.opt_state, state.model_state, seen)):
        assert leaf.dtype in (jnp.float32, jnp.int32)


def test_it_learns(trained):
    _, seen = trained
    assert all(np.isfinite(seen))
    assert min(seen[3:]) < 0.95 * seen[0]


@pytest.mark.parametrize("model_id", [*MODELS, "examples/own_network.py:Network"])
def test_layers_compute_in_bfloat16_and_outputs_are_float32(model_id):
    def outputs(dtype):
        structure, *arrays = take_apart(nnx.eval_shape(lambda: build(model_id, dtype)))
        images = jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32)
        key = jax.random.key(0)
        return jax.make_jaxpr(
            lambda arrays, images: call_in_training(structure, *arrays, images, key)[1]
        )(arrays, images)

    plain, half = outputs("float32"), outputs("bfloat16")
    assert "bf16" not in str(plain)
    assert "bf16" in str(half)
    assert half.out_avals[0].dtype == jnp.float32
