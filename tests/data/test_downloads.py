"""Downloads that are slow, silent, or go wrong."""

import re
import threading
import time

import pytest

from mnist_jax.data import downloads
from mnist_jax.data.downloads import watched


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(downloads, "SILENCE_S", 0.3)
    monkeypatch.setattr(downloads, "REPORT_S", 0.1)
    monkeypatch.setattr(downloads, "LOOK_S", 0.02)


def test_a_slow_download_goes_on_and_says_how_far_it_is(tmp_path, caplog):
    def download():
        with open(tmp_path / "part", "wb", buffering=0) as file:
            for _ in range(6):
                file.write(bytes(500_000))
                time.sleep(0.1)
        return (tmp_path / "part").rename(tmp_path / "whole")

    (tmp_path / "another").write_bytes(bytes(1_000_000))  # from before, and not counted
    with caplog.at_level("INFO", "mnist_jax"):
        assert watched(download, tmp_path, 3_000_000) == tmp_path / "whole"
    found = [re.fullmatch(r"(\d\.\d) of 3\.0 MB", record.getMessage()) for record in caplog.records]
    shares = [float(match[1]) for match in found]
    assert len(shares) >= 3 and shares == sorted(shares) and 0 < shares[0] <= shares[-1] <= 3


def test_a_silent_one_is_left_behind(tmp_path):
    is_over = threading.Event()
    try:
        with pytest.raises(TimeoutError, match=r"nothing came for 0\.3 s"):
            watched(lambda: is_over.wait(30), tmp_path, 100)
    finally:
        is_over.set()


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_what_a_download_raises_is_raised(tmp_path, kind):
    def download():
        raise kind("no")

    with pytest.raises(kind, match="no"):
        watched(download, tmp_path, 100)
