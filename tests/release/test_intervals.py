"""What is called a 95 % interval holds the truth in 95 % of the cases: by simulation.

An interval of counts cannot do so at each single accuracy: counts are whole numbers, and coverage
jumps between, say, 92 and 98 % as the accuracy moves. So accuracies are drawn at random over a
range, and what is held to 94 to 96.5 % is the average over it.
"""

import functools
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from scipy.stats import binomtest, norm

from mnist_jax.release import criteria as release
from mnist_jax.release import intervals
from mnist_jax.release.records import Criteria

BAND = (0.94, 0.965)
NUM_DRAWS = 10_000  # so that the simulation's own error is 0.2 percentage points
NUM_CLASSES = 10


@pytest.fixture
def remembered(monkeypatch):
    """Works an interval out once for each count, of which thousands of draws have but dozens."""
    for name in ("wilson", "of_one_among"):
        remembering = functools.cache(getattr(intervals, name))
        for module in (intervals, release):  # the criteria have these by names of their own
            monkeypatch.setattr(module, name, remembering)
    quantile = functools.cache(stats.t.ppf)
    monkeypatch.setattr(stats, "t", SimpleNamespace(ppf=quantile))


@pytest.mark.parametrize("n", [1, 7, 360, 10_000])
def test_the_interval_of_wilson_is_scipys(n):
    assert norm.ppf(0.975) == intervals.Z
    for num_correct in {0, 1, n // 3, n - 1, n}:
        exact = binomtest(num_correct, n).proportion_ci(0.95, method="wilson")
        assert intervals.wilson(num_correct, n) == pytest.approx([exact.low, exact.high], rel=1e-14)
    low, high = intervals.wilson_of(0.5, 7.5)  # between its neighbours in whole numbers
    assert intervals.wilson_of(0.5, 7.0)[0] < low < intervals.wilson_of(0.5, 8.0)[0] < 0.5 < high


def wald(num_correct, n):
    """The textbook's interval, which does not hold what it says near 1."""
    p = num_correct / n
    half = 1.96 * np.sqrt(p * (1 - p) / n)
    return p - half, p + half


def coverage(interval, n, accuracies):
    random = np.random.default_rng(0)
    truths = random.uniform(*accuracies, NUM_DRAWS)
    counts = random.binomial(n, truths)
    found = [interval(int(count), n) for count in counts]
    return np.mean([low <= p <= high for (low, high), p in zip(found, truths, strict=True)])


@pytest.mark.parametrize("accuracies", [(0.5, 1), (0.9, 1), (0.97, 1)], ids=str)
@pytest.mark.usefixtures("remembered")
@pytest.mark.parametrize("n", [34, 100, 360, 1000, 10_000])
def test_intervals_of_accuracies_cover_what_they_say(n, accuracies):
    """From the smallest class of the digits to the whole test set of MNIST."""
    assert BAND[0] <= coverage(intervals.wilson, n, accuracies) <= BAND[1]


def test_the_simulation_notices_an_interval_that_does_not():
    assert coverage(wald, 100, (0.97, 1)) < 0.9


def metrics_of(num_correct, n):
    counts = [{"num_correct": int(k), "num_examples": n, "class_name": "?"} for k in num_correct]
    return {"num_correct": int(sum(num_correct)), "num_examples": n * len(counts)} | {
        "per_class": [row | {"class_name": str(i)} for i, row in enumerate(counts)]
    }


def simulate_releases(accuracies, n, num_draws=1000):
    """Draws test sets; yields the criteria that the release shows, by name, and what is true."""
    lenient = Criteria(0, 0, 1, 1)
    for counts in np.random.default_rng(1).binomial(n, accuracies, (num_draws, NUM_CLASSES)):
        criteria = release.judge(
            lenient, run={}, metrics=metrics_of(counts, n), training={}, verification=None
        )["criteria"]
        yield {row["name"]: row for row in criteria}


@pytest.mark.usefixtures("remembered")
def test_the_interval_of_the_verdict_covers_what_it_says():
    accuracies = np.linspace(0.9, 0.99, NUM_CLASSES)
    is_inside = [
        rows["test_accuracy"]["interval_95"][0]
        <= accuracies.mean()
        <= rows["test_accuracy"]["interval_95"][1]
        for rows in simulate_releases(accuracies, 100)
    ]
    assert np.mean(is_inside) >= BAND[0]


FASHION = np.array([0.87, 0.985, 0.88, 0.93, 0.89, 0.98, 0.78, 0.97, 0.985, 0.965])


@pytest.mark.usefixtures("remembered")
@pytest.mark.parametrize("n", [36, 1000])  # of a class: the digits, MNIST
@pytest.mark.parametrize(
    "accuracies",
    [np.full(NUM_CLASSES, 0.95), np.linspace(0.985, 0.997, NUM_CLASSES), FASHION],
    ids=["alike", "like MNIST", "like Fashion-MNIST"],
)
def test_the_interval_of_the_worst_class_covers_although_it_was_picked(accuracies, n):
    """At least 95 %: it cannot be exact for all, since it does not know how many may be picked."""
    covered, covered_plainly = [], []
    for rows in simulate_releases(accuracies, n):
        row = rows["worst_class_accuracy"]
        truth = accuracies[int(row["detail"].rpartition(" ")[2])]
        plain = intervals.wilson(round(row["measured"] * row["n"]), row["n"])
        covered.append(row["interval_95"][0] <= truth <= row["interval_95"][1])
        covered_plainly.append(plain[0] <= truth <= plain[1])
    assert np.mean(covered) >= 0.95
    if len(set(accuracies)) == 1:
        assert np.mean(covered_plainly) < 0.85  # what the wider one is for


@pytest.mark.parametrize(
    ("n", "rarest", "high"),
    [(10_000, 0.01, BAND[1]), (10_000, 0.05, BAND[1]), (360, 0.05, BAND[1]), (360, 0.01, 1)],
)
def test_the_interval_of_a_difference_covers_what_it_says(n, rarest, high):
    """Where a champion and a candidate disagree on two or three images in all it is too wide."""
    random, num_covered, num_draws = np.random.default_rng(0), 0, 5000
    for gain, loss in random.uniform(0.0005, rarest, (num_draws, 2)):
        num_gained, num_lost, _ = random.multinomial(n, [gain, loss, 1 - gain - loss])
        low, top = intervals.paired_interval(int(num_gained), int(num_lost), n)
        num_covered += low <= gain - loss <= top
    assert BAND[0] <= num_covered / num_draws <= high


def wrong_images(random, num_seeds):
    """Error in % of each seed on 10,000 test images: the seeds differ, and so do their images."""
    rates = np.clip(random.normal(0.008, 0.001, (NUM_DRAWS, num_seeds)), 0.001, 1)
    return random.binomial(10_000, rates) / 100


@pytest.mark.usefixtures("remembered")
@pytest.mark.parametrize("num_seeds", [2, 3, 5, 10, 30])
def test_the_interval_of_the_mean_over_seeds_covers_what_it_says(num_seeds):
    errors, num_covered = wrong_images(np.random.default_rng(0), num_seeds), 0
    for row in errors.tolist():
        measured = intervals.mean_and_interval(row)
        assert (measured["mean"], measured["n"]) == (pytest.approx(np.mean(row)), num_seeds)
        low, high = measured["interval_95"]
        num_covered += low <= 0.8 <= high
    assert BAND[0] <= num_covered / NUM_DRAWS <= BAND[1]
    if num_seeds <= 5:  # what Student's t is for
        half = 1.96 * errors.std(axis=1, ddof=1) / np.sqrt(num_seeds)
        assert np.mean(abs(errors.mean(axis=1) - 0.8) <= half) < 0.9
