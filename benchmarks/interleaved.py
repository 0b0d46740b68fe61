"""The frame of every benchmark: candidates timed in turn, in one process.

Each round times every candidate once, so that a machine whose speed drifts drifts for all. What
counts is the ratio within a round; its median over the rounds is what is reported.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

OURS = "mnist_jax"


class Part(NamedTuple):
    """One benchmark.

    Attributes:
        part_id: names it on the command line.
        title: says what is timed, with all that it depends on.
        unit: `images/s`, `ms` or `s`.
        amount: of images or calls that one run of a candidate takes.
        candidates: by name, what builds the function to time; `OURS` comes first. One that cannot
            be built or run here is left out, and the reason is noted.
        before: called before each run, and not timed.
    """

    part_id: str
    title: str
    unit: str
    amount: float
    candidates: Mapping[str, Callable[[], Callable[[], object]]]
    before: Callable[[], object] = lambda: None


def run(part: Part, rounds: int, clock: Callable[[], float] = time.perf_counter) -> dict[str, Any]:
    """Times every candidate once a round, after two rounds that do not count.

    Args:
        part: what to time.
        rounds: how often.
        clock: in seconds; `time.process_time` counts processor time, which other work on the
            machine lengthens less. It is fair to what runs on one thread alone: PyTorch's threads
            spin while they wait for each other.

    Returns:
        The part's facts, `seconds` by candidate, and `notes`.
    """
    runners, notes = {}, []
    for name, build in part.candidates.items():
        try:
            runner = build()
            for _ in range(2):  # the first compiles and fills caches
                part.before()
                runner()
            runners[name] = runner
        except Exception as error:
            if name == OURS:
                raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            notes.append(f"{name}: not available here ({reason[:160]})")
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, runner in runners.items():
            part.before()
            start = clock()
            runner()
            seconds[name].append(clock() - start)
    return result(part.part_id, part.title, part.unit, part.amount, seconds, notes)


def result(
    part_id: str,
    title: str,
    unit: str,
    amount: float,
    seconds: Mapping[str, list[float]],
    notes: list[str],
) -> dict[str, Any]:
    """Returns what is kept of a part; `run` makes it, and so can what times by other means."""
    return {
        "part_id": part_id,
        "title": title,
        "unit": unit,
        "amount": amount,
        "seconds": dict(seconds),
        "notes": notes,
    }


def in_unit(part: Mapping[str, Any], seconds: float) -> float:
    """Turns the seconds of one run into the part's unit."""
    if part["unit"] == "images/s":
        return part["amount"] / seconds
    return seconds / part["amount"] * {"ms": 1e3, "s": 1}[part["unit"]]


def rows(part: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns name, n, median and quartiles of each candidate, and how much faster we are."""
    table = []
    ours = part["seconds"].get(OURS)
    for name, seconds in part["seconds"].items():
        values = [in_unit(part, value) for value in seconds]
        row = {"name": name, "n": len(values), **_spread(values)}
        if ours and name != OURS:
            ratios = [theirs / mine for theirs, mine in zip(seconds, ours, strict=True)]
            row["ratio"] = _spread(ratios)
        table.append(row)
    return table


def best_peer(part: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the row of the peer that we lead by the least; our own variants are none."""
    return min(
        (row for row in rows(part) if "ratio" in row and not row["name"].startswith(OURS)),
        key=lambda row: row["ratio"]["median"],
        default=None,
    )


def _spread(values: list[float]) -> dict[str, float]:
    low, high = values[0], values[0]
    if len(values) > 1:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": statistics.median(values), "quartile_1": low, "quartile_3": high}
