"""The release criteria against the measurements, and the verdict."""

import json
import math
import operator
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from mnist_jax.release import each_class
from mnist_jax.release.intervals import of_one_among, wilson
from mnist_jax.release.records import (
    Criteria,
    Criterion,
    Metrics,
    Release,
    Run,
    Training,
    Verification,
)
from mnist_jax.release.shown import show_measured, show_threshold

COMPARE = {">=": operator.ge, "<=": operator.le, "<": operator.lt, "==": operator.eq}
BYTES_PER_MB = 1_000_000
# From this many test images on, a score without one error is more likely a leak than a feat.
NUM_EXAMPLES_TO_DOUBT_PERFECTION = 1000
MOST_EXAMPLES = 2**31  # no test split has as many; SciPy's intervals fail on far larger counts


def judge(
    criteria: Criteria,
    *,
    run: Run,
    metrics: Metrics,
    training: Training | None,
    verification: Verification | None,
) -> Release:
    """Compares each measurement with its criterion; what is missing or absurd never passes.

    The point estimate is what is compared; the interval beside it says how sure it is.

    Args:
        criteria: what is asked for.
        run: config.json whole.
        metrics: metrics.json whole; accuracies are computed again from its counts.
        training: None where the network was not trained here.
        verification: verification.json whole, or None where nothing was exported.

    Returns:
        release.json: the verdict, and the inputs other than `criteria`, unchanged. "released" if
        and only if every criterion passed.
    """
    problems = _contradictions(run, metrics, training, verification)
    failures = _verification_failures(metrics, verification)
    rows = [
        *_accuracy_rows(criteria, metrics),
        *_each_class_rows(criteria, metrics),
        *_leakage_rows(run),
        _row("metrics_consistent", not problems, "==", True, detail="\n".join(problems)),
        _row("verified", not failures, "==", True, detail="\n".join(failures)),
        _size_row(criteria, verification),
        _latency_row(criteria, verification),
    ]
    return {
        "verdict": "released" if all(row["passed"] for row in rows) else "refused",
        "reasons": [line for row in rows if not row["passed"] for line in _reasons(row)],
        "criteria": rows,
        "run": run,
        "metrics": metrics,
        "training": training,
        "verification": verification,
    }


def _row(
    name: str,
    measured: float | int | bool | None,
    rule: str,
    threshold: float | int | bool,
    *,
    unit: str = "",
    n: int | None = None,
    interval_95: list[float] | None = None,
    detail: str = "",
) -> Criterion:
    """One criterion; what was not measured fails, as NaN does: it compares false with all."""
    if interval_95 and rule == ">=" and interval_95[0] <= threshold <= interval_95[1]:
        doubt = f"the threshold lies inside the 95 % interval: n = {n} is too few to be sure"
        detail = f"{detail}; {doubt}" if detail else doubt
    return {
        "name": name,
        "measured": measured,
        "rule": rule,
        "threshold": threshold,
        "unit": unit,
        "n": n,
        "interval_95": interval_95,
        "detail": detail,
        "passed": measured is not None and COMPARE[rule](measured, threshold),
    }


def _reasons(row: Criterion) -> list[str]:
    """Why a criterion refused, and by how much; one line each."""
    name, measured, detail = row["name"], row["measured"], row["detail"]
    if isinstance(measured, bool):
        return [f"{name}: {line}" for line in detail.split("\n")]
    if measured is None:
        return [f"{name} was not measured: {detail}"]
    side = {">=": "below", "<=": "above", "<": "not below", "==": "not"}[row["rule"]]
    line = f"{name} {show_measured(row)} is {side} {show_threshold(row)}"
    if measured != row["threshold"] and row["rule"] != "==":
        line += f" by {abs(measured - row['threshold']):.3g} {row['unit']}".rstrip()
    return [f"{line}; {detail}" if detail else line]


def _accuracy_rows(criteria: Criteria, metrics: Metrics) -> list[Criterion]:
    """The criteria on the whole test set and on the worst class."""
    whole = _proportion(metrics)
    threshold, n = criteria.min_test_accuracy, whole["n"]
    is_small = n is not None and n < NUM_EXAMPLES_TO_DOUBT_PERFECTION
    if whole["measured"] == 1 and is_small:
        low = whole["interval_95"][0]
        whole["detail"] = f"without one error, but {n} images cannot tell 1 from {low:.4f}"
    rows = [_row("test_accuracy", rule=">=", threshold=threshold, **whole)]
    if not is_small:
        doubt = "without one error, look for test images among the training images"
        whole["detail"] = doubt if whole["measured"] == 1 else whole["detail"]
        rows.append(_row("test_accuracy_not_perfect", rule="<", threshold=1.0, **whole))
    classes = metrics.get("per_class")
    if not isinstance(classes, list) or not all(isinstance(row, dict) for row in classes):
        classes = []
    worst = _worst_class(classes)
    threshold = criteria.min_per_class_accuracy
    return [*rows, _row("worst_class_accuracy", rule=">=", threshold=threshold, **worst)]


def _each_class_rows(criteria: Criteria, metrics: Metrics) -> list[Criterion]:
    """The criteria on measures in which every class counts alike: those that are asked for."""
    rows = []
    for name in each_class.NAMES:
        threshold = getattr(criteria, f"min_{name}")
        if threshold > 0:
            facts: dict[str, Any] = {
                "n": metrics.get("num_examples"),
                "detail": "a class has no test image, or the number is absurd",
            }
            measured, given = None, {**metrics}
            with suppress(KeyError, TypeError, ValueError):
                low, high = given["intervals_95"][name]
                if 0 <= low <= given[name] <= high <= 1:
                    measured = given[name]
                    facts |= {"interval_95": [low, high], "detail": ""}
            rows.append(_row(name, measured, ">=", threshold, **facts))
    return rows


def _leakage_rows(run: Run) -> list[Criterion]:
    """The criterion on the user's own pictures: no test picture is in train or validation."""
    num_leaks = None
    with suppress(KeyError, TypeError):
        num_leaks = run["dataset"]["num_leaks"]
    if num_leaks is None:
        return []
    detail = "exact copies, after decoding; --config.drop_duplicates=true leaves them out"
    return [_row("no_leakage", num_leaks, "==", 0, detail=detail if num_leaks else "")]


def _worst_class(classes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The lowest accuracy as a row's measured, n, interval_95, detail; of equals, the least n."""
    rows = [(_proportion(row), row.get("class_name")) for row in classes]
    rows = rows or [(_proportion({}), None)]
    worst, name = min(
        rows,
        # A class that cannot be measured, having no examples say, is worse than any that can.
        key=lambda pair: (pair[0]["measured"], pair[0]["n"]) if pair[0]["n"] else (-1, 0),
    )
    if worst["n"]:
        num_correct = round(worst["measured"] * worst["n"])
        worst["interval_95"] = of_one_among(num_correct, worst["n"], len(rows))
    worst["detail"] = f"worst class: {name}"
    if worst["n"] and len(rows) > 1 and len({row["measured"] for row, _ in rows}) == 1:
        worst["detail"] = f"all classes alike; n and interval of the smallest, class {name}"
    return worst


def _are_counts(num_correct: int, num_examples: int) -> bool:
    return 0 <= num_correct <= num_examples and 0 < num_examples < MOST_EXAMPLES


def _proportion(counts: Mapping[str, Any]) -> dict[str, Any]:
    """num_correct of num_examples as a row's measured (0 to 1), n, interval_95 and detail."""
    num_correct, n = counts.get("num_correct"), counts.get("num_examples")
    if type(num_correct) is not int or type(n) is not int or not _are_counts(num_correct, n):
        absurd = f"num_correct {num_correct} of num_examples {n} is not a proportion"
        return {"measured": None, "n": None, "interval_95": None, "detail": absurd}
    interval = wilson(num_correct, n)
    return {"measured": num_correct / n, "n": n, "interval_95": interval, "detail": ""}


def _size_row(criteria: Criteria, verification: Verification | None) -> Criterion:
    """The ONNX file's size on disk."""
    size_mb, detail = None, "there is no ONNX file"
    with suppress(KeyError, TypeError):
        size_bytes = _given(verification)["files"]["onnx"]["size_bytes"]
        detail = f"{size_bytes} bytes; 1 MB is 10^6 bytes"
        size_mb = size_bytes / BYTES_PER_MB if size_bytes > 0 else None
    threshold = criteria.max_model_size_mb
    return _row("model_size_mb", size_mb, "<=", threshold, unit="MB", detail=detail)


def _latency_row(criteria: Criteria, verification: Verification | None) -> Criterion:
    """The ONNX file's latency: the 90th percentile of single images on one thread."""
    p90_ms, detail = None, "no ONNX file was timed"
    with suppress(KeyError, TypeError):
        timed = _given(verification)["latency"]
        detail = f"p90 of {timed['num_runs']} runs, batch {timed['batch_size']}, {timed['cpu']}"
        if timed["stable"] is not True:
            detail += "; the timing did not settle, measure again on a quiet machine"
        if 0 < timed["p50_ms"] <= timed["p90_ms"] <= timed["p99_ms"] < math.inf:
            p90_ms = timed["p90_ms"]
    threshold = criteria.max_inference_time_ms
    return _row("inference_time_ms", p90_ms, "<=", threshold, unit="ms", detail=detail)


def _given(verification: Verification | None) -> Mapping[str, Any]:
    """What a file holds that any program may have written, and so can lack any key."""
    return {} if verification is None else {**verification}


def _verification_failures(metrics: Metrics, verification: Verification | None) -> list[str]:
    """Why the files on disk are not proven, one line each; empty if they are."""
    if verification is None:
        return ["export was skipped, and a run without export is never a release"]
    try:
        accuracy, checks = verification["accuracy"], verification["checks"]
        in_file = f"{accuracy['num_correct_onnx']} of {accuracy['num_examples']}"
        tested = f"{metrics.get('num_correct')} of {metrics.get('num_examples')}"
        if verification["failures"]:
            return [" ".join(line.split()) for line in verification["failures"]]
        all_passed = all(row["passed"] is True for row in [verification, *checks])
        if not checks or not all_passed:
            return ["verification.json does not say that checks were made and all passed"]
        if accuracy["num_correct_onnx"] is None:
            return ["no ONNX file was verified"]
        if in_file != tested:
            return [f"the ONNX file gets {in_file} test images right, metrics.json says {tested}"]
    except (KeyError, TypeError) as error:
        return [f"verification.json is incomplete: {error!r}"]
    return []


def _contradictions(run: Run, metrics: Metrics, *others: Any) -> list[str]:
    """What the measurements say that cannot be true of one test set, one line each."""
    try:
        json.dumps([run, metrics, others], allow_nan=False)
        classes = metrics["per_class"]
        n, num_correct = metrics["num_examples"], metrics["num_correct"]
        counts = [(row["num_examples"], row["num_correct"]) for row in classes]
        diagonal = [(sum(row), row[i]) for i, row in enumerate(metrics["confusion_matrix"])]
        totals = [sum(column) for column in zip(*counts, strict=True)]
        names = [row["class_name"] for row in classes]
        gap = abs(metrics["accuracy"] - num_correct / n)
        claims = {
            "the split is not test": metrics["split"] == "test",
            "accuracy is not num_correct / num_examples": gap < 1e-6,
            "per_class does not add up to the test set": totals == [n, num_correct],
            "confusion_matrix and per_class differ": diagonal == counts,
            "class_names and per_class differ": names == metrics["class_names"],
            **_each_class_claims(metrics),
            "loss is negative": metrics["loss"] >= 0 or "criterion_id" in run.get("own_code", {}),
            "calibration error out of 0 to 1": 0 <= metrics["expected_calibration_error"] <= 1,
        }
    except (LookupError, TypeError, ValueError, ZeroDivisionError) as error:
        return [f"a number is missing or not finite: {error!r}"]
    return [line for line, holds in claims.items() if not holds]


def _each_class_claims(metrics: Metrics) -> dict[str, bool]:
    """What the measures in which every class counts alike claim, where they are there."""
    confusions = np.array(metrics["confusion_matrix"])
    measures = {"balanced_accuracy": each_class.balanced_accuracy, "macro_f1": each_class.macro_f1}
    return {
        f"{name} is not that of confusion_matrix": abs(metrics[name] - of(confusions)[0]) < 1e-6
        for name, of in measures.items()
        if metrics.get(name) is not None
    }
