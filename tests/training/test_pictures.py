"""What TensorBoard shows: the colours mean the counts, and the mistakes are the mistakes."""

import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from mnist_jax.data import Split
from mnist_jax.run.stopwatch import Phases
from mnist_jax.training import pictures
from mnist_jax.training.reporter import Event, Reporter

LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2], np.uint8)
ANSWERS = np.array([0, 0, 0, 1, 1, 1, 2, 0])


def opened(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def split(shape):
    images = np.random.default_rng(0).integers(0, 256, (8, *shape), dtype=np.uint8)
    return Split(images, LABELS)


@pytest.mark.parametrize("shape", [(28, 28), (32, 32, 3)])
def test_each_cell_has_the_colour_of_its_count(shape):
    drawn = pictures.draw(split(shape), ANSWERS, ("a", "b", "c"))
    cells = opened(drawn["confusion_matrix"])[8::16, 8::16]
    assert cells.shape == (3, 3, 3)
    is_right = np.eye(3, dtype=bool)
    assert (np.ptp(cells[is_right], axis=-1) == 0).all()  # grey
    blue = cells[..., 2] - cells[..., 0]
    assert blue[0, 1] > 0 and blue[2, 0] > blue[0, 1]  # 1 of 4, 1 of 2
    assert (cells[[0, 1, 1, 2], [2, 0, 2, 1]] == 255).all()  # none


@pytest.mark.parametrize(("num_classes", "cell"), [(64, 16), (100, 10), (2000, 1)])
def test_many_classes_get_smaller_cells(num_classes, cell):
    picture = pictures.confusion_matrix(LABELS, ANSWERS, num_classes)
    assert picture.size == (cell * num_classes, cell * num_classes)


def test_the_mistakes_are_shown_and_right_answers_are_not():
    data = split((28, 28))
    sheet = opened(pictures.draw(data, ANSWERS, ("a", "b", "c"))["mistakes"])
    assert sheet.shape == (64 + 14, 8 * 64, 3)
    for place, index in enumerate((3, 7)):
        tile = Image.fromarray(data.images[index]).resize((62, 62), Image.Resampling.NEAREST)
        shown = sheet[:62, 64 * place : 64 * place + 62, 0]
        np.testing.assert_array_equal(shown, np.asarray(tile))
    assert (sheet[:64, 2 * 64 :] == 255).all()
    assert "mistakes" not in pictures.draw(data, LABELS.astype(int), ("a", "b", "c"))


def test_they_reach_the_events_with_the_learning_rate(tmp_path):
    row = {"epoch": 3, "learning_rate": 0.25, "train_loss": 1.0, "train_accuracy": 0.5}
    row |= {"validation_accuracy": 0.5, "seconds": 1.0, "images_per_s": 2.0}
    with Reporter(Console(quiet=True), Phases(), tensorboard=tmp_path) as reporter:
        reporter.begin(0, epochs=3, num_batches=1)
        reporter.answered(lambda: pictures.draw(split((28, 28)), ANSWERS, ("a", "b", "c")))
        reporter.epoch(row)
    (path,) = tmp_path.iterdir()
    values = {}
    for event in events(path.read_bytes()):
        values |= {value.tag: value for value in event.summary.value}
    assert values["learning_rate"].simple_value == 0.25
    for name in ("confusion_matrix", "mistakes"):
        assert opened(values[name].image.encoded_image_string).ndim == 3


def events(records):
    """Reads TFRecords: length, its checksum, data, its checksum."""
    while records:
        length = int.from_bytes(records[:8], "little")
        yield Event.FromString(records[12 : 12 + length])
        records = records[16 + length :]
