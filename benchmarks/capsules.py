"""Training and evaluation of the capsule networks on a CPU, beside PyTorch's configurations."""

from functools import partial

import jax

from benchmarks import capsule_peers, ours
from benchmarks.interleaved import OURS, Part
from benchmarks.peers import FORMS
from mnist_jax.data import Split

BATCH_SIZES = {
    "mnist_capsule_v1": 50,
    "mnist_efficient_capsule_v1": 64,
    "mnist_hvc_capsule_v1": 60,
}
EVALUATION_BATCHES = (50, 250)


def training(is_quick: bool) -> list[Part]:
    """A part for each network: Adam, float32, no augmentation, data in memory."""
    return [_training(model_id, is_quick) for model_id in BATCH_SIZES]


def evaluation(is_quick: bool) -> list[Part]:
    """A part for each network: scores of many images, as an array on the host."""
    return [_evaluation(model_id, is_quick) for model_id in BATCH_SIZES]


def _recipe(model_id: str, **changes: int) -> dict:
    plain = {"augment_id": "shift_and_rotate", "augment_shift_px": 0, "ema_decay": 0.0}
    return ours.recipe(model_id, **plain, augment_rotation_degrees=0.0, **changes)


def _training(model_id: str, is_quick: bool) -> Part:
    batch_size = BATCH_SIZES[model_id]
    images, labels = ours.random_data(batch_size * (1 if is_quick else 4))

    def make_ours():
        return ours.Training(_recipe(model_id, batch_size=batch_size), images, labels).epoch

    peer = partial(capsule_peers.make_training, model_id, images, labels, batch_size=batch_size)
    return Part(
        f"capsule_training_{model_id}",
        f"Training {model_id}, batch {batch_size}, float32, data in memory",
        "images/s",
        len(labels),
        {OURS: make_ours, **{name: partial(peer, **form) for name, form in FORMS.items()}},
    )


def _evaluation(model_id: str, is_quick: bool) -> Part:
    images, labels = ours.random_data(50 if is_quick else 500)

    def make_ours():
        score = ours.Training(_recipe(model_id, batch_size=50), images, labels).make_score()
        split = Split(*jax.device_put((images, labels)))
        return lambda: score(split)

    peer = partial(capsule_peers.make_evaluation, model_id, images)
    by_batch = {
        f"{name}, batches of {batch}": partial(peer, batch_size=batch, **form)
        for name, form in FORMS.items()
        for batch in EVALUATION_BATCHES
    }
    return Part(
        f"capsule_evaluation_{model_id}",
        f"Evaluating {model_id} on {len(labels):,} images, float32, torch.inference_mode",
        "images/s",
        len(labels),
        {OURS: make_ours, **by_batch},
    )
