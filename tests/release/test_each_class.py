import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, roc_auc_score

from mnist_jax.release import each_class
from mnist_jax.release.intervals import Z, of_area, of_mean, wilson, wilson_of


def draw(counts, separation, seed=0):
    """Scores that are probabilities, and labels, of an uneven set."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(len(counts)), counts))
    logits = random.normal(size=(len(labels), len(counts)))
    logits[np.arange(len(labels)), labels] += separation
    scores = np.exp(logits)
    return scores / scores.sum(axis=1, keepdims=True), labels


def confusions(scores, labels):
    return confusion_matrix(labels, scores.argmax(axis=1), labels=np.arange(scores.shape[1]))


@pytest.mark.parametrize("counts", [(390, 234), (5, 60), (100, 20, 5, 50)], ids=str)
def test_the_measures_are_scikit_learns(counts):
    scores, labels = draw(counts, 1.5)
    measured = each_class.measure(scores, labels)
    answers = scores.argmax(axis=1)
    is_binary = len(counts) == 2
    expected = {
        "balanced_accuracy": balanced_accuracy_score(labels, answers),
        "macro_f1": f1_score(labels, answers, average="macro"),
        "auc": roc_auc_score(labels, scores[:, 1] if is_binary else scores, multi_class="ovr"),
    }
    for name, value in expected.items():
        assert measured[name] == pytest.approx(value, abs=1e-12)
        low, high = measured["intervals_95"][name]
        assert 0 <= low < value < high <= 1
    assert measured == each_class.measure(scores, labels)


def test_scores_that_tie_count_half():
    scores, labels = draw((30, 20), 1.0)
    scores = scores.round(1)
    assert each_class.auc(scores, labels)[0] == pytest.approx(roc_auc_score(labels, scores[:, 1]))
    assert each_class.auc(np.full((50, 2), 0.5), labels)[0] == 0.5


def test_lengths_of_capsules_need_not_add_up_to_one():
    scores, labels = draw((30, 20, 10), 1.0)
    lengths = scores**0.3
    areas = [roc_auc_score(labels == index, lengths[:, index]) for index in range(3)]
    assert each_class.auc(lengths, labels)[0] == pytest.approx(np.mean(areas))


def test_no_error_on_a_few_images_proves_little():
    scores, labels = np.eye(2)[[0] * 9 + [1] * 9], np.repeat([0, 1], 9)
    measured = each_class.measure(scores, labels)
    for name in each_class.NAMES:
        low, high = measured["intervals_95"][name]
        assert measured[name] == 1 and high == 1
        assert 0.6 < low < 0.9


def test_one_answer_to_all_is_a_half():
    scores, labels = np.tile([[0.4, 0.6]], (100, 1)), np.repeat([0, 1], [20, 80])
    measured = each_class.measure(scores, labels)
    assert (measured["balanced_accuracy"], measured["auc"]) == (0.5, 0.5)
    assert measured["macro_f1"] == pytest.approx(0.5 * 2 * 80 / 180)


def test_a_class_without_an_image_leaves_nothing_to_measure():
    scores, labels = draw((10, 10, 0), 1.0)
    measured = each_class.measure(scores, labels)
    assert measured == {**dict.fromkeys(each_class.NAMES), "intervals_95": {}}


def wider(one, other):
    return pytest.approx([min(one[0], other[0]), max(one[1], other[1])], rel=1e-6)


def correlations_of(covariances):
    deviations = np.sqrt(covariances.diagonal())
    return covariances / np.outer(deviations, deviations)


def test_the_interval_of_balanced_accuracy_by_hand():
    value, interval = each_class.balanced_accuracy(np.array([[9, 1], [4, 16]]))
    assert value == pytest.approx(0.85)
    (low, high), (low_2, high_2) = wilson(9, 10), wilson(16, 20)
    expected = [
        0.85 - np.hypot(0.9 - low, 0.8 - low_2) / 2,
        0.85 + np.hypot(high - 0.9, high_2 - 0.8) / 2,
    ]
    assert interval == wider(expected, wilson_of(0.85, 4 / (1 / 10 + 1 / 20)))


@pytest.mark.parametrize(
    "counts",
    [
        [[50, 8, 2], [6, 30, 4], [3, 1, 20]],
        [[300, 5, 2], [20, 30, 1], [40, 1, 5]],  # beyond Wilson's interval above
    ],
    ids=["even", "uneven"],
)
def test_the_interval_of_macro_f1_is_the_delta_methods(counts):
    """With numerical slopes; counts vary as Poisson's, since F1 does not depend on their sum."""
    counts = np.array(counts)

    def f1(counts):
        return 2 * counts.diagonal() / (counts.sum(axis=0) + counts.sum(axis=1))

    steps = 1e-4 * np.eye(9).reshape(9, 3, 3)
    slopes = np.array([(f1(counts + step) - f1(counts - step)) / 2e-4 for step in steps])
    covariances = slopes.T @ (slopes * counts.reshape(9, 1))
    right, either = counts.diagonal(), counts.sum(axis=0) + counts.sum(axis=1) - counts.diagonal()
    shares = np.array([wilson(int(k), int(n)) for k, n in zip(right, either, strict=True)])
    expected = of_mean(f1(counts), 2 * shares / (1 + shares), correlations_of(covariances))
    value, interval = each_class.macro_f1(counts)
    assert value == pytest.approx(f1(counts).mean())
    assert interval == wider(expected, wilson_of(value, 9 / (1 / counts.sum(axis=1)).sum()))


@pytest.mark.parametrize("counts", [(30, 20), (12, 30, 9)], ids=str)
def test_the_interval_of_the_area_from_all_pairs(counts):
    """DeLong's structural components without ranks: each image of a class against each other."""
    scores, labels = draw(counts, 1.0)
    areas, influences, limits = [], [], []
    for index in [1] if len(counts) == 2 else range(len(counts)):
        is_class = labels == index
        wins = scores[is_class, index][:, None] > scores[~is_class, index]
        areas.append(wins.mean())
        influence = np.empty(len(labels))
        for group, axis in ((is_class, 1), (~is_class, 0)):
            n = group.sum()
            influence[group] = (wins.mean(axis=axis) - areas[-1]) / np.sqrt(n * (n - 1))
        influences.append(influence)
        limits.append(of_area(areas[-1], int(is_class.sum()), int((~is_class).sum())))
    half = Z * np.linalg.norm(np.sum(influences, axis=0)) / len(areas)
    if len(areas) == 1:  # their equation 5, with the sample variances of the components
        components = wins.mean(axis=1), wins.mean(axis=0)
        variance = sum(part.var(ddof=1) / len(part) for part in components)
        assert (half / Z) ** 2 == pytest.approx(variance)
    correlations = correlations_of(np.array(influences) @ np.array(influences).T)
    expected = of_mean(np.array(areas), np.array(limits), correlations)
    value, interval = each_class.auc(scores, labels)
    assert value == pytest.approx(np.mean(areas))
    assert interval == wider(expected, [value - half, value + half])


def hanley_and_mcneils(area, num_class, num_rest):
    """The standard error in the terms of 1982, with Newcombe's mean of the groups' sizes."""
    both_of_class, both_of_rest = area / (2 - area), 2 * area**2 / (1 + area)
    size = (num_class + num_rest) / 2
    variance = area * (1 - area) + (size - 1) * (both_of_class + both_of_rest - 2 * area**2)
    return np.sqrt(variance / (num_class * num_rest))


@pytest.mark.parametrize(
    ("area", "num_class", "num_rest"),
    [(0.7, 20, 80), (0.99, 5, 7), (1.0, 9, 12), (0.0, 12, 9), (0.5, 1, 1)],
)
def test_an_area_lies_1_96_standard_errors_from_its_limits(area, num_class, num_rest):
    low, high = of_area(area, num_class, num_rest)
    assert 0 <= low <= area <= high <= 1
    for limit, bound in ((low, 0), (high, 1)):
        away = Z * hanley_and_mcneils(limit, num_class, num_rest)
        assert limit == bound if area == bound else abs(area - limit) == pytest.approx(away)


def coverage(counts, separation, num_draws=400):
    """How often the three intervals hold what a very large set of the same shares gives."""
    scores, labels = draw(np.array(counts) * 60_000 // sum(counts), separation, seed=1)
    large = each_class.measure(scores, labels)
    hits = np.zeros(3)
    for seed in range(2, num_draws + 2):
        scores, labels = draw(counts, separation, seed)
        found = each_class.measure(scores, labels)["intervals_95"]
        hits += [found[n][0] <= large[n] <= found[n][1] for n in each_class.NAMES]
    return hits / num_draws


@pytest.mark.slow
@pytest.mark.parametrize(
    ("counts", "separation"),
    [((390, 234), 1), ((390, 234), 3), ((20,) * 10, 2), ((20,) * 10, 4), ((5, 10, 20, 50), 2)],
    ids=str,
)
def test_intervals_hold_the_truth_in_95_percent_of_the_cases(counts, separation):
    assert (coverage(counts, separation) >= 0.92).all()


def test_the_interval_of_a_mean_of_normal_measures_is_the_textbooks():
    """Limits of 1.96 deviations give those of the mean, by the rule for sums of variances."""
    values, deviations = np.array([0.5, 0.6, 0.4]), np.array([0.1, 0.2, 0.05])
    correlations = np.array([[1, 0.3, 0], [0.3, 1, -0.5], [0, -0.5, 1]])
    limits = values[:, None] + norm.ppf(0.975) * deviations[:, None] * [-1, 1]
    variance = deviations @ correlations @ deviations / 9
    expected = 0.5 + norm.ppf(0.975) * np.sqrt(variance) * np.array([-1, 1])
    np.testing.assert_allclose(of_mean(values, limits, correlations), expected)
