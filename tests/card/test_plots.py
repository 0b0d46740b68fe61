import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

from mnist_jax.card import plots

NAMES = ["confusion_matrix", "per_class_accuracy", "training_accuracy", "training_loss"]
DIGITS = list("0123456789")
CLOTHES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]
CLOTHES += ["Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def make_release(dataset_id, names, num_examples, num_errors, minimum=0.9):
    """What the plots read of release.json; errors are spread as far from even as real ones are."""
    rng = np.random.default_rng(0)
    matrix = np.diag(np.full(len(names), num_examples // len(names)))
    for true, answer in zip(
        rng.integers(len(names), size=num_errors), rng.geometric(0.4, num_errors), strict=True
    ):
        matrix[true, true] -= 1
        matrix[true, (true + min(answer, len(names) - 1)) % len(names)] += 1
    per_class = [
        {
            "class_name": name,
            "num_examples": int(row.sum()),
            "num_correct": int(row[i]),
            "accuracy": float(row[i] / row.sum()),
        }
        for i, (name, row) in enumerate(zip(names, matrix, strict=True))
    ]
    return {
        "criteria": [{"name": "worst_class_accuracy", "threshold": minimum}],
        "run": {"dataset": {"num_train": 55_000, "num_validation": 5_000}},
        "metrics": {
            "model_id": "mnist_cnn_v1",
            "dataset_id": dataset_id,
            "criterion_id": "nll",
            "num_examples": int(matrix.sum()),
            "num_correct": int(matrix.trace()),
            "class_names": names,
            "per_class": per_class,
            "confusion_matrix": matrix.tolist(),
        },
    }


def make_history(num_epochs):
    epochs = range(1, num_epochs + 1)
    return {
        "best_epoch": max(1, num_epochs - 1),
        "epochs": [
            {
                "epoch": epoch,
                "train_loss": 0.3 / epoch,
                "train_accuracy": 1 - 0.1 / epoch,
                "validation_loss": 0.1 / epoch,
                "validation_accuracy": 1 - 0.03 / epoch,
            }
            for epoch in epochs
        ],
    }


MNIST = make_release("mnist_v1", DIGITS, 10_000, 77)


def words_of(figure):
    """Every text in a figure that its reader sees."""
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_visible()]


def luminance(color):
    rgb = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


@pytest.mark.parametrize(
    ("release", "num_epochs"),
    [
        (MNIST, 5),
        (make_release("fashion_mnist_v1", CLOTHES, 10_000, 775), 100),
        (make_release("digits_v1", DIGITS, 360, 5), 1),
        (make_release("digits_v1", DIGITS, 360, 0), 1),
    ],
    ids=["mnist", "fashion", "digits", "no error"],
)
def test_the_four_pictures_appear_and_are_pictures(release, num_epochs, tmp_path):
    folder = tmp_path / "model_card" / "plots"
    plots.draw(release, make_history(num_epochs), folder)
    assert sorted(path.name for path in folder.iterdir()) == [f"{name}.png" for name in NAMES]
    for path in folder.iterdir():
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) >= 600
            assert picture.convert("L").getextrema() == (0, 255)


def test_the_bytes_depend_on_nothing_but_the_numbers(tmp_path):
    plots.draw(MNIST, make_history(5), tmp_path / "one")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "savefig.dpi": 30}):
        plots.draw(MNIST, make_history(5), tmp_path / "two")
    for name in NAMES:
        first = (tmp_path / "one" / f"{name}.png").read_bytes()
        assert first == (tmp_path / "two" / f"{name}.png").read_bytes()
        assert Image.open(io.BytesIO(first)).info.keys() <= {"dpi"}


def test_a_name_is_never_a_formula_and_pyplot_keeps_no_figure(tmp_path):
    import matplotlib.pyplot

    names = ["$$", "$_$", r"$\mathds{R}$", "US$/CA$", *DIGITS[4:]]
    plots.draw(make_release("own_signs", names, 1000, 77), make_history(5), tmp_path)
    assert len([*tmp_path.iterdir()]) == 4
    assert matplotlib.pyplot.get_fignums() == []


def test_a_loss_that_can_be_negative_is_seen():
    history = make_history(5)
    for row in history["epochs"]:
        row |= {"train_loss": row["train_loss"] - 1, "validation_loss": -0.9}
    low, high = plots._training(MNIST, history, "loss", "loss").axes[0].get_ylim()
    assert low < -0.9 and high > history["epochs"][0]["train_loss"]
    assert plots._training(MNIST, make_history(5), "loss", "loss").axes[0].get_ylim()[0] == 0


def test_two_hundred_classes_fit_and_one_may_have_no_test_image(tmp_path):
    names = [f"class number {i}" for i in range(200)]
    release = make_release("own_things", names, 2000, 300)
    last, matrix = release["metrics"]["per_class"][-1], release["metrics"]["confusion_matrix"]
    matrix[-1] = [0] * 200
    last |= {"num_examples": 0, "num_correct": 0, "accuracy": 0.0}
    figure = plots._confusion_matrix(release)
    assert max(figure.get_size_inches()) < 15
    assert not figure.axes[0].texts and len(figure.axes[0].get_xticks()) == 50
    figure = plots._per_class_accuracy(release)
    words = words_of(figure)
    assert "no test image" in words and "0 of 0" not in words and {*names} <= {*words}


def test_of_thousands_of_classes_the_least_accurate_are_drawn():
    release = make_release("own_signs", [str(number) for number in range(4000)], 40_000, 300)
    figure = plots._per_class_accuracy(release)
    assert figure.get_size_inches()[1] * 150 < 11_000  # pixels
    drawn = [float(label.get_text()) for label in figure.axes[0].get_yticklabels()]
    accuracies = [row["accuracy"] for row in release["metrics"]["per_class"]]
    assert len(drawn) == plots.MAX_CLASSES_IN_LINES
    assert sorted(accuracies[int(i)] for i in drawn) == sorted(accuracies)[: len(drawn)]


@pytest.mark.parametrize("num_errors", [77, 700])
def test_the_confusion_matrix_shows_every_count_and_colours_errors_alone(num_errors):
    release = make_release("mnist_v1", DIGITS, 10_000, num_errors)
    metrics = release["metrics"]
    figure = plots._confusion_matrix(release)
    axes = figure.axes[0]
    shown = {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in axes.texts}
    counts = np.array(metrics["confusion_matrix"])
    assert shown == {(i, j): str(count) for (i, j), count in np.ndenumerate(counts) if count}
    colors = np.array(axes.images[0].get_array())
    assert (colors[np.eye(10, dtype=bool)] == matplotlib.colors.to_rgba(plots.GREY)).all()
    assert (colors[counts == 0][:, 3] == 0).all()
    errors = np.where(np.eye(10, dtype=bool), 0, counts)
    brightness = colors[..., :3].sum(axis=-1)
    # One error differs clearly from none, and more errors are darker.
    assert brightness[errors == 1].max() < 2.8
    assert brightness[errors == errors.max()].max() < brightness[errors == 1].min()
    for text in axes.texts:  # WCAG's relative luminance and contrast; 4.5 is its rule for text
        column, row = text.get_position()
        bright, dark = sorted(
            (luminance(text.get_color()), luminance(colors[row, column])), reverse=True
        )
        assert (bright + 0.05) / (dark + 0.05) > 4.5
    words = words_of(figure)
    assert f"mnist_cnn_v1 on mnist_v1: {num_errors} of 10,000 test images wrong" in words
    assert {"true class", "predicted class"} <= set(words)


def test_class_accuracies_come_with_intervals_counts_and_the_criterion():
    release = make_release("fashion_mnist_v1", CLOTHES, 10_000, 775, minimum=0.93)
    figure = plots._per_class_accuracy(release)
    axes = figure.axes[0]
    words = words_of(figure)
    assert set(CLOTHES) <= set(words)
    assert "criterion: at least 0.93" in words
    classes = release["metrics"]["per_class"]
    assert {f"{row['num_correct']} of {row['num_examples']:,}" for row in classes} <= set(words)
    markers = [line for line in axes.lines if line.get_marker() in ("o", "X")]
    for marker, bar, row in zip(markers, axes.collections, classes, strict=True):
        assert marker.get_xdata() == [row["accuracy"]]
        assert marker.get_marker() == ("o" if row["accuracy"] >= 0.93 else "X")
        low, high = plots.wilson(row["num_correct"], row["num_examples"])
        assert bar.get_segments()[0][:, 0].tolist() == [low, high]
        assert axes.get_xlim()[0] < low < high < axes.get_xlim()[1]
    assert {marker.get_marker() for marker in markers} == {"o", "X"}


@pytest.mark.parametrize("num_epochs", [1, 5, 100])
def test_training_curves_show_both_splits_and_the_epoch_that_was_kept(num_epochs):
    history = make_history(num_epochs)
    figure = plots._training(MNIST, history, "accuracy", "accuracy")
    train, validation, kept = figure.axes[0].lines
    assert list(train.get_ydata()) == [row["train_accuracy"] for row in history["epochs"]]
    assert list(validation.get_ydata()) == [row["validation_accuracy"] for row in history["epochs"]]
    best = history["epochs"][history["best_epoch"] - 1]
    assert (*kept.get_xdata(), *kept.get_ydata()) == (best["epoch"], best["validation_accuracy"])
    words = words_of(figure)
    assert "train, during the epoch (n = 55,000)" in words
    assert "validation, after it (n = 5,000)" in words
    assert any(word.startswith(f"epoch kept: {best['epoch']}") for word in words)
    ticks = figure.axes[0].get_xticks()
    assert all(tick == int(tick) for tick in ticks)


@pytest.mark.parametrize("accuracy", [1.0, 0.992, 0.1, 0.0])
def test_axes_end_where_accuracy_and_loss_do(accuracy):
    history = make_history(5)
    for row in history["epochs"]:
        row["validation_accuracy"] = accuracy
    low, high = plots._training(MNIST, history, "accuracy", "").axes[0].get_ylim()
    accuracies = [accuracy, *(row["train_accuracy"] for row in history["epochs"])]
    assert 0 <= low <= min(accuracies)
    assert max(accuracies) < high <= 1.005
    low, high = plots._training(MNIST, history, "loss", "").axes[0].get_ylim()
    assert low == 0
    assert 0.3 < high < 0.4
