"""The 95 % intervals: of a proportion, of the worst class, of a difference, of a mean."""

import math
import statistics
from collections.abc import Sequence
from typing import Any, TypedDict

from scipy.stats import binomtest, norm, t

CONFIDENCE = 0.95


class MeanOverSeeds(TypedDict):
    """The mean of a few measurements, and how sure it is."""

    mean: float
    std: float  # of a sample
    interval_95: list[float]  # of the mean
    n: int


def wilson(num_correct: int, num_examples: int) -> list[float]:
    """The Wilson 95 % interval of a proportion, as [low, high] within 0 to 1."""
    return _limits(binomtest(num_correct, num_examples).proportion_ci(method="wilson"))


def of_one_among(num_correct: int, num_examples: int, num_compared: int) -> list[float]:
    """The interval of a proportion that was picked from several, for being the lowest say.

    What was picked for being the lowest is likelier too low than too high: of ten equal classes,
    the plain interval of the one picked holds its true accuracy in 75 % of the cases only. So this
    one is exact and Bonferroni's, which holds in at least 95 % whichever class is picked.
    """
    counts = binomtest(num_correct, num_examples)
    level = 1 - (1 - CONFIDENCE) / num_compared
    return _limits(counts.proportion_ci(level, method="exact"))


def paired_interval(num_gained: int, num_lost: int, n: int) -> list[float]:
    """The 95 % interval of a difference of two accuracies on the same `n` images.

    Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data": one image is added to either kind of disagreement.

    Args:
        num_gained: images that only the first gets right.
        num_lost: images that only the second gets right.
        n: all images.

    Returns:
        [low, high], within -1 to 1.
    """
    gained, lost = (num_gained + 1) / (n + 2), (num_lost + 1) / (n + 2)
    difference = gained - lost
    width = norm.ppf(0.975) * math.sqrt((gained + lost - difference**2) / (n + 2))
    return [float(max(difference - width, -1)), float(min(difference + width, 1))]


def mean_and_interval(values: Sequence[float]) -> MeanOverSeeds:
    """Returns mean, sample standard deviation and the 95 % interval of the mean, of 2 or more."""
    mean, std = statistics.fmean(values), statistics.stdev(values)
    half = float(t.ppf(0.975, len(values) - 1)) * std / math.sqrt(len(values))
    return {"mean": mean, "std": std, "interval_95": [mean - half, mean + half], "n": len(values)}


def _limits(interval: Any) -> list[float]:
    return [float(interval.low), float(interval.high)]
