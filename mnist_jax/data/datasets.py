"""What a data set is, how one is prepared by its id or from pictures, and read."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from mnist_jax.data import arrays, own
from mnist_jax.data.arrays import Split
from mnist_jax.data.published import PUBLISHED, VERSION, Published
from mnist_jax.data.report import DataReport
from mnist_jax.errors import UserError, printable

DATASET_IDS = tuple(PUBLISHED)


class Dataset(NamedTuple):
    """A data set that lies prepared on disk."""

    dataset_id: str
    title: str
    source: str
    license: str
    citation: str
    class_names: tuple[str, ...]
    folder: Path  # where the decoded arrays are
    data_hash: str  # SHA-256, in hex, over all arrays
    num_train: int
    num_validation: int
    num_test: int
    image_mean: float  # of the train split's pixels, 0 to 1
    image_std: float
    image_side: int  # pixels, of what `read` gives
    num_channels: int = 1  # 3: red, green, blue
    # Pictures of the test split that train or validation has too; None: not looked for.
    num_leaks: int | None = None
    hub_id: str | None = None  # on the Hugging Face Hub
    limitations: str = ""  # of a model that knows only this data set


def prepare(
    dataset_id: str, data_dir: Path, manual_dir: Path | None, image_side: int = 0
) -> Dataset:
    """Makes sure that a data set lies whole on disk, and says what it is.

    Args:
        dataset_id: one of `DATASET_IDS`.
        data_dir: where prepared data is kept; nothing is written if it is there already.
        manual_dir: a folder with the raw published files, `mnist/*.gz` and so on, to prepare the
            data from; None: download them. Not needed for `digits_v1`.
        image_side: pixels; more than the published 28 puts each image into the middle of black. 0:
            as published.

    Raises:
        UserError: an unknown id, a file that is missing or wrong, a folder that cannot be written,
            no network. Nothing half-prepared stays behind.
    """
    if dataset_id not in PUBLISHED:
        known = ", ".join(DATASET_IDS)
        raise UserError(f"dataset_id {dataset_id!r} is not known; choose one of {known}")
    if manual_dir is not None and not os.path.isdir(manual_dir):
        raise UserError(f"manual_dir {manual_dir} is not a folder; name one that is there")
    published = PUBLISHED[dataset_id]
    folder = Path(dataset_id, VERSION, "arrays")
    if not os.path.isdir(data_dir / folder):
        with arrays.alone_in(data_dir):
            if not os.path.isdir(data_dir / folder):  # another process may have made it meanwhile
                _make(dataset_id, published, data_dir, manual_dir, folder)
    arrays.check(data_dir / folder, "test")  # not read: it is looked at once, at a run's end
    train, validation = (arrays.read(data_dir / folder, s) for s in ("train", "validation"))
    image_mean, image_std = arrays.mean_and_std(train.images)
    return Dataset(
        dataset_id=dataset_id,
        title=published.title,
        source=published.source,
        license=published.license,
        citation=published.citation,
        class_names=published.class_names,
        folder=data_dir / folder,
        data_hash=arrays.data_hash(data_dir / folder),
        num_train=len(train.labels),
        num_validation=len(validation.labels),
        num_test=published.num_test,
        image_mean=image_mean,
        image_std=image_std,
        image_side=image_side or train.images.shape[1],
        hub_id=published.hub_id,
        limitations=published.limitations,
    )


def _make(
    dataset_id: str, published: Published, data_dir: Path, manual_dir: Path | None, folder: Path
) -> None:
    """Makes the arrays of a data set, in `folder` of `data_dir`."""
    # Imported here: with the arrays in place neither library is ever loaded.
    if published.raw_name is None:
        from mnist_jax.data import digits

        splits = digits.load(published.num_test)
    else:
        from mnist_jax.data import records

        splits = records.load(dataset_id, published, data_dir, manual_dir)
    train, validation = arrays.split_off(splits["train"], published.num_validation)
    with arrays.appears_whole(data_dir, folder) as staging:
        made = {"train": train, "validation": validation, "test": splits["test"]}
        arrays.write(staging / folder, made)


def prepare_own(
    path: Path, data_dir: Path, settings: own.Settings, progress: own.Progress | None = None
) -> tuple[Dataset, DataReport]:
    """Makes sure that the user's own pictures lie decoded on disk, and says what they are.

    Args:
        path: see `readers.FORMATS`.
        data_dir: where prepared data is kept.
        settings: how pictures become arrays.
        progress: called with the pictures done and those in all.

    Raises:
        UserError: a wrong setting or source, or a folder that cannot be written.
    """
    made, found = own.prepare(path, data_dir, settings, progress)
    name = re.sub(r"[^A-Za-z0-9]+", "_", path.resolve().stem).strip("_").lower() or "pictures"
    dataset = Dataset(
        dataset_id=f"own_{name}",
        title=f"The user's own pictures: {printable(path.name)}",
        source=made.source,
        license="not known",
        citation="none",
        class_names=made.class_names,
        folder=made.folder,
        data_hash=made.data_hash,
        num_train=made.num_train,
        num_validation=made.num_validation,
        num_test=made.num_test,
        image_mean=made.image_mean,
        image_std=made.image_std,
        image_side=made.image_side,
        num_channels=made.channels,
        num_leaks=found["leaks"],
    )
    return dataset, found


def names(dataset: Dataset, split: str) -> list[str] | None:
    """Returns where each picture of a split is from, printable; None where it is published data.

    Raises:
        UserError: what was kept of the user's own pictures is missing or damaged.
    """
    return own.names(dataset.folder)[split] if dataset.num_leaks is not None else None


def read(dataset: Dataset, split: str) -> Split:
    """Reads `train`, `validation` or `test`, each a pair of files of its own.

    Returns:
        Images, uint8 `[n, side, side]`, or `[n, side, side, 3]` in colour, 0 to 255; and labels.

    Raises:
        UserError: a file is missing, truncated or changed since it was prepared.
    """
    return arrays.in_the_middle(arrays.read(dataset.folder, split), dataset.image_side)
