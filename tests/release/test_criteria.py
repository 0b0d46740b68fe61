import copy
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import beta
from sklearn.metrics import confusion_matrix

from mnist_jax.release import criteria as release
from mnist_jax.release import each_class, shown
from mnist_jax.release.intervals import wilson
from mnist_jax.release.records import Criteria

CONFIG = {
    "min_test_accuracy": 0.97,
    "min_per_class_accuracy": 0.90,
    "max_model_size_mb": 10.0,
    "max_inference_time_ms": 50.0,
}
MATRIX = [[975, 3, 2], [4, 1130, 1], [9, 11, 1012]]  # row: true class
RUN = {"config_hash": "ab"}
TRAINING = {"best_epoch": 4, "num_epochs": 5, "seconds": 60.5, "images_per_s": 4200.0}


def make_metrics(matrix=MATRIX):
    matrix = np.array(matrix)
    correct, totals = matrix.diagonal(), matrix.sum(axis=1)
    names = [f"class {i}" for i in range(len(matrix))]
    return {
        "split": "test",
        "num_examples": int(totals.sum()),
        "num_correct": int(correct.sum()),
        "accuracy": float(correct.sum() / totals.sum()),
        "loss": 0.03,
        "expected_calibration_error": 0.004,
        "class_names": names,
        "per_class": [
            {
                "class_name": name,
                "num_examples": int(n),
                "num_correct": int(k),
                "accuracy": k / max(n, 1),
            }
            for name, n, k in zip(names, totals, correct, strict=True)
        ],
        "confusion_matrix": matrix.tolist(),
    }


def make_verification(metrics):
    return {
        "passed": True,
        "failures": [],
        "checks": [{"name": "onnx: checker", "passed": True, "detail": "full"}],
        "files": {"onnx": {"path": "models/mnist_model.onnx", "size_bytes": 4_803_211}},
        "parity": [{"max_abs_difference": 1e-7, "num_class_disagreements": 0}],
        "accuracy": {
            "num_correct_onnx": metrics["num_correct"],
            "num_examples": metrics["num_examples"],
        },
        "latency": {
            "batch_size": 1,
            "p50_ms": 0.11,
            "p90_ms": 0.12,
            "p99_ms": 0.2,
            "num_runs": 3000,
            "stable": True,
            "cpu": "a CPU",
        },
    }


def judge(metrics=None, verification="as measured", run=RUN, **changes):
    metrics = make_metrics() if metrics is None else metrics
    if verification == "as measured":
        verification = make_verification(metrics)
    return release.judge(
        Criteria(**CONFIG | changes),
        run=run,
        metrics=metrics,
        training=TRAINING,
        verification=verification,
    )


def row_of(verdict, name):
    return next(row for row in verdict["criteria"] if row["name"] == name)


def printed(verdict):
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(shown.table(verdict))
    return capture.get().splitlines()


def test_a_good_run_is_released_with_every_criterion_measured():
    verdict = judge()
    assert (verdict["verdict"], verdict["reasons"]) == ("released", [])
    assert [row["name"] for row in verdict["criteria"]] == [
        *("test_accuracy", "test_accuracy_not_perfect", "worst_class_accuracy"),
        *("metrics_consistent", "verified", "model_size_mb", "inference_time_ms"),
    ]
    keys = {"name", "measured", "rule", "threshold", "unit", "n", "interval_95", "passed", "detail"}
    assert all(row.keys() == keys and row["passed"] is True for row in verdict["criteria"])
    accuracy = row_of(verdict, "test_accuracy")
    assert accuracy["measured"] == 3117 / 3147
    assert accuracy["n"] == 3147
    assert accuracy["interval_95"][0] < accuracy["measured"] < accuracy["interval_95"][1]
    assert row_of(verdict, "model_size_mb")["measured"] == pytest.approx(4.803211)
    assert row_of(verdict, "inference_time_ms")["measured"] == 0.12


def test_a_good_run_word_for_word():
    """What people and other programs read; a change here is a change of the interface."""

    def row(name, measured, rule, threshold, unit="", n=None, interval=None, detail=""):
        return {
            "name": name,
            "measured": measured,
            "rule": rule,
            "threshold": threshold,
            "unit": unit,
            "n": n,
            "interval_95": interval,
            "detail": detail,
            "passed": True,
        }

    accuracy, whole = 3117 / 3147, wilson(3117, 3147)
    assert judge()["criteria"] == [
        row("test_accuracy", accuracy, ">=", 0.97, n=3147, interval=whole),
        row("test_accuracy_not_perfect", accuracy, "<", 1.0, n=3147, interval=whole),
        row(
            *("worst_class_accuracy", 1012 / 1032, ">=", 0.9, "", 1032),
            pytest.approx([0.967730, 0.989415], abs=1e-6),
            "worst class: class 2",
        ),
        row("metrics_consistent", True, "==", True),
        row("verified", True, "==", True),
        row(
            *("model_size_mb", 4.803211, "<=", 10.0),
            unit="MB",
            detail="4803211 bytes; 1 MB is 10^6 bytes",
        ),
        row(
            *("inference_time_ms", 0.12, "<=", 50.0),
            unit="ms",
            detail="p90 of 3000 runs, batch 1, a CPU",
        ),
    ]


def test_judging_changes_none_of_its_inputs_and_hands_them_on():
    metrics = make_metrics()
    verification = make_verification(metrics)
    before = copy.deepcopy((metrics, verification))
    verdict = judge(metrics, verification)
    assert (metrics, verification) == before
    assert verdict["metrics"] is metrics
    assert verdict["verification"] is verification
    assert verdict["training"] is TRAINING
    assert verdict["run"] is RUN
    assert json.loads(json.dumps(verdict, allow_nan=False)) == verdict


def test_the_worst_class_is_named_with_its_own_count():
    row = row_of(judge(), "worst_class_accuracy")
    assert row["detail"] == "worst class: class 2"
    assert (row["measured"], row["n"]) == (1012 / 1032, 1032)


@pytest.mark.parametrize(
    ("matrix", "n", "detail"),
    [
        (
            [[9, 0, 0], [0, 7, 0], [0, 0, 8]],
            7,
            "all classes alike; n and interval of the smallest, class class 1",
        ),
        ([[9, 0], [0, 7]], 7, "all classes alike; n and interval of the smallest, class class 1"),
        ([[9, 1, 0], [1, 4, 0], [0, 2, 8]], 5, "worst class: class 1"),  # 0.9, 0.8, 0.8
    ],
)
def test_of_equally_bad_classes_the_smallest_counts(matrix, n, detail):
    row = row_of(judge(make_metrics(matrix), min_per_class_accuracy=0.0), "worst_class_accuracy")
    assert (row["n"], row["detail"]) == (n, detail)
    num_correct = round(row["measured"] * n)  # Clopper and Pearson, through the beta distribution
    low = beta.ppf(0.025 / len(matrix), num_correct, n - num_correct + 1) if num_correct else 0
    high = (
        beta.ppf(1 - 0.025 / len(matrix), num_correct + 1, n - num_correct)
        if num_correct < n
        else 1
    )
    assert row["interval_95"] == pytest.approx([low, high])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"min_test_accuracy": 0.9999}, "test_accuracy 0.9905 is below 0.9999 by 0.00943"),
        (
            {"min_per_class_accuracy": 0.99},
            "worst_class_accuracy 0.9806 is below 0.99 by 0.00938; worst class: class 2",
        ),
        (
            {"max_model_size_mb": 4.8},
            "model_size_mb 4.803 MB is above 4.8 MB by 0.00321 MB; 4803211 bytes; "
            "1 MB is 10^6 bytes",
        ),
        (
            {"max_inference_time_ms": 0.1},
            "inference_time_ms 0.120 ms is above 0.1 ms by 0.02 ms; p90 of 3000 runs, batch 1, "
            "a CPU",
        ),
    ],
)
def test_a_refusal_says_which_criterion_and_by_how_much(changes, reason):
    verdict = judge(**changes)
    assert verdict["verdict"] == "refused"
    assert verdict["reasons"] == [reason]


def with_each_class(scores, labels):
    """Metrics whose means over the classes are those of some scores."""
    confusions = confusion_matrix(labels, scores.argmax(axis=1))
    return make_metrics(confusions) | each_class.measure(scores, labels)


@pytest.fixture
def uneven():
    """Nine tenths of one class, and scores that are mostly right."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], [540, 60])
    second = np.clip(labels * 0.4 + random.normal(0.3, 0.15, 600), 0, 1)
    return with_each_class(np.stack([1 - second, second], axis=1), labels)


@pytest.mark.parametrize("name", each_class.NAMES)
def test_a_mean_over_the_classes_is_a_criterion_where_it_is_asked_for(uneven, name):
    lenient = {"min_test_accuracy": 0.0, "min_per_class_accuracy": 0.0}
    measured, (low, high) = uneven[name], uneven["intervals_95"][name]
    asked = f"min_{name}"
    assert 0 < low < measured < high < 1
    assert judge(uneven, **lenient)["verdict"] == "released"
    assert name not in [row["name"] for row in judge(uneven, **lenient)["criteria"]]
    row = row_of(judge(uneven, **lenient | {asked: low / 2}), name)
    assert (row["measured"], row["n"], row["passed"]) == (measured, 600, True)
    assert row["interval_95"] == [low, high] and row["detail"] == ""
    verdict = judge(uneven, **lenient | {asked: (measured + high) / 2})
    assert verdict["verdict"] == "refused"
    assert verdict["reasons"][0].startswith(f"{name} {measured:.4f} is below")
    assert "the threshold lies inside the 95 % interval" in verdict["reasons"][0]


@pytest.mark.parametrize("name", each_class.NAMES)
@pytest.mark.parametrize("value", [None, 1.5, -0.1, math.nan, "high", True])
def test_a_mean_over_the_classes_that_is_missing_or_absurd_never_passes(uneven, name, value):
    asked = {"min_test_accuracy": 0.0, "min_per_class_accuracy": 0.0, f"min_{name}": 0.01}
    for metrics in (uneven | {name: value}, uneven | {"intervals_95": {name: [value, 1]}}):
        verdict = judge(metrics, **asked)
        assert verdict["verdict"] == "refused"
        reason = f"{name} was not measured: a class has no test image, or the number is absurd"
        assert reason in verdict["reasons"]
    del uneven[name]
    assert row_of(judge(uneven, **asked), name)["passed"] is False


@pytest.mark.parametrize("name", ["balanced_accuracy", "macro_f1"])
def test_a_mean_that_is_not_of_the_counts_is_a_contradiction(uneven, name):
    verdict = judge(uneven | {name: 0.99}, min_test_accuracy=0.0, min_per_class_accuracy=0.0)
    reason = f"metrics_consistent: {name} is not that of confusion_matrix"
    assert verdict["reasons"] == [reason]


def test_a_mean_without_an_error_passes_its_criterion():
    scores = np.eye(2, dtype=np.float32)[np.repeat([0, 1], 500)]
    verdict = judge(with_each_class(scores, np.repeat([0, 1], 500)), min_auc=0.9)
    row = row_of(verdict, "auc")
    assert (row["measured"], row["interval_95"][1], row["passed"]) == (1, 1, True)


def test_a_test_picture_in_another_split_refuses():
    assert "no_leakage" not in [row["name"] for row in judge()["criteria"]]  # not own pictures
    clean = judge(run=RUN | {"dataset": {"num_leaks": 0}})
    assert clean["verdict"] == "released"
    row = row_of(clean, "no_leakage")
    assert (row["measured"], row["rule"], row["threshold"], row["detail"]) == (0, "==", 0, "")
    verdict = judge(run=RUN | {"dataset": {"num_leaks": 3}})
    assert verdict["verdict"] == "refused"
    assert row_of(verdict, "no_leakage")["measured"] == 3
    assert verdict["reasons"] == [
        "no_leakage 3 is not 0; exact copies, after decoding; "
        "--config.drop_duplicates=true leaves them out"
    ]


def test_the_means_are_shown_beside_what_a_blind_answer_gets(uneven):
    line = shown.each_class(uneven)
    low, high = uneven["intervals_95"]["auc"]
    assert f"AUC {uneven['auc']:.4f} ({low:.4f} to {high:.4f})" in line
    assert "answering class 0 to all would be right for 0.9000" in line
    assert "THE MODEL" not in line
    blind = with_each_class(np.tile([0.9, 0.1], (600, 1)), np.repeat([0, 1], [540, 60]))
    assert shown.each_class(blind).endswith("THE MODEL ANSWERS class 0 TO ALL")
    assert "balanced accuracy 0.5000" in shown.each_class(blind)


def test_a_threshold_is_met_exactly():
    assert judge(min_test_accuracy=3117 / 3147, max_inference_time_ms=0.12)["verdict"] == "released"


def test_a_threshold_within_the_interval_is_said_whatever_the_verdict():
    for threshold, passed in ((0.989, True), (0.992, False)):
        row = row_of(judge(min_test_accuracy=threshold), "test_accuracy")
        assert row["passed"] is passed
        doubt = "the threshold lies inside the 95 % interval: n = 3147 is too few to be sure"
        assert row["detail"] == doubt
    worst = row_of(judge(min_per_class_accuracy=0.975), "worst_class_accuracy")
    assert worst["detail"].startswith(
        "worst class: class 2; the threshold lies inside the 95 % interval: n = "
    )


@pytest.mark.parametrize(
    ("matrix", "verdict"),
    [
        ([[500, 0], [0, 500]], "refused"),
        ([[500, 0], [1, 499]], "released"),
        ([[500, 0], [0, 499]], "released"),  # 999 images: a perfect score is believable
    ],
)
def test_a_perfect_score_on_thousands_is_suspicious(matrix, verdict):
    judged = judge(make_metrics(matrix))
    assert judged["verdict"] == verdict
    if matrix == [[500, 0], [0, 499]]:
        said = "without one error, but 999 images cannot tell 1 from 0.9962"
        assert row_of(judged, "test_accuracy")["detail"] == said
    if verdict == "refused":
        assert judged["reasons"] == [
            "test_accuracy_not_perfect 1.0000 is not below 1; without one error, look for test "
            "images among the training images"
        ]


def test_a_run_without_export_is_never_a_release():
    skipped = "verified: export was skipped, and a run without export is never a release"
    verdict = judge(verification=None)
    assert verdict["verdict"] == "refused"
    assert verdict["reasons"] == [
        skipped,
        "model_size_mb was not measured: there is no ONNX file",
        "inference_time_ms was not measured: no ONNX file was timed",
    ]


@pytest.mark.parametrize(
    ("change", "patterns"),
    [
        ({"passed": False, "failures": ["a", "b"]}, ["verified: a", "verified: b"]),
        ({"failures": [""]}, ["verified: "]),
        ({"passed": False, "failures": ["a\n  b"]}, ["verified: a b$"]),
        ({"passed": False}, ["verified: .* does not say that checks were made and all passed"]),
        ({"passed": "yes"}, ["verified: .* does not say"]),
        ({"checks": []}, ["verified: .* does not say"]),
        ({"checks": [{"name": "x", "passed": False}]}, ["verified: .* does not say"]),
        (
            {"accuracy": {"num_correct_onnx": 3116, "num_examples": 3147}},
            [
                r"verified: the ONNX file gets 3116 of 3147 test images right, metrics\.json says "
                r"3117 of 3147$"
            ],
        ),
        (
            {"accuracy": {"num_correct_onnx": None, "num_examples": 3147}},
            ["verified: no ONNX file was verified$"],
        ),
        ({"checks": None}, ["verified: verification.json is incomplete: TypeError"]),
    ],
)
def test_a_file_that_is_not_proven_is_refused(change, patterns):
    verdict = judge(verification=make_verification(make_metrics()) | change)
    assert verdict["verdict"] == "refused"
    for line, pattern in zip(verdict["reasons"], patterns, strict=True):
        assert re.match(pattern, line)


def test_a_latency_that_did_not_settle_is_said():
    verification = make_verification(make_metrics())
    verification["latency"]["stable"] = False
    verdict = judge(verification=verification)
    assert verdict["verdict"] == "released"
    assert "did not settle" in row_of(verdict, "inference_time_ms")["detail"]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("accuracy", 0.99, "accuracy is not num_correct / num_examples"),
        ("num_correct", 3000, "per_class does not add up"),
        ("split", "train", "the split is not test"),
        ("loss", -0.1, "loss is negative"),
        ("loss", math.nan, "a number is missing or not finite: ValueError"),
        ("expected_calibration_error", 1.5, "calibration error out of 0 to 1"),
        ("class_names", ["a", "b", "c"], "class_names and per_class differ"),
        ("confusion_matrix", [[1, 0], [0, 1]], "confusion_matrix and per_class differ"),
        ("num_examples", 0, "a number is missing or not finite: ZeroDivisionError"),
        ("num_examples", None, "a number is missing or not finite: TypeError"),
    ],
)
def test_metrics_that_cannot_be_true_are_refused(key, value, reason):
    verdict = judge(make_metrics() | {key: value})
    assert verdict["verdict"] == "refused"
    assert any(line.startswith(f"metrics_consistent: {reason}") for line in verdict["reasons"])


def test_a_loss_of_one_s_own_can_be_negative():
    run = RUN | {"own_code": {"criterion_id": {"reference": "own.py:loss", "sha256": "0"}}}
    assert judge(make_metrics() | {"loss": -0.1}, run=run)["verdict"] == "released"


def test_a_loss_of_zero_is_possible():
    assert judge(make_metrics() | {"loss": 0.0})["verdict"] == "released"


@pytest.mark.parametrize("key", make_metrics())
def test_a_metric_that_is_missing_is_refused(key):
    metrics = make_metrics()
    verification = make_verification(metrics)
    del metrics[key]
    assert judge(metrics, verification)["verdict"] == "refused"


def test_a_class_without_examples_is_refused():
    verdict = judge(make_metrics([[499, 1], [0, 0]]))
    assert verdict["reasons"] == ["worst_class_accuracy was not measured: worst class: class 1"]
    assert row_of(verdict, "worst_class_accuracy") == {
        "name": "worst_class_accuracy",
        "measured": None,
        "rule": ">=",
        "threshold": 0.9,
        "unit": "",
        "n": None,
        "interval_95": None,
        "detail": "worst class: class 1",
        "passed": False,
    }


@pytest.mark.parametrize(("size_bytes", "measured"), [(-1, None), (0, None), (1, 1e-6)])
def test_a_file_of_no_bytes_has_no_size_that_counts(size_bytes, measured):
    verification = make_verification(make_metrics())
    verification["files"]["onnx"]["size_bytes"] = size_bytes
    assert row_of(judge(verification=verification), "model_size_mb")["measured"] == measured


def paths_of_numbers(tree, path=()):
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return [found for key, value in items for found in paths_of_numbers(value, (*path, key))]
    return [path] if isinstance(tree, int | float) and not isinstance(tree, bool) else []


def inputs():
    metrics = make_metrics()
    return {
        "config": dict(CONFIG),
        "metrics": metrics,
        "training": dict(TRAINING),
        "verification": make_verification(metrics),
    }


@pytest.mark.parametrize("path", paths_of_numbers(inputs()), ids=str)
def test_nan_anywhere_refuses(path):
    for value in (math.nan, -math.inf):
        arguments = inputs()
        place = arguments
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        criteria = Criteria(**arguments.pop("config"))
        if path[0] != "config" or math.isnan(value):
            assert release.judge(criteria, run={}, **arguments)["verdict"] == "refused"


accuracies = st.floats(0, 1)
matrices = (
    st.integers(2, 5)
    .flatmap(
        lambda size: st.lists(
            st.lists(st.integers(0, 1200), min_size=size, max_size=size),
            min_size=size,
            max_size=size,
        )
    )
    .filter(lambda matrix: all(sum(row) for row in matrix))
)


@settings(deadline=None)
@given(matrices, accuracies, accuracies, st.booleans(), st.integers(-10, 20_000_000))
def test_released_means_that_every_criterion_passed(matrix, total, per_class, passed, size_bytes):
    metrics = make_metrics(matrix)
    verification = make_verification(metrics) | {"passed": passed}
    verification["files"]["onnx"]["size_bytes"] = size_bytes
    verdict = judge(
        metrics, verification, min_test_accuracy=total, min_per_class_accuracy=per_class
    )
    is_released = verdict["verdict"] == "released"
    assert is_released == all(row["passed"] for row in verdict["criteria"])
    assert is_released == (not verdict["reasons"])
    n, num_correct = metrics["num_examples"], metrics["num_correct"]
    assert is_released == (
        num_correct / n >= total
        and not (n >= 1000 and num_correct == n)
        and min(row["accuracy"] for row in metrics["per_class"]) >= per_class
        and passed
        and 0 < size_bytes <= 10_000_000
    )


@settings(deadline=None)
@given(
    matrices,
    st.sampled_from(["min_test_accuracy", "min_per_class_accuracy"]),
    accuracies,
    accuracies,
)
def test_raising_a_threshold_never_releases(matrix, key, one, other):
    low, high = sorted([one, other])
    lenient = {"min_test_accuracy": 0.0, "min_per_class_accuracy": 0.0}
    verdicts = [judge(make_metrics(matrix), **lenient | {key: value}) for value in (low, high)]
    assert (verdicts[0]["verdict"], verdicts[1]["verdict"]) != ("refused", "released")


@settings(deadline=None)
@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_the_published_formula(counts):
    num_correct, n = counts
    z, p = 1.959963984540054, num_correct / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = wilson(num_correct, n)
    assert low == pytest.approx(max(0, centre - half), abs=1e-9)
    assert high == pytest.approx(min(1, centre + half), abs=1e-9)
    assert 0 <= low <= p <= high <= 1


@pytest.mark.parametrize(
    ("measured", "rule", "threshold", "unit", "expected"),
    [
        (0.9925, ">=", 0.97, "", ("0.9925", ">= 0.97")),
        (1.0, ">=", 0.97, "", ("1.0000", ">= 0.97")),
        (0.97, ">=", 0.97, "", ("0.9700", ">= 0.97")),
        (0.969983, ">=", 0.97, "", ("0.969983", ">= 0.97")),
        (0.96996, ">=", 0.96998, "", ("0.969960", ">= 0.96998")),  # 0.9700 would look passed
        (0.999983, "<", 1.0, "", ("0.999983", "< 1")),
        (0.39412, "<=", 50.0, "ms", ("0.394 ms", "<= 50 ms")),
        (50.0001, "<=", 50.0, "ms", ("50.000100 ms", "<= 50 ms")),
        (4.801642, "<=", 10, "MB", ("4.802 MB", "<= 10 MB")),
        (None, "<=", 10.0, "MB", ("not measured", "<= 10 MB")),
        (True, "==", True, "", ("yes", "must hold")),
        (False, "==", True, "", ("no", "must hold")),
    ],
)
def test_numbers_are_shown_alike_but_never_so_that_the_verdict_looks_wrong(
    measured, rule, threshold, unit, expected
):
    row = {"measured": measured, "rule": rule, "threshold": threshold, "unit": unit}
    assert (shown.show_measured(row), shown.show_rule(row)) == expected


def test_the_table_has_failures_first_and_the_verdict_last_in_80_columns():
    lines = printed(judge(verification=None, min_test_accuracy=0.9999))
    words = [line.split()[0] for line in lines[1:8]]
    assert words == ["FAIL"] * 4 + ["pass"] * 3
    assert lines[1].split()[1] == "test_accuracy"
    assert "- test_accuracy 0.9905 is below 0.9999 by 0.00943" in [line.rstrip() for line in lines]
    assert lines[-1].strip() == "REFUSED: 4 of 7 criteria failed"
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    assert any(
        line.split() == ["pass", "verified", "yes", "must", "hold"] for line in printed(judge())
    )
    assert printed(judge())[-1].strip() == "RELEASED: all 7 criteria passed"


def test_the_table_of_a_release_line_by_line():
    assert [line.rstrip() for line in printed(judge())] == [
        "     criterion                 measured rule      n    95 % interval",
        "pass test_accuracy             0.9905   >= 0.97   3147 0.9864 to 0.9933",
        "pass test_accuracy_not_perfect 0.9905   < 1       3147 0.9864 to 0.9933",
        "pass worst_class_accuracy      0.9806   >= 0.9    1032 0.9677 to 0.9894",
        "pass metrics_consistent        yes      must hold",
        "pass verified                  yes      must hold",
        "pass model_size_mb             4.803 MB <= 10 MB",
        "pass inference_time_ms         0.120 ms <= 50 ms",
        "- worst_class_accuracy: worst class: class 2",
        "- model_size_mb: 4803211 bytes; 1 MB is 10^6 bytes",
        "- inference_time_ms: p90 of 3000 runs, batch 1, a CPU",
        "RELEASED: all 7 criteria passed",
    ]


RED, GREEN, DIM = "\x1b[31m", "\x1b[32m", "\x1b[2m"
BOLD_RED, BOLD_GREEN = "\x1b[1;31m", "\x1b[1;32m"


@pytest.mark.parametrize(
    ("verdict", "colours"),
    [
        (judge(), {"pass": GREEN, "worst_class_accuracy:": DIM, "RELEASED": BOLD_GREEN}),
        (
            judge(min_test_accuracy=0.9999),
            {
                "FAIL": RED,
                "test_accuracy 0.9905 is": RED,
                "worst_class_accuracy:": DIM,
                "REFUSED": BOLD_RED,
            },
        ),
    ],
    ids=["released", "refused"],
)
def test_what_failed_is_red_and_remarks_are_dim(verdict, colours):
    console = Console(width=80, color_system="standard", force_terminal=True, no_color=False)
    with console.capture() as capture:
        console.print(shown.table(verdict))
    for start, colour in colours.items():
        assert f"{colour}{start}" in capture.get()
    assert f"{RED}pass" not in capture.get()


def test_the_table_shows_a_class_name_that_looks_like_markup():
    metrics = make_metrics()
    metrics["class_names"][2] = metrics["per_class"][2]["class_name"] = "[red]shirt[/blue]"
    assert any("[red]shirt[/blue]" in line for line in printed(judge(metrics)))


@pytest.mark.parametrize(
    ("num_correct", "num_examples", "is_proportion"),
    [
        *((0, 1, True), (1, 1, True), (1, 2**31 - 1, True)),
        *((0, 0, False), (2, 1, False), (-1, 5, False), (1, 2**31, False), (True, 1, False)),
    ],
)
def test_which_counts_make_a_proportion(num_correct, num_examples, is_proportion):
    counts = {"num_correct": num_correct, "num_examples": num_examples}
    row = release._proportion(counts)
    if is_proportion:
        assert row["measured"] == num_correct / num_examples
    else:
        assert row["measured"] is row["n"] is row["interval_95"] is None
        assert row["detail"].endswith(f" of num_examples {num_examples} is not a proportion")
