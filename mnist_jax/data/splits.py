"""Which picture goes to train, validation and test."""

import hashlib

import numpy as np
from jaxtyping import Bool, Int64

from mnist_jax.data.arrays import SPLITS, slice_by_class
from mnist_jax.data.readers.listing import Listing, label_indices
from mnist_jax.errors import UserError

Destinations = dict[str, Int64[np.ndarray, " num_pictures"]]  # by part: an index into SPLITS


def assign(listing: Listing, validation_share: float, test_share: float) -> Destinations:
    """Gives every picture a split; those that the source names stay as they are.

    Absent splits are taken from train: first test, then validation, each a share of what train had
    at first, by class with the stable slice, or whole groups where the source has groups.

    Raises:
        UserError: the shares are not shares, a group is in two splits, or train has no picture.
    """
    for name, share in (("validation_share", validation_share), ("test_share", test_share)):
        if not 0 < share < 1:
            raise UserError(f"{name} is {share}; it must lie between 0 and 1, like 0.1")
    if "train" not in listing.parts:
        raise UserError(f"no picture is in train, but in {', '.join(listing.parts)}; add some")
    _check_groups(listing)
    destinations = {
        split: np.full(len(part.labels), SPLITS.index(split))
        for split, part in listing.parts.items()
    }
    train = listing.parts["train"]
    labels, to = label_indices(train, listing.class_names), destinations["train"]
    for split, share in (("test", test_share), ("validation", validation_share)):
        if split not in listing.parts:
            left = np.flatnonzero(to == 0)
            size = max(1, round(share * len(labels)))
            if size >= len(left):
                raise UserError(
                    f"{len(labels)} pictures to train on are too few to take {size} for {split} "
                    "from; add pictures, or lower validation_share and test_share"
                )
            if train.groups is None:
                taken = slice_by_class(labels[left], size)
            else:
                taken = _slice_by_group([train.groups[i] for i in left.tolist()], size)
            to[left[taken]] = SPLITS.index(split)
    if not (to == 0).any():
        raise UserError("no picture is left to train on; there are too few groups to divide")
    return destinations


def counts(destinations: Destinations) -> dict[str, int]:
    """Returns how many pictures each split gets."""
    numbers = np.concatenate(list(destinations.values()))
    return dict(zip(SPLITS, np.bincount(numbers, minlength=len(SPLITS)).tolist(), strict=True))


def _slice_by_group(groups: list[str], size: int) -> Bool[np.ndarray, " num_pictures"]:
    """Takes whole groups, in the order of their names' SHA-256, until `size` pictures are there."""
    names, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
    ranks = [hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in names]
    order = sorted(range(len(names)), key=ranks.__getitem__)
    before = np.cumsum(counts[order]) - counts[order]
    return np.isin(index, np.array(order)[before < size])


def _check_groups(listing: Listing) -> None:
    place: dict[str, str] = {}
    for split, part in listing.parts.items():
        for group in part.groups or ():
            if place.setdefault(group, split) != split:
                raise UserError(
                    f"group {group!r} is in {place[group]} and in {split}; "
                    "a group belongs to one split: correct the table"
                )
