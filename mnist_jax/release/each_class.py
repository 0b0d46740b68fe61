"""Measures in which every class counts alike, however rare: balanced accuracy, macro F1, AUC.

Each is a mean over the classes, and each has a 95 % interval in closed form: limits of every class
by itself, which also hold where it has no error, put together by `intervals.of_mean`. That goes
wrong by up to 8 points of coverage where a few errors among many classes are all there is, since
the sum of skewed errors is less skewed, so the interval is at least the usual one: of shares
Wilson's for classes that are all alike, of areas DeLong's.
"""

import math

import numpy as np
from jaxtyping import Float, Int, Integer
from scipy.stats import rankdata

from mnist_jax.release.intervals import Z, either, of_area, of_mean, wilson, wilson_of
from mnist_jax.release.records import ClassMeans

NAMES = ("balanced_accuracy", "macro_f1", "auc")
Measured = tuple[float, list[float]]  # 0 to 1, and its 95 % interval


def measure(
    scores: Float[np.ndarray, "n classes"], labels: Integer[np.ndarray, " n"]
) -> ClassMeans:
    """Returns each of `NAMES` with its interval.

    Args:
        scores: the largest is the answer; they need not add up to 1.
        labels: the true classes.
    """
    from sklearn.metrics import confusion_matrix  # 0.9 s, for which the first step need not wait

    names = np.arange(scores.shape[1])
    confusions = confusion_matrix(labels, scores.argmax(axis=1), labels=names)
    if not confusions.sum(axis=1).all():
        return {"balanced_accuracy": None, "macro_f1": None, "auc": None, "intervals_95": {}}
    measured = (balanced_accuracy(confusions), macro_f1(confusions), auc(scores, labels))
    return {
        "balanced_accuracy": measured[0][0],
        "macro_f1": measured[1][0],
        "auc": measured[2][0],
        # Rounding may put a limit beyond 1, or on the wrong side of the value.
        "intervals_95": {
            name: [min(max(low, 0.0), value), max(min(high, 1.0), value)]
            for name, (value, (low, high)) in zip(NAMES, measured, strict=True)
        },
    }


def balanced_accuracy(confusions: Int[np.ndarray, "classes classes"]) -> Measured:
    """Returns the mean of the classes' accuracies; every class needs an image.

    The limits of a class are Wilson's.
    """
    right, counts = confusions.diagonal(), confusions.sum(axis=1)
    limits = [wilson(int(k), int(n)) for k, n in zip(right, counts, strict=True)]
    shares = right / counts
    interval = of_mean(shares, np.array(limits), np.eye(len(counts)))
    return _at_least_wilson(float(shares.mean()), interval, counts)


def macro_f1(confusions: Int[np.ndarray, "classes classes"]) -> Measured:
    """Returns the mean of the classes' F1; every class needs an image.

    The limits of a class: J, the share of right answers among the images that are of the class or
    were taken for it, is a proportion, and F1 = 2 J / (1 + J) (Lam, Gopal, Qian 2023, "Confidence
    intervals for the F1 score", arXiv 2309.14621). An error between two classes lowers both, so
    they go together as the delta method says.
    """
    right = confusions.diagonal()
    both = confusions.sum(axis=0) + confusions.sum(axis=1)  # of the class, and taken for it
    f1 = 2 * right / both
    shares = [wilson(int(k), int(n)) for k, n in zip(right, both - right, strict=True)]
    limits = 2 * np.array(shares) / (1 + np.array(shares))
    one_error = f1 / both  # what it takes from the F1 of a class
    covariances = (confusions + confusions.T) * np.outer(one_error, one_error)
    own = 4 * right * (1 - f1) ** 2 / both**2 + (both - 2 * right) * one_error**2
    np.fill_diagonal(covariances, own)
    interval = of_mean(f1, limits, _correlations(covariances))
    return _at_least_wilson(float(f1.mean()), interval, confusions.sum(axis=1))


def auc(scores: Float[np.ndarray, "n classes"], labels: Integer[np.ndarray, " n"]) -> Measured:
    """Returns the area under the ROC curve: how often a score tells an image from one of the rest.

    Of two classes, by the second one's score; of more, the mean of each class against the rest.
    Ties count half. Every class needs an image. What the classes have in common, and the interval
    at least, is DeLong's: DeLong, DeLong, Clarke-Pearson 1988, "Comparing the areas under two or
    more correlated ROC curves".
    """
    chosen = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    areas, limits, influences = [], [], []
    for index in chosen:
        is_class = labels == index
        shares = _shares_told_apart(scores[:, index], is_class)
        area, num_class = float(shares[is_class].mean()), int(is_class.sum())
        areas.append(area)
        limits.append(of_area(area, num_class, len(labels) - num_class))
        counts = np.where(is_class, num_class, len(labels) - num_class)
        # Their squares add up to DeLong's variance, each group's by n - 1; one image has none.
        influences.append((shares - area) / np.sqrt(counts * np.maximum(counts - 1, 1)))
    covariances = np.array(influences) @ np.array(influences).T
    area = math.fsum(areas) / len(areas)
    half = Z * math.sqrt(float(covariances.sum())) / len(areas)
    interval = of_mean(np.array(areas), np.array(limits), _correlations(covariances))
    return area, either(interval, [area - half, area + half])


def _shares_told_apart(
    scores: Float[np.ndarray, " n"], is_class: np.ndarray
) -> Float[np.ndarray, " n"]:
    """Returns, of each image, the share of the other group that its score is on the right side of.

    By ranks: Sun and Xu 2014, "Fast implementation of DeLong's algorithm".
    """
    ranks, shares = rankdata(scores), np.empty(len(scores))
    num_class = int(is_class.sum())
    num_rest = len(scores) - num_class
    shares[is_class] = (ranks[is_class] - rankdata(scores[is_class])) / num_rest
    shares[~is_class] = 1 - (ranks[~is_class] - rankdata(scores[~is_class])) / num_class
    return shares


def _at_least_wilson(
    value: float, interval: list[float], counts: Int[np.ndarray, " classes"]
) -> Measured:
    """Widens an interval to Wilson's, for the images that a mean over the classes stands on."""
    num_images = len(counts) ** 2 / float((1 / counts).sum())
    return value, either(interval, wilson_of(value, num_images))


def _correlations(covariances: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k k"]:
    """Returns the correlations; what never varies is correlated with nothing but itself."""
    deviations = np.sqrt(covariances.diagonal())
    deviations = np.where(deviations > 0, deviations, 1)
    correlations = covariances / np.outer(deviations, deviations)
    np.fill_diagonal(correlations, 1)
    return correlations
