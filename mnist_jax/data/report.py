"""What is wrong with a data set: duplicates, leaks, odd sizes, unreadable files, absent classes.

Of the test split it compares pictures and counts classes; the same picture under two labels is
looked for in train and validation alone.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np
from jaxtyping import Bool, Integer, UInt8

from mnist_jax.data import pictures
from mnist_jax.errors import printable

NAMED = 100  # of each kind of finding, at most so many are named; all are counted
RARE = 0.01  # a size that fewer pictures have is odd, and they are named
EDGE = 8  # levels by which neighbours must differ, for the difference hash to call it an edge


class Facts(NamedTuple):
    """What the report needs to know of a split's pictures."""

    names: Sequence[str]
    labels: Integer[np.ndarray, " num_images"]
    digests: np.ndarray  # V16 `[n]`: equal for equal pictures alone
    edges: np.ndarray  # V16 `[n]`: difference hash, 128 bits; all 0 where there are no edges


class Found(TypedDict):
    """How often something was found, and where, up to `NAMED` times."""

    count: int
    named: list[list[str]]


class DataReport(TypedDict):
    """Everything found, ready for JSON."""

    counts: dict[str, dict[str, int]]  # by split, by class
    sizes: dict[str, int]  # `WIDTHxHEIGHT`, how many; commonest first
    modes: dict[str, int]  # Pillow's pixel formats, how many
    odd_sizes: Found  # name and size of pictures whose size is rare
    unreadable: Found  # name and reason
    duplicates_within: dict[str, Found]  # by split: copies beyond the first, with the first
    duplicates_across: dict[str, Found]  # `train-test`: pictures of the second that the first has
    leaks: int  # test pictures that are, to the last level, in train or validation as well
    near_duplicates: Found  # other levels, the same edges: pairs of names, in any splits
    two_labels: Found  # the same picture under two labels, within train and validation
    absent_classes: dict[str, list[str]]  # by split
    dropped: dict[str, int]  # pictures taken out because a later split has them, by split


def fingerprints(
    images: UInt8[np.ndarray, "num_images side side"] | UInt8[np.ndarray, "num_images side side 3"],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns keys, V16 `[n]`, and `Facts.edges` of a block of pictures.

    Equal pictures have equal keys, and few others do: a key is made of means over 9x9 regions.
    """
    side = images.shape[1]
    grey = (images if images.ndim == 3 else images[..., 1]).astype(np.float32)
    weights = pictures.weights(side, 9).astype(np.float32)
    small = weights @ grey @ weights.T / weights[0].sum() ** 2  # [n, 9, 9], levels
    across = small[:, :8, 1:] - small[:, :8, :-1] > EDGE
    down = small[:, 1:, :8] - small[:, :-1, :8] > EDGE
    bits = np.packbits(np.stack([across, down], 1).reshape(len(images), 128), axis=1)
    keys = [hashlib.blake2b(means.data, digest_size=16).digest() for means in small]
    return np.frombuffer(b"".join(keys), "V16"), np.frombuffer(bits.tobytes(), "V16")


def digest(levels: bytes) -> bytes:
    """Returns 128 bits of SHA-256 over a picture."""
    return hashlib.sha256(levels).digest()[:16]


def drop_duplicates(facts: dict[str, Facts]) -> dict[str, Bool[np.ndarray, " num_images"]]:
    """Says which pictures to keep: none of train in validation or test, none of validation in test.

    Copies within a split stay.
    """
    later = {"train": ("validation", "test"), "validation": ("test",), "test": ()}
    return {
        split: ~_isin(part.digests, [facts[other].digests for other in later[split]])
        for split, part in facts.items()
    }


def data_report(
    facts: dict[str, Facts],
    class_names: tuple[str, ...],
    seen: dict[str, tuple[tuple[int, int], str]] | None = None,
    unreadable: Sequence[tuple[str, str]] = (),
    dropped: dict[str, int] | None = None,
) -> DataReport:
    """Looks for everything that the report names.

    Args:
        facts: by split.
        class_names: in the order of the labels.
        seen: size in the file and mode of each readable picture, by name; None: not known.
        unreadable: name and reason.
        dropped: what `drop_duplicates` took out before, by split.
    """
    counts = {
        split: np.bincount(part.labels.astype(np.int64), minlength=len(class_names))
        for split, part in facts.items()
    }
    sizes, modes, odd = _sizes(seen or {})
    splits = list(facts)
    pairs = [(a, b) for i, a in enumerate(splits) for b in splits[i + 1 :]]
    return DataReport(
        counts={s: dict(zip(class_names, c.tolist(), strict=True)) for s, c in counts.items()},
        sizes=sizes,
        modes=modes,
        odd_sizes=odd,
        unreadable=_found([(printable(name), reason) for name, reason in unreadable]),
        duplicates_within={split: _within(part) for split, part in facts.items()},
        duplicates_across={f"{a}-{b}": _across(facts[a], facts[b]) for a, b in pairs},
        leaks=_leaks(facts),
        near_duplicates=_near(facts),
        two_labels=_two_labels([facts[s] for s in splits if s != "test"], class_names),
        absent_classes={
            split: [class_names[i] for i in np.flatnonzero(c == 0)] for split, c in counts.items()
        },
        dropped=dropped or {},
    )


def _leaks(facts: dict[str, Facts]) -> int:
    earlier = [part.digests for split, part in facts.items() if split != "test"]
    return int(_isin(facts["test"].digests, earlier).sum()) if "test" in facts else 0


def _found(pairs: Sequence[tuple[str, ...]]) -> Found:
    return Found(count=len(pairs), named=[list(pair) for pair in pairs[:NAMED]])


def _isin(digests: np.ndarray, others: list[np.ndarray]) -> Bool[np.ndarray, " num_images"]:
    known = {digest for other in others for digest in other.tolist()}
    return np.fromiter((digest in known for digest in digests.tolist()), bool, len(digests))


def _within(part: Facts) -> Found:
    first: dict[bytes, int] = {}
    copies = []
    for i, digest in enumerate(part.digests.tolist()):
        if (earlier := first.setdefault(digest, i)) != i:
            copies.append((printable(part.names[earlier]), printable(part.names[i])))
    return _found(copies)


def _across(one: Facts, other: Facts) -> Found:
    first = {digest: i for i, digest in reversed(list(enumerate(one.digests.tolist())))}
    same = [
        (printable(one.names[first[digest]]), printable(other.names[i]))
        for i, digest in enumerate(other.digests.tolist())
        if digest in first
    ]
    return _found(same)


def _near(facts: dict[str, Facts]) -> Found:
    first: dict[bytes, tuple[str, bytes]] = {}
    near = []
    for part in facts.values():
        pairs = zip(part.digests.tolist(), part.edges.tolist(), strict=True)
        for i, (digest, edges) in enumerate(pairs):
            if not any(edges):
                continue
            name, known = first.setdefault(edges, (part.names[i], digest))
            if known != digest:
                near.append((printable(name), printable(part.names[i])))
    return _found(near)


def _two_labels(parts: list[Facts], class_names: tuple[str, ...]) -> Found:
    first: dict[bytes, tuple[str, int]] = {}
    found = []
    for part in parts:
        pairs = zip(part.digests.tolist(), part.labels.tolist(), strict=True)
        for i, (digest, label) in enumerate(pairs):
            name, known = first.setdefault(digest, (part.names[i], label))
            if known != label:
                both = (class_names[known], class_names[label])
                found.append((printable(name), printable(part.names[i]), *both))
    return _found(found)


def _sizes(
    seen: dict[str, tuple[tuple[int, int], str]],
) -> tuple[dict[str, int], dict[str, int], Found]:
    sizes: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    for ((width, height), mode), count in Counter(seen.values()).items():
        sizes[f"{width}x{height}"] += count
        modes[mode] += count
    commonest = sorted(sizes, key=lambda size: (-sizes[size], size))[:NAMED]
    # Where all sizes are rare, none of them is odd.
    usual = any(count >= len(seen) / 2 for count in sizes.values())
    rare = usual and any(count < RARE * len(seen) for count in sizes.values())
    odd = [
        (printable(name), f"{width}x{height}")
        for name, ((width, height), _) in (seen.items() if rare else ())
        if sizes[f"{width}x{height}"] < RARE * len(seen)
    ]
    return {size: sizes[size] for size in commonest}, dict(modes), _found(odd)
