"""MNIST-like data sets through tensorflow-datasets and array_record, with no TensorFlow."""

import contextlib
import logging
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from mnist_jax.data import raw_files
from mnist_jax.data.arrays import Split, appears_whole
from mnist_jax.data.downloads import watched
from mnist_jax.data.idx import contents_sha256, read_idx
from mnist_jax.data.published import (
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    VERSION,
    Published,
)
from mnist_jax.data.raw_files import Sought
from mnist_jax.errors import UserError

_FILES = {"train": (TRAIN_IMAGES, TRAIN_LABELS), "test": (TEST_IMAGES, TEST_LABELS)}
_logger = logging.getLogger("mnist_jax")


def load(
    dataset_id: str, published: Published, data_dir: Path, manual_dir: Path | None
) -> dict[str, Split]:
    """Reads the published `train` and `test` splits from records, which it prepares if need be.

    Args:
        dataset_id: also the folder's name in `data_dir`. It is not tensorflow-datasets' own name,
            so that what a user has prepared with TensorFlow is neither misread nor overwritten.
        published: what is known of it.
        data_dir: where prepared data is kept.
        manual_dir: holds the folder `raw_name` with the raw files; None: they are downloaded.

    Raises:
        UserError: a file is missing or wrong, the network or the folder cannot be used.
    """
    folder = Path(dataset_id, VERSION)
    if not os.path.isdir(data_dir / folder):
        _prepare(dataset_id, published, data_dir, manual_dir)
    _logger.info("%s: decoding the records in %s", dataset_id, data_dir / folder)
    try:
        builder = IdxBuilder(dataset_id, published, data_dir, raw={})
        return {"train": _decode(builder, "train"), "test": _decode(builder, "test")}
    # What damaged records raise is up to array_record, protobuf and tensorflow-datasets.
    except Exception as error:
        raise UserError(
            f"the records in {data_dir / folder} are damaged or not the published data "
            f"({_brief(error)}); delete that folder and run again, which makes it again"
        ) from error


class _Info(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Does not ask Google's bucket about a data set that is not there."""


class IdxBuilder(tfds.core.GeneratorBasedBuilder):
    """Records of `image`, 28x28x1 bytes, and `label`, in the published order.

    Args:
        dataset_id: names the data set instead of the class's name.
        published: what is known of it.
        data_dir: where it is, or will be, prepared.
        raw: the contents of the four raw files, by name; not needed to read.
    """

    VERSION = tfds.core.Version(VERSION)

    def __init__(
        self, dataset_id: str, published: Published, data_dir: Path, raw: dict[str, np.ndarray]
    ):
        self.name = dataset_id  # pyright: ignore[reportAttributeAccessIssue]
        self.published = published
        self.raw = raw
        super().__init__(data_dir=str(data_dir.absolute()))

    def _info(self) -> tfds.core.DatasetInfo:
        # As bytes: features.Image needs TensorFlow, and a list of numbers takes twice the time.
        image = tfds.features.Tensor(shape=(28, 28, 1), dtype=np.uint8, encoding="bytes")
        label = tfds.features.ClassLabel(names=list(self.published.class_names))
        return _Info(
            builder=self,
            description=self.published.title,
            homepage=self.published.source,
            citation=self.published.citation,
            features=tfds.features.FeaturesDict({"image": image, "label": label}),
            disable_shuffling=True,  # to compare decoded records with published checksums
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {split: self._generate_examples(*_FILES[split]) for split in _FILES}

    def _generate_examples(self, images: str, labels: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, (image, label) in enumerate(
            zip(self.raw[images], self.raw[labels], strict=True)
        ):
            yield index, {"image": image[:, :, None], "label": int(label)}

    def _log_download_bytes(self) -> None:
        """Prints nothing: the original does, --quiet or not."""

    def _log_download_done(self) -> None:
        """Prints nothing: the original does, --quiet or not."""


def _prepare(
    dataset_id: str, published: Published, data_dir: Path, manual_dir: Path | None
) -> None:
    """Reads and checks all four raw files, then writes the records."""
    tfds.disable_progress_bar()  # the bars know nothing of --quiet; what we say goes to the log
    with appears_whole(data_dir, Path(dataset_id, VERSION)) as staging:
        if manual_dir is None:
            _refuse_tfrecords(data_dir / str(published.raw_name))
            paths = _download(str(published.raw_name), staging / "downloads")
        else:
            paths = _find(published, manual_dir)
        raw = {name: _read(name, path, published) for name, path in paths.items()}
        _logger.info("%s: writing records to %s", dataset_id, data_dir)
        builder = IdxBuilder(dataset_id, published, staging, raw)
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        try:
            builder.download_and_prepare(file_format="array_record", download_config=config)
        except RuntimeError as error:  # what array_record makes of a full disk
            raise OSError(_brief(error)) from error


def _refuse_tfrecords(folder: Path) -> None:
    """Stops where a user who has prepared the data with TensorFlow may expect it to be used."""
    for path in folder.rglob("*.tfrecord*"):
        raise UserError(
            f"{path.parent} holds TFRecords, which only TensorFlow reads, and is left as it is; "
            "name another folder with --data-dir to download to, "
            "or the raw files with --manual-dir"
        )


def url_infos(raw_name: str) -> dict[str, checksums.UrlInfo]:
    """Returns size, sum and name of the raw files by address, as tensorflow-datasets has them."""
    return checksums.load_url_infos(tfds.core.tfds_path("url_checksums") / f"{raw_name}.txt")


def _download(raw_name: str, folder: Path) -> dict[str, Path]:
    """Downloads the raw files one after the other; their sums are checked on the way."""
    infos = url_infos(raw_name)
    manager = tfds.download.DownloadManager(
        download_dir=folder, url_infos=infos, force_checksums_validation=True
    )
    paths = {}
    for url, info in infos.items():
        _logger.info("downloading %s (%s)", url, info.size)
        try:
            _reach(url)
            found = watched(partial(manager.download, url), folder, int(info.size))
            paths[Path(url).stem] = Path(found)
        except NonMatchingChecksumError as error:
            raise UserError(
                f"{url} has a wrong checksum: it is not the published file any more; "
                f"put that into FOLDER/{raw_name} and name FOLDER with --manual-dir"
            ) from error
        except (OSError, tfds.download.DownloadError) as error:
            raise UserError(
                f"cannot download {url} ({_brief(error)}); connect to the network, or put the "
                f"published files into FOLDER/{raw_name} and name FOLDER with --manual-dir"
            ) from error
    return paths


def _reach(url: str) -> None:
    """Fails at once where tensorflow-datasets would try again, in silence, for minutes."""
    # A server that answers with an error is there: what is wrong shows when the file is asked for.
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=20).close()


def _find(published: Published, manual_dir: Path) -> dict[str, Path]:
    """Returns the raw files below `manual_dir`, with or without `.gz`, by published name.

    Those in the folder `raw_name` and of the published names are taken as they are: what is wrong
    with them is said when they are read. The others are known by their contents.

    Raises:
        UserError: a file is nowhere to be found; or, where only the sum of the `.gz` is published,
            it is another.
    """
    folder = manual_dir / str(published.raw_name)
    _logger.info("reading the published files in %s", folder if folder.is_dir() else manual_dir)
    paths, sought = {}, {}
    for url, info in url_infos(str(published.raw_name)).items():
        packed = folder / str(info.filename)
        plain = packed.with_suffix("")
        if published.sha256 is None and os.access(packed, os.R_OK):
            if checksums.compute_url_info(packed) != info:
                raise UserError(f"{packed} has a wrong checksum; download it again from {url}")
            paths[plain.name] = packed
        elif os.path.lexists(packed):
            paths[plain.name] = packed
        elif published.sha256 and os.path.lexists(plain) and not plain.is_dir():
            paths[plain.name] = plain
        else:
            contents = published.sha256[plain.name] if published.sha256 else None
            sought[plain.name] = Sought(contents, info.checksum, info.size)
    if sought:
        found, similar = raw_files.find(manual_dir, sought)
        for name in [name for name in sought if name not in found]:
            seen = f"; {similar[name]} has other contents" if name in similar else ""
            raise UserError(
                f"{folder / name}.gz is missing; put the published file there, under any name in "
                f"{manual_dir}: none there has its contents{seen}"
            )
        for name, path in found.items():
            _logger.info("%s is %s", path, name)
        paths |= found
    return paths


def _read(name: str, path: Path, published: Published) -> UInt8[np.ndarray, "..."]:
    count = published.num_train if name in _FILES["train"] else published.num_test
    is_images = name in (TRAIN_IMAGES, TEST_IMAGES)
    return read_idx(
        path,
        shape=(count, 28, 28) if is_images else (count,),
        max_value=255 if is_images else len(published.class_names) - 1,
        sha256=published.sha256[name] if published.sha256 else None,
    )


def _decode(builder: IdxBuilder, split: str) -> Split:
    source = builder.as_data_source(split=split)  # pyright: ignore[reportCallIssue]
    records = source.__getitems__(list(range(len(source))))  # five times as fast as one by one
    decoded = Split(
        images=np.stack([record["image"][:, :, 0] for record in records]),
        labels=np.array([record["label"] for record in records], np.uint8),
    )
    published = builder.published.sha256
    for name, array in zip(_FILES[split], decoded, strict=True):
        if published and contents_sha256(array) != published[name]:
            raise ValueError(f"wrong checksum of the {split} split")
    return decoded


def _brief(error: Exception) -> str:
    return re.split("[;\n]", str(error) or type(error).__name__)[0].strip("<>")
