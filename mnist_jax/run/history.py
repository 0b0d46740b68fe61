"""What a run remembers of its epochs: the type of `history.json`."""

from typing import TypedDict


class EpochRow(TypedDict):
    """What the history keeps of an epoch."""

    epoch: int  # from 1
    learning_rate: float  # of its last step
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    grad_norm: float  # of the last step, as the next two
    param_norm: float
    update_norm: float
    seconds: float
    images_per_s: float


class History(TypedDict):
    """`history.json`."""

    best_epoch: int
    epochs: list[EpochRow]
