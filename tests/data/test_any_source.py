"""Whatever lies in a folder or a table: arrays that agree with it, or one line and nothing left."""

import csv
import io
import json
import string
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from mnist_jax.data import arrays, own, readers
from mnist_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("decoders_once")


def picture(number):
    """A small picture that no other number has."""
    levels = np.full((16, 16), number // 250, np.uint8)
    levels[:8] = number % 250
    contents = io.BytesIO()
    Image.fromarray(levels).save(contents, "PNG")
    return contents.getvalue()


NAMES = st.text(
    string.ascii_letters + string.digits + " .-_éß数\n\x1b", min_size=1, max_size=8
).filter(lambda name: name.strip(".") and name[0] != "." and name.lower() not in ("thumbs.db",))
KINDS = st.sampled_from(["picture"] * 6 + ["text", "empty", "cut", "folder", "lost link"])
CLASSES = st.dictionaries(NAMES, st.dictionaries(NAMES, KINDS, max_size=8), max_size=4)
FULL = st.dictionaries(NAMES, KINDS, min_size=4, max_size=9)
TREES = st.one_of(
    st.dictionaries(NAMES, FULL, min_size=2, max_size=4),
    CLASSES,
    st.dictionaries(st.sampled_from(["train", "val", "test", "Testing"]), CLASSES),
)


def write(place, tree, count=0):
    """Writes a tree; returns how many pictures have been written so far."""
    place.mkdir()
    for name, what in tree.items():
        path = place / name
        if isinstance(what, dict):
            count = write(path, what, count)
        elif what == "folder":
            path.mkdir()
        elif what == "lost link":
            path.symlink_to("nothing")
        else:
            whole, count = picture(count), count + (what == "picture")
            contents = {"picture": whole, "text": b"no picture", "empty": b"", "cut": whole[:-30]}
            path.write_bytes(contents[what])
    return count


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(tree=TREES)
@example(tree={"train": {}, "val": {"0": {"0": "picture"}, "00": {"0": "picture"}}})
def test_a_folder_becomes_arrays_of_all_its_pictures_or_one_line(tree):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = write(folder / "own", tree)
        try:
            made, report = own.prepare(folder / "own", folder / "data", own.Settings())
        except UserError as error:
            assert len(str(error).splitlines()) == 1
            left = [p for p in (folder / "data").rglob("*") if p.is_file()]
            assert left == []
            return
        assert made.num_train + made.num_validation + made.num_test == count
        for split in arrays.SPLITS:
            labels = arrays.read(made.folder, split).labels
            of_class = np.bincount(labels, minlength=len(made.class_names)).tolist()
            assert (
                len(labels) > 0
                and [report["counts"][split][name] for name in made.class_names] == of_class
            )
        assert report["duplicates_across"] and not any(
            found["count"] for found in report["duplicates_across"].values()
        )
        json.dumps(report)
        for line in (made.source, *made.class_names, *own.names(made.folder)["train"]):
            assert line.isprintable()


CELLS = st.one_of(
    st.sampled_from(
        ["a.png", "b.png", "c.png", "../out.png", "/etc/passwd", "sub/d.png", "x", "y"]
    ),
    st.sampled_from(["train", "test", "validation", "", "0", "None"]),
    st.text(max_size=6),
)
COLUMNS = st.lists(
    st.sampled_from(["file_name", "label", "split", "group", "file", "text"]), max_size=5
)


@given(
    columns=COLUMNS, rows=st.lists(st.lists(CELLS, max_size=5), max_size=6), is_json=st.booleans()
)
def test_a_table_becomes_a_listing_of_what_it_names_or_one_line(columns, rows, is_json):
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for number, path in enumerate(["a.png", "b.png", "c.png", "sub/d.png"]):
            (root / path).parent.mkdir(exist_ok=True)
            (root / path).write_bytes(picture(number))
        if is_json:
            lines = [json.dumps(dict(zip(columns, row, strict=False))) for row in rows]
            (root / "metadata.jsonl").write_text("\n".join(lines))
        else:
            with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([columns, *rows])
        try:
            listing = readers.read(root)
        except UserError as error:
            assert len(str(error).splitlines()) == 1
            return
        named = [one for part in listing.parts.values() for one in part.names]
        assert len(set(named)) == len(named) > 0 and "train" in listing.parts
        assert {*named} <= {"a.png", "b.png", "c.png", "sub/d.png"}
        labels = {label for part in listing.parts.values() for label in part.labels}
        assert {*listing.class_names} == labels and "" not in labels
