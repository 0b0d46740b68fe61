import contextlib
import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from mnist_jax.data import decoding, own, published

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@pytest.fixture(scope="module")
def decoders_once():
    """Starts the processes that decode once for a module's many small sets of pictures."""
    with decoding.Decoders() as shared, pytest.MonkeyPatch.context() as patch:
        patch.setattr(own, "Decoders", lambda: contextlib.nullcontext(shared))
        yield


@pytest.fixture
def tiny_raw(idx_bytes) -> dict[str, bytes]:
    """The raw files of a data set of 60 + 20 images, uncompressed, by name."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (80, 28, 28), np.uint8)
    labels = rng.permutation(np.arange(80) % 10).astype(np.uint8)
    arrays = (images[:60], labels[:60], images[60:], labels[60:])
    return {name: idx_bytes(array) for name, array in zip(NAMES, arrays, strict=True)}


@pytest.fixture
def tiny(tmp_path, monkeypatch, tiny_raw) -> Path:
    """Makes the data set `tiny_v1` known and returns a manual dir with its raw files."""
    from mnist_jax.data import records

    folder = tmp_path / "manual" / "tiny"
    folder.mkdir(parents=True)
    infos = {}
    for name, contents in tiny_raw.items():
        path = folder / f"{name}.gz"
        path.write_bytes(gzip.compress(contents))
        infos[f"http://tiny.invalid/{name}.gz"] = records.checksums.compute_url_info(path)
    monkeypatch.setattr(records, "url_infos", lambda raw_name: infos)
    tiny = published.PUBLISHED["mnist_v1"]._replace(
        num_train=60,
        num_validation=20,
        num_test=20,
        raw_name="tiny",
        sha256={name: hashlib.sha256(contents).hexdigest() for name, contents in tiny_raw.items()},
    )
    monkeypatch.setitem(published.PUBLISHED, "tiny_v1", tiny)
    return folder.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The published files of MNIST and Fashion-MNIST, which the repository does not hold."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("MNIST_JAX_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not there; set MNIST_JAX_TEST_DATA")
    return folder
