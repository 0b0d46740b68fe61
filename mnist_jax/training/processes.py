"""A run of several processes, one or more on each host, on JAX's own distributed runtime.

All of them take the same steps, each with its devices' part of every batch. Process 0 alone writes
files, the checkpoints among them, so no folder need be shared; the others train along, wait for its
verdict and end with the same status. Where one is lost, the others end too, as no step can be taken
without it; the last checkpoint is whole, and the same command on all hosts resumes from there.
"""

import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mnist_jax.errors import StoppedError, UserError, first_line

JOIN_TIMEOUT_S = 300
HEARTBEAT_TIMEOUT_S = 60  # after which a process that is silent counts as lost
WATCH_INTERVAL_S = 5
STATUS_LOST = 4
LOST = (
    "another process of this run has ended or cannot be reached: see what it says; the same "
    "command, on all hosts, resumes from the last checkpoint"
)
# What XLA's collectives and JAX's coordination service say when a connection is gone.
CONNECTION_LOST = re.compile(
    r"gloo|nccl|coordination|connection (closed|reset|refused)|heartbeat", re.I
)


def join(coordinator: str, num_processes: int, process_id: int) -> None:
    """Meets the other processes; to be called before JAX is used.

    Args:
        coordinator: the address of process 0, `HOST:PORT`; `auto`: as Slurm, Open MPI or Kubernetes
            say in the environment; empty: there are no others.
        num_processes: how many there are; not used with `auto`.
        process_id: which one this is, from 0; not used with `auto`.

    Raises:
        UserError: the environment says nothing, or the others do not come.
    """
    if not coordinator:
        return
    named = {"coordinator_address": coordinator, "num_processes": num_processes}
    named |= {"process_id": process_id, "cluster_detection_method": "deactivate"}
    # Without it, JAX ends the processes that are left itself, with a stack trace.
    jax.config.update("jax_enable_recoverability", True)
    try:
        jax.distributed.initialize(
            **({} if coordinator == "auto" else named),
            initialization_timeout=JOIN_TIMEOUT_S,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S,
        )
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise UserError(
            f"coordinator is {coordinator!r}, but the processes of the run did not meet "
            f"({first_line(error)}); see docs/scale.md for what each must be told"
        ) from error


def is_writer() -> bool:
    """Returns whether this process writes the run's files."""
    return jax.process_index() == 0


def share(value: Any) -> Any:
    """Returns process 0's value, which JSON can hold, on every process; waits for it."""
    if jax.process_count() == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode() if is_writer() else b"", np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    text = multihost_utils.broadcast_one_to_all(text if is_writer() else np.zeros(length, np.uint8))
    return json.loads(bytes(np.asarray(text)))


def share_arrays(tree: Any) -> Any:
    """Returns process 0's arrays on every process; the others give arrays of the same shapes."""
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)


@contextmanager
def watched() -> Iterator[None]:
    """Ends this process, with status 4 and one line, when another one is lost.

    A lost connection mostly shows as an error of the step under way. On a GPU it may only hang: so
    a thread of each process meets those of the others every few seconds.

    Raises:
        StoppedError: in place of the error that tells of it.
    """
    if jax.process_count() == 1:
        yield
        return
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(WATCH_INTERVAL_S):
            try:
                with multihost_utils.live_devices(jax.devices()) as live:
                    is_lost = len(live) < jax.device_count()
            except Exception:  # the runtime's own kinds, from several libraries
                is_lost = True
            if is_lost and not is_over.wait(WATCH_INTERVAL_S):  # the step's own error comes first
                print(LOST, file=sys.stderr, flush=True)
                os._exit(STATUS_LOST)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except (ValueError, RuntimeError) as error:  # jax.errors.JaxRuntimeError is the latter
        if CONNECTION_LOST.search(str(error)):
            raise StoppedError(LOST, STATUS_LOST) from error
        raise
    finally:
        is_over.set()
