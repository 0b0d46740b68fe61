import math

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from scipy.optimize import brentq
from scipy.stats import binom, multinomial, norm

from mnist_jax.data import Split
from mnist_jax.release import compare, latency


def tango(num_gained, num_lost, n):
    """Tango's 1998 score interval, found by solving his equation: another method than ours."""
    z = norm.ppf(0.975)

    def score(difference):
        a = 2 * n
        b = -num_gained - num_lost + (2 * n - num_gained + num_lost) * difference
        c = -num_lost * difference * (1 - difference)
        lost = (math.sqrt(b * b - 4 * a * c) - b) / (2 * a)
        variance = n * (2 * lost + difference * (1 - difference))
        return (num_gained - num_lost - n * difference) / math.sqrt(variance)

    middle = (num_gained - num_lost) / n
    return [
        brentq(lambda d: score(d) - z, -1 + 1e-9, middle - 1e-9),
        brentq(lambda d: score(d) + z, middle + 1e-9, 1 - 1e-9),
    ]


@pytest.mark.parametrize(
    ("num_gained", "num_lost", "n"),
    [(40, 30, 10_000), (5, 9, 360), (12, 8, 360), (250, 310, 10_000)],
)
def test_the_interval_is_close_to_another_methods(num_gained, num_lost, n):
    ours, other = compare.paired_interval(num_gained, num_lost, n), tango(num_gained, num_lost, n)
    width = other[1] - other[0]
    assert ours == pytest.approx(other, abs=0.08 * width)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Exactly, over all outcomes that have any weight: no simulation."""
    n, gain, loss = 360, 0.02, 0.03
    covered = total = 0.0
    for num_gained in range(30):
        for num_lost in range(40):
            counts = [num_gained, num_lost, n - num_gained - num_lost]
            weight = multinomial.pmf(counts, n, [gain, loss, 1 - gain - loss])
            low, high = compare.paired_interval(num_gained, num_lost, n)
            covered += weight * (low <= gain - loss <= high)
            total += weight
    assert total > 0.9999
    assert 0.94 < covered < 0.97


def test_beyond_chance_is_what_mcnemars_exact_test_calls_so():
    n = 10_000
    for num_lost in (0, 5, 30, 200):
        for num_gained in range(num_lost, num_lost + 80):
            low, _ = compare.paired_interval(num_gained, num_lost, n)
            p = 2 * binom.sf(num_gained - 1, num_gained + num_lost, 0.5)
            if p < 0.02:
                assert low > 0
            if p > 0.1:
                assert low < 0


@given(st.integers(1, 1000).flatmap(lambda n: st.tuples(st.just(n), *[st.integers(0, n // 2)] * 2)))
def test_the_interval_turns_round_with_the_models_and_holds_the_difference(counts):
    n, gained, lost = counts
    low, high = compare.paired_interval(gained, lost, n)
    assert compare.paired_interval(lost, gained, n) == pytest.approx([-high, -low])
    assert -1 <= low < high <= 1
    assert low <= (gained - lost) / (n + 2) <= high


def comparison(low, ratio):
    return {
        "interval_95": [low, low + 0.01],
        "latency": {"ratio": ratio},
        "num_examples": 10_000,
    }


@pytest.mark.parametrize(
    ("low", "ratio", "is_promoted", "reason"),
    [
        (0.001, 1.0, True, "it is more accurate beyond chance"),
        (-0.004, 0.5, True, "it is faster"),
        (0.001, 0.8, True, "it is more accurate beyond chance and faster"),
        (-0.001, 1.0, False, "it is neither more accurate beyond chance nor faster"),
        (0.0, 0.81, False, "it is neither"),
        (-0.006, 0.5, False, "10,000 test images do not exclude that it is less"),
        (-0.014, 1.0, False, "10,000 test images do not exclude that it is less"),
        (-0.016, 1.0, False, "it is less accurate by more than 0.005"),
        (-0.005, 0.5, True, "it is faster"),
        (0.01, 1.25, False, "it takes 1.25 times as long"),
        (0.01, 1.3, False, "it takes 1.30 times as long"),
        (
            *(-0.01, 2.0, False),
            "10,000 test images do not exclude that it is less accurate by more than 0.005 and it "
            "takes 2.00 times as long",
        ),
        (
            *(-0.02, 2.0, False),
            "it is less accurate by more than 0.005 and it takes 2.00 times as long",
        ),
    ],
)
def test_better_in_one_and_worse_in_neither(low, ratio, is_promoted, reason):
    found, said = compare.judge(comparison(low, ratio))
    assert found is is_promoted and said.startswith(reason)


def threshold_model(path, weight, bias):
    """Class 1 where weight * brightness + bias > 0, else class 0."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["scores"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 28, 28])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])
    constants = [
        helper.make_tensor("w", TensorProto.FLOAT, [1, 2], [0, weight]),
        helper.make_tensor("b", TensorProto.FLOAT, [2], [0, bias]),
    ]
    graph = helper.make_graph(nodes, "threshold", [image], [scores], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.fixture
def short_rounds(monkeypatch):
    monkeypatch.setattr(latency, "NUM_ROUNDS", 4)
    monkeypatch.setattr(latency, "ROUND_S", 0.001)


def test_two_files_are_counted_image_by_image(tmp_path, short_rounds):
    grey = np.arange(0, 250, dtype=np.uint8)  # more images than a batch takes
    test = Split(
        np.broadcast_to(grey[:, None, None], (250, 28, 28)).copy(), (grey >= 100) * np.uint8(1)
    )
    test = Split(np.concatenate([test.images] * 2), np.concatenate([test.labels] * 2))
    sharp = threshold_model(tmp_path / "sharp.onnx", 255, -99.5)
    late = threshold_model(tmp_path / "late.onnx", 255, -119.5)
    found = compare.compare(late, sharp, test)
    assert found["num_examples"] == 500
    assert found["champion_accuracy"] == 1
    assert (found["num_gained"], found["num_lost"], found["num_other_class"]) == (0, 40, 40)
    assert found["interval_95"] == compare.paired_interval(0, 40, 500)
    assert found["difference"] == pytest.approx(-40 / 500) == found["accuracy"] - 1
    assert compare.compare(sharp, late, test)["num_gained"] == 40
    scores = compare.score(sharp, test.images)
    assert scores.shape == (500, 2) and scores.dtype == np.float32
    np.testing.assert_allclose(scores[:, 1], np.float64(test.images[:, 0, 0]) - 99.5, atol=1e-3)
