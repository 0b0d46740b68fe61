import csv

import numpy as np
import pytest
from PIL import Image

from mnist_jax.card import mistake_plot, mistakes
from mnist_jax.data import Split

SCORES = np.float32([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.05, 0.95], [0.6, 0.4]])
LABELS = np.uint8([0, 0, 1, 0, 1])  # wrong: 1, 3 and 4


def rows_of(run_dir):
    with (run_dir / "model_card" / "mistakes.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_every_mistake_and_nothing_else_is_found_most_confident_first():
    assert mistakes.find(SCORES, LABELS).tolist() == [3, 1, 4]
    random = np.random.default_rng(0)
    scores, labels = random.random((200, 5)), random.integers(0, 5, 200)
    found = mistakes.find(scores, labels)
    assert {*found.tolist()} == {i for i in range(200) if scores[i].argmax() != labels[i]}
    confidence = scores[found].max(axis=1)
    assert (np.diff(confidence) <= 0).all()
    assert mistakes.find(np.float32([[0, 1]] * 3), np.uint8([0, 0, 0])).tolist() == [0, 1, 2]


def test_the_table_names_picture_label_answer_and_score(tmp_path):
    names = [f"cats/{i}.png" for i in range(5)]
    mistakes.write(SCORES, LABELS, ["cat", "dog"], names, tmp_path)
    assert rows_of(tmp_path) == [
        ["picture", "label", "predicted", "score"],
        ["cats/3.png", "cat", "dog", "0.950000"],
        ["cats/1.png", "cat", "dog", "0.800000"],
        ["cats/4.png", "dog", "cat", "0.600000"],
    ]
    mistakes.write(SCORES, LABELS, ["cat", "dog"], None, tmp_path)
    assert [row[0] for row in rows_of(tmp_path)[1:]] == ["3", "1", "4"]
    mistakes.write(SCORES[:1], LABELS[:1], ["cat", "dog"], None, tmp_path)
    assert len(rows_of(tmp_path)) == 1


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1", "'+1"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", r"\t=1"),
        ("a\r\nb", r"a\r\nb"),
        ('a,"b"', 'a,"b"'),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\udcff.png", r"\udcff.png"),
        ("schön/7.png", "schön/7.png"),
    ],
)
def test_a_name_is_one_line_and_never_a_formula(tmp_path, name, shown):
    mistakes.write(SCORES, LABELS, [name, "dog"], [name] * 5, tmp_path)
    assert rows_of(tmp_path)[1] == [shown, shown, "dog", "0.950000"]
    assert len((tmp_path / "model_card" / "mistakes.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 1), (17, 17, 3), (64, 64, 3)], ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_picture_shows_grey_and_colour_of_any_side(shape, dtype, tmp_path):
    images = np.random.default_rng(0).random((5, *shape))
    images = (images * 255).astype(np.uint8) if dtype == np.uint8 else images.astype(np.float32)
    names = ["$x$ & <a> | a name that is far too long", "dog"]
    mistake_plot.draw(SCORES, Split(images, LABELS), names, tmp_path)
    with Image.open(tmp_path / "mistakes.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 200
    mistake_plot.draw(SCORES[:1], Split(images[:1], LABELS[:1]), names, tmp_path / "none")
    assert not (tmp_path / "none").exists()  # no mistake, no picture


def test_the_pictures_are_the_mistakes_with_both_classes_in_words():
    images = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((5, 8, 8), np.uint8)
    wrong = mistakes.find(SCORES, LABELS)
    figure = mistake_plot._grid(wrong, SCORES, Split(images, LABELS), ["cat", "dog"])
    shown = [axes for axes in figure.axes if axes.images]
    assert [int(axes.images[0].get_array()[0, 0]) for axes in shown] == [3, 1, 4]
    assert [axes.get_title() for axes in shown] == ["cat → dog", "cat → dog", "dog → cat"]
    assert [axes.texts[0].get_text() for axes in shown] == ["0.9500", "0.8000", "0.6000"]
    assert "the 3 most confident of 3 mistakes on 5 test images" in figure.get_suptitle()
