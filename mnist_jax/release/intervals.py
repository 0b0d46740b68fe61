"""The 95 % intervals: of proportions, of the worst class, of differences, areas and means."""

import math
import statistics
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from jaxtyping import Float

# SciPy takes a second to import, and scripts/publish has no other need of it.
CONFIDENCE = 0.95
Z = 1.959963984540054  # scipy.stats.norm.ppf(0.975)


class MeanOverSeeds(TypedDict):
    """The mean of a few measurements, and how sure it is."""

    mean: float
    std: float  # of a sample
    interval_95: list[float]  # of the mean
    n: int


def wilson(num_correct: int, num_examples: int) -> list[float]:
    """The Wilson 95 % interval of a proportion, as [low, high] within 0 to 1."""
    return wilson_of(num_correct / num_examples, float(num_examples))


def wilson_of(share: float, num_examples: float) -> list[float]:
    """The same of a share, 0 to 1, that is known with the certainty of so many examples."""
    # In SciPy's order of operations, whose `binomtest` takes whole numbers alone.
    scale = 2 * (num_examples + Z**2)
    centre = (2 * num_examples * share + Z**2) / scale
    half = Z / scale * math.sqrt(4 * num_examples * share * (1 - share) + Z**2)
    return [0.0 if share == 0 else centre - half, 1.0 if share == 1 else centre + half]


def of_one_among(num_correct: int, num_examples: int, num_compared: int) -> list[float]:
    """The interval of a proportion that was picked from several, for being the lowest say.

    What was picked for being the lowest is likelier too low than too high: of ten equal classes,
    the plain interval of the one picked holds its true accuracy in 75 % of the cases only. So this
    one is exact and Bonferroni's, which holds in at least 95 % whichever class is picked.
    """
    from scipy.stats import binomtest

    counts = binomtest(num_correct, num_examples)
    level = 1 - (1 - CONFIDENCE) / num_compared
    low, high = counts.proportion_ci(level, method="exact")
    return [float(low), float(high)]


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
    width = Z * math.sqrt((gained + lost - difference**2) / (n + 2))
    return [float(max(difference - width, -1)), float(min(difference + width, 1))]


def of_area(area: float, num_class: int, num_rest: int) -> list[float]:
    """The 95 % interval of an area under a ROC curve, as [low, high] within 0 to 1.

    As Wilson's: the areas from which the measured one is not 1.96 standard errors away, so that an
    area of 1 has a lower limit below 1. Newcombe 2006, "Confidence intervals for an effect size
    measure based on the Mann-Whitney statistic", part 2, method 5: the standard errors are Hanley
    and McNeil's of 1982, alike whichever group is the class.

    Args:
        area: measured, 0 to 1.
        num_class: images of the class.
        num_rest: the others.
    """
    from scipy.optimize import root_scalar

    def error(true: float) -> float:
        spreads = (1 - true) / (2 - true) + true / (1 + true)
        factor = 1 + ((num_class + num_rest) / 2 - 1) * spreads
        return math.sqrt(true * (1 - true) * factor / (num_class * num_rest))

    def limit(bound: float) -> float:
        def gap(true: float) -> float:
            return abs(true - area) - Z * error(true)

        inside = min(max(area, 1e-12), 1 - 1e-12)  # at 0 and 1 themselves the error is 0
        return bound if area == bound else root_scalar(gap, bracket=[inside, bound]).root

    return [limit(0.0), limit(1.0)]


def of_mean(
    values: Float[np.ndarray, " k"],
    limits: Float[np.ndarray, "k 2"],
    correlations: Float[np.ndarray, "k k"],
) -> list[float]:
    """The 95 % interval of the mean of measures, from the interval of each.

    The method of variance estimates recovery: Zou and Donner 2008, "Construction of confidence
    limits about effect measures", with correlations as in Zou 2007, "Toward using confidence
    intervals to compare correlations".

    Args:
        values: the measures.
        limits: low and high of each.
        correlations: of the measures' errors.

    Returns:
        [low, high].
    """
    below, above = values - limits[:, 0], limits[:, 1] - values
    widths = [
        math.sqrt(max(part @ correlations @ part, 0)) / len(values) for part in (below, above)
    ]
    return [float(values.mean()) - widths[0], float(values.mean()) + widths[1]]


def either(one: list[float], other: list[float]) -> list[float]:
    """The interval that holds both."""
    return [min(one[0], other[0]), max(one[1], other[1])]


def mean_and_interval(values: Sequence[float]) -> MeanOverSeeds:
    """Returns mean, sample standard deviation and the 95 % interval of the mean, of 2 or more."""
    from scipy.stats import t

    mean, std = statistics.fmean(values), statistics.stdev(values)
    half = float(t.ppf(0.975, len(values) - 1)) * std / math.sqrt(len(values))
    return {"mean": mean, "std": std, "interval_95": [mean - half, mean + half], "n": len(values)}
