"""How many computations to put side by side."""

import os

MAX_LANES = 4  # compile time grows with each


def num_lanes() -> int:
    """Returns how many independent chains of operations keep this process's cores busy."""
    return min(len(os.sched_getaffinity(0)), MAX_LANES)
