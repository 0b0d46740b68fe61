"""The training step, and many of them on the device without the host in the way."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Integer, Key

from mnist_jax.models.network import (
    Structure,
    call_in_training,
    images_to_float,
    reconstruct,
    scores_of,
)
from mnist_jax.training.devices import keep_replicated, replicate, split
from mnist_jax.training.losses import Criterion
from mnist_jax.training.reconstruction import reconstruction_loss
from mnist_jax.training.state import TrainState, next_state


class Streams(NamedTuple):
    """The root keys of a run's random streams; a step folds its number in."""

    init: Key[Array, ""]
    shuffle: Key[Array, ""]
    augment: Key[Array, ""]
    dropout: Key[Array, ""]


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


def no_progress() -> Progress:
    """Returns the progress before the first step."""
    zero, none = jnp.float32(0), jnp.int32(0)
    return Progress(zero, none, none, zero, zero, zero, none, none)


class StepSettings(NamedTuple):
    """What a training step does besides the gradient."""

    batch_size: int  # images
    augment: Callable[[Array, Array], Array] | None = None  # changes images, given a key
    reconstruction_weight: float = 0.0  # of the error of the images that a network draws, if any
    ema_decay: float = 0.0  # of the average of the parameters, if the state keeps one
    # What an example of each class counts in the mean of a batch; None: all alike.
    class_weights: Float[np.ndarray, " classes"] | None = None
    mesh: Mesh | None = None  # the devices that share each batch; None: there is one


TrainSteps = Callable[..., tuple[TrainState, Progress]]


def make_train_steps(
    structure: Structure,
    optimizer: optax.GradientTransformation,
    criterion: Criterion,
    settings: StepSettings,
) -> TrainSteps:
    """Builds `train_steps(streams, state, progress, split, order, first_batch, num_batches)`.

    It takes `num_batches` optimizer steps over `order`, a permutation of the examples of `split`,
    beginning with batch number `first_batch`, and returns the new state and progress; the state is
    donated. Every seed has the same compiled code.
    Images (uint8, `[n, side, side]` or with channels), labels and order stay on the device
    throughout. Where several devices share the batch, arrays are put on all of them first.
    """
    loss_fn = _make_loss(structure, criterion, settings)
    batch_size, mesh = settings.batch_size, settings.mesh

    def one_step(streams, state, progress, images, labels, order, batch_number):
        chosen = jax.lax.dynamic_slice(order, (batch_number * batch_size,), (batch_size,))
        images, labels = split((images[chosen], labels[chosen]), mesh)
        value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (loss_sum, num_correct, model_state)), gradients = value_and_grad(
            state.params, state.model_state, streams, state.step, images, labels
        )
        state = next_state(state, gradients, model_state, optimizer, settings.ema_decay)
        grad_norm = optax.tree.norm(gradients)
        progress = progress._replace(
            loss_sum=progress.loss_sum + loss_sum,
            num_correct=progress.num_correct + num_correct,
            num_seen=progress.num_seen + batch_size,
            grad_norm=grad_norm,
            first_bad_loss=_first(progress.first_bad_loss, ~jnp.isfinite(loss), state.step),
            first_bad_gradient=_first(
                progress.first_bad_gradient, ~jnp.isfinite(grad_norm), state.step
            ),
        )
        return keep_replicated((state, progress), mesh)

    repeated = _repeated(one_step)

    def train_steps(streams, state, progress, split, order, first_batch, num_batches):
        arrays = (streams, state, progress, tuple(split), order)
        if mesh is not None:
            arrays = replicate(arrays, mesh)
        streams, state, progress, (images, labels), order = arrays
        return repeated(streams, state, progress, images, labels, order, first_batch, num_batches)

    return train_steps


def _make_loss(
    structure: Structure, criterion: Criterion, settings: StepSettings
) -> Callable[..., Any]:
    """Builds the mean loss of a batch, with its sum, what is right, and the network's new state.

    The mean is weighted by class; the sum, which is reported, is not.
    """
    augment, weight, mesh = settings.augment, settings.reconstruction_weight, settings.mesh

    def loss_fn(params, model_state, streams, step, images, labels):
        images = images_to_float(images)
        if augment is not None:
            images = augment(jax.random.fold_in(streams.augment, step), images)
        key = jax.random.fold_in(streams.dropout, step)
        # What layers ask for the devices that share the batch.
        context = (
            nullcontext() if mesh is None else jax.sharding.use_abstract_mesh(mesh.abstract_mesh)
        )
        with context:
            model, outputs, model_state = call_in_training(
                structure, params, model_state, images, key
            )
        losses = criterion(outputs, labels)
        if weight and hasattr(model, "reconstruct"):
            drawn = reconstruct(model, outputs, labels, images)
            losses += weight * reconstruction_loss(drawn, images)
        answers = scores_of(outputs, structure.outputs).argmax(axis=-1)
        mean = weighted_mean(losses, labels, settings.class_weights)
        return mean, (losses.sum(), (answers == labels).sum(), model_state)

    return loss_fn


def weighted_mean(
    losses: Float[Array, " batch"],
    labels: Integer[Array, " batch"],
    class_weights: Float[np.ndarray, " classes"] | None,
) -> Float[Array, ""]:
    """Returns the mean loss of a batch, in which each example counts as its class does.

    sum(weight * loss) / sum(weight) over the batch, as PyTorch's `CrossEntropyLoss(weight=...)`
    and scikit-learn's `log_loss(sample_weight=...)` have it.

    Args:
        losses: one for each example, of any loss.
        labels: the class of each.
        class_weights: finite and above 0; None: all count alike.
    """
    if class_weights is None:
        return losses.mean()
    weights = jnp.asarray(class_weights)[labels]
    return (weights * losses).sum() / weights.sum()


def _with_norms(progress: Progress, before: Any, params: Any) -> Progress:
    changed = optax.tree.sub(params, before)
    return progress._replace(
        param_norm=optax.tree.norm(params), update_norm=optax.tree.norm(changed)
    )


def _repeated(one_step: Callable[..., tuple[TrainState, Progress]]) -> Callable[..., Any]:
    """Builds the function that takes many steps, in the way that suits the device.

    The norms of the parameters and of their change are taken after the last step alone: in every
    step they would cost 3 % of it on a CPU.
    """
    if jax.default_backend() == "cpu":
        # XLA's CPU backend compiles convolution gradients inside a loop to unoptimised code
        # (openxla/xla conv_canonicalization.cc visits the entry computation alone), so the loop is
        # Python's: it only dispatches, the data stays where it is.
        jitted, jitted_norms = jax.jit(one_step, donate_argnums=1), jax.jit(_with_norms)

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
        return state, _with_norms(progress, before, state.params)

    return train_steps_in_one_dispatch


def _first(earlier: Int[Array, ""], is_bad: Bool[Array, ""], step: Int[Array, ""]) -> Array:
    """Keeps the first bad step's number."""
    return jnp.where((earlier == 0) & is_bad, step, earlier)


@partial(jax.jit, static_argnames="num_examples")
def shuffled(
    key: Key[Array, ""], epoch: int | Array, num_examples: int
) -> Int[Array, " num_examples"]:
    """Returns the order of the examples in an epoch, a permutation."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), num_examples)
