"""The bare loop that preparing pictures is compared with; it loads NumPy and Pillow alone."""

import multiprocessing
import os
from collections.abc import Callable

import numpy as np
from PIL import Image


def decode(paths: list[str]) -> None:
    """Decodes pictures, and drops them."""
    for path in paths:
        np.asarray(Image.open(path).convert("RGB"))


def decode_and_send(paths: list[str]) -> np.ndarray:
    """Decodes pictures of one size for the process that asked."""
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])


def loop(
    function: Callable[[list[str]], object],
    paths: list[str],
    chunk: int,
    begin: Callable[[], object] | None = None,
) -> None:
    """Calls a function for all paths, a chunk at a time, on all cores, after `begin` in each."""
    chunks = [paths[i : i + chunk] for i in range(0, len(paths), chunk)]
    context, cores = multiprocessing.get_context("spawn"), len(os.sched_getaffinity(0))
    with context.Pool(cores, begin) as pool:
        for _ in pool.imap(function, chunks):
            pass
