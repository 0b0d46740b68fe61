"""The training step, and many of them on the device without the host in the way."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, UInt8

from mnist_jax.models.layers.convolution import stacked_weights
from mnist_jax.models.layers.each_part import sharing
from mnist_jax.training import state as state_module
from mnist_jax.training.devices import keep_replicated, replicate, split
from mnist_jax.training.losses import reconstruction_loss
from mnist_jax.training.optimizers import moving_average
from mnist_jax.training.state import TrainState


class Streams(NamedTuple):
    """The root keys of a run's random streams; a step folds its number in."""

    init: Key[Array, "*seeds"]
    shuffle: Key[Array, "*seeds"]
    augment: Key[Array, "*seeds"]
    dropout: Key[Array, "*seeds"]


def make_streams(seed: int) -> Streams:
    """Derives every stream of a training from its one seed."""
    root = jax.random.key(seed)
    return Streams(*(jax.random.fold_in(root, index) for index in range(len(Streams._fields))))


class Progress(NamedTuple):
    """What a stretch of steps adds up to; lives on the device."""

    loss_sum: Float[Array, ""]
    num_correct: Int[Array, ""]
    num_seen: Int[Array, ""]
    grad_norm: Float[Array, ""]  # of the last step
    param_norm: Float[Array, ""]  # after the last step, and of what it changed
    update_norm: Float[Array, ""]
    first_bad_loss: Int[Array, ""]  # the first step (from 1) whose loss was not finite; 0: none
    first_bad_gradient: Int[Array, ""]


def no_progress(shape: tuple[int, ...] = ()) -> Progress:
    """Returns the progress before the first step; `(n,)`: that of n seeds side by side."""
    zero, none = jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.int32)
    return Progress(zero, none, none, zero, zero, zero, none, none)


def images_to_float(images: UInt8[Array, "batch side side"]) -> Float[Array, "batch side side 1"]:
    """Turns stored grey levels into what networks take: 0..1, with a channel axis."""
    return images[..., None].astype(jnp.float32) / 255


def make_train_steps(
    graphdef: Any,
    optimizer: optax.GradientTransformation,
    criterion: Callable[[Array, Array], Array],
    streams: Streams,
    *,
    batch_size: int,
    augment: Callable[[Array, Array], Array] | None,
    reconstruction_weight: float,
    ema_decay: float,
    mesh: Mesh | None = None,
) -> Callable[..., tuple[TrainState, Progress]]:
    """Builds `train_steps(state, progress, images, labels, order, first_batch, num_batches)`.

    It takes `num_batches` optimizer steps over `order`, a permutation of the examples, beginning
    with batch number `first_batch`, and returns the new state and progress; the state is donated.
    Images (uint8, `[n, side, side]`), labels and order stay on the device throughout.

    Where `streams` are those of several seeds, stacked, the seeds are trained side by side: state,
    progress and order are stacked as well, and each seed takes the steps that it would take alone.

    Args:
        graphdef: the network's structure.
        optimizer: what turns gradients into updates.
        criterion: the loss per example.
        streams: the random streams of one seed, or of several.
        batch_size: images a step.
        augment: changes the images of a batch, given a key; None: nothing does.
        reconstruction_weight: of the error of the images that the network draws, if it draws any.
        ema_decay: of the average of the parameters, if the state keeps one.
        mesh: the devices that share each batch; None: there is one.
    """
    is_stacked = streams.init.ndim == 1

    def loss_fn(params, model_state, streams, step, images, labels):
        images = images_to_float(images)
        if augment is not None:
            images = augment(jax.random.fold_in(streams.augment, step), images)
        model = state_module.rebuild(graphdef, params, model_state)
        rngs = nnx.Rngs(dropout=jax.random.fold_in(streams.dropout, step))
        with sharing(mesh), stacked_weights(model) if is_stacked else nullcontext():
            outputs = model(images, rngs=rngs)
        losses = criterion(outputs, labels)
        if reconstruction_weight and hasattr(model, "reconstruct"):
            drawn = model.reconstruct(outputs, labels)
            losses += reconstruction_weight * reconstruction_loss(drawn, images)
        num_correct = (model.scores_of(outputs).argmax(axis=-1) == labels).sum()
        _, _, model_state = state_module.take_apart(model)  # a call may have changed it
        return losses.mean(), (losses.sum(), num_correct, model_state)

    def one_step(streams, state, progress, images, labels, order, batch_number):
        chosen = jax.lax.dynamic_slice(order, (batch_number * batch_size,), (batch_size,))
        value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (loss_sum, num_correct, model_state)), gradients = value_and_grad(
            *(state.params, state.model_state, streams, state.step),
            *split((images[chosen], labels[chosen]), mesh),
        )
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        step = state.step + 1
        grad_norm = optax.tree.norm(gradients)
        progress = Progress(
            progress.loss_sum + loss_sum,
            progress.num_correct + num_correct,
            progress.num_seen + batch_size,
            grad_norm,
            progress.param_norm,
            progress.update_norm,
            _first(progress.first_bad_loss, ~jnp.isfinite(loss), step),
            _first(progress.first_bad_gradient, ~jnp.isfinite(grad_norm), step),
        )
        average = state.average
        if average is not None:
            average = moving_average(average, params, step, ema_decay)
        state = TrainState(step, params, average, model_state, opt_state)
        return keep_replicated((state, progress), mesh)

    def with_norms(progress, before, params):
        changed = optax.tree.sub(params, before)
        return progress._replace(
            param_norm=optax.tree.norm(params), update_norm=optax.tree.norm(changed)
        )

    if is_stacked:
        one_step = jax.vmap(one_step, in_axes=(0, 0, 0, None, None, 0, None))
        with_norms = jax.vmap(with_norms)
    return partial(_repeated(one_step, with_norms), replicate(streams, mesh))


def _repeated(
    one_step: Callable[..., tuple[TrainState, Progress]],
    with_norms: Callable[[Progress, Any, Any], Progress],
) -> Callable[..., Any]:
    """Builds the function that takes many steps, in the way that suits the device.

    The streams are among its arguments, so that every seed has the same compiled code. The norms of
    the parameters and of their change are taken after the last step alone: in every step they would
    cost 3 % of it on a CPU.
    """
    if jax.default_backend() == "cpu":
        # XLA's CPU backend compiles convolution gradients inside a loop to unoptimised code
        # (openxla/xla conv_canonicalization.cc visits the entry computation alone), so the loop is
        # Python's: it only dispatches, the data stays where it is.
        jitted, jitted_norms = jax.jit(one_step, donate_argnums=1), jax.jit(with_norms)

        def train_steps(streams, state, progress, images, labels, order, first_batch, num_batches):
            last = first_batch + num_batches - 1
            for number in range(first_batch, last + 1):
                if number == last:  # a copy: the state is donated
                    before = jax.tree.map(jnp.copy, state.params)
                state, progress = jitted(streams, state, progress, images, labels, order, number)
            return state, jitted_norms(progress, before, state.params)

        return train_steps

    @partial(jax.jit, donate_argnums=1, static_argnames="num_batches")
    def train_steps_in_one_dispatch(
        streams, state, progress, images, labels, order, first_batch, num_batches
    ):
        def body(index, carry):
            state, progress, _ = carry
            batch_number = first_batch + index
            after = one_step(streams, state, progress, images, labels, order, batch_number)
            return *after, state.params

        state, progress, before = jax.lax.fori_loop(
            0, num_batches, body, (state, progress, state.params)
        )
        return state, with_norms(progress, before, state.params)

    return train_steps_in_one_dispatch


def _first(earlier: Array, is_bad: Array, step: Array) -> Array:
    """Keeps the first bad step's number."""
    return jnp.where((earlier == 0) & is_bad, step, earlier)


@partial(jax.jit, static_argnames="num_examples")
def shuffled(
    key: Key[Array, "*seeds"], epoch: int | Array, num_examples: int
) -> Int[Array, "*seeds num_examples"]:
    """Returns the order of the examples in an epoch, a permutation; for stacked keys one each."""
    if key.ndim == 1:
        return jax.vmap(lambda one: shuffled(one, epoch, num_examples))(key)
    return jax.random.permutation(jax.random.fold_in(key, epoch), num_examples)
