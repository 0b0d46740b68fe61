"""Every network trains with bfloat16 layers, and keeps everything else in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mnist_jax import models
from mnist_jax.config import MODELS
from mnist_jax.models import network as network_module
from mnist_jax.training import state as state_module
from mnist_jax.training import losses
from mnist_jax.training.step import make_streams, make_train_steps, no_progress

BATCH_SIZE = 4


def build(model_id, dtype):
    return models.build(model_id, num_classes=10, image_mean=0.13, image_std=0.31, rngs=nnx.Rngs(0), dtype=dtype
    )


@pytest.fixture(scope="module", params=MODELS)
def trained(request):
    """The states and losses of a few steps on one batch."""
    graphdef, params, model_state = network_module.take_apart(build(request.param, "bfloat16"))
    optimizer = optax.adam(1e-3)
    steps = make_train_steps(
        graphdef,
        optimizer,
        losses.find(MODELS[request.param).criteria[0]],
        make_streams(0),
        batch_size=BATCH_SIZE,
        augment=None,
        reconstruction_weight=0.0005,
        ema_decay=0.0,
    )
    random = np.random.default_rng(0)
    images = jnp.array(random.integers(0, 256, (BATCH_SIZE, 28, 28), dtype=np.uint8))
    labels = jnp.array(np.arange(BATCH_SIZE, dtype=np.uint8))
    state, losses = state_module.first_state(params, model_state, optimizer), []
    for _ in range(6):
        state, progress = steps(state, no_progress(), images, labels, jnp.arange(BATCH_SIZE), 0, 1)
        losses.append(progress.loss_sum)
    return state, losses


def test_weights_optimizer_and_losses_stay_float32(trained):
    state, losses = trained
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    for leaf in jax.tree.leaves((state.opt_state, state.model_state, losses)):
        assert leaf.dtype in (jnp.float32, jnp.int32)


def test_it_learns(trained):
    _, losses = trained
    assert all(np.isfinite(losses))
    assert min(losses[3:]) < 0.95 * losses[0]


@pytest.mark.parametrize("model_id", MODELS)
def test_layers_compute_in_bfloat16_and_outputs_are_float32(model_id):
    def outputs(dtype):
        network = nnx.eval_shape(lambda: build(model_id, dtype))
        graphdef, state = nnx.split(network)
        images = jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32)
        return jax.make_jaxpr(
            lambda state, images: nnx.merge(graphdef, state)(images, nnx.Rngs(dropout=0))
        )(state, images)

    plain, half = outputs("float32"), outputs("bfloat16")
    assert "bf16" not in str(plain)
    assert "bf16" in str(half)
    assert half.out_avals[0].dtype == jnp.float32
