import copy

import numpy as np
import pytest
from markdown_it import MarkdownIt

from mnist_jax.card import data_page
from mnist_jax.data.report import Facts, data_report

NAMES = ("cat", "dog", "a|b <i>")


def facts(name, digests, labels):
    return Facts(
        [f"{name}/{i}.png" for i in range(len(digests))],
        np.array(labels),
        np.array([bytes([d]) * 16 for d in digests], "V16"),
        np.zeros(len(digests), "V16"),
    )


@pytest.fixture
def report():
    """Three splits with a copy within train, a leak, an absent class and a broken file."""
    splits = {
        "train": facts("train", [1, 1, 2, 3], [0, 0, 1, 2]),
        "validation": facts("validation", [4, 5], [0, 1]),
        "test": facts("test", [2, 6, 7], [1, 0, 2]),
    }
    seen = {f"{i}": ((100, 100), "RGB") for i in range(400)} | {"big.png": ((3024, 3024), "L")}
    return data_report(splits, NAMES, seen, [("bro|ken\n.png", "truncated")])


def shown(text):
    """What a reader sees, and the kinds of things that the page is made of."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inline = [token for token in tokens if token.type == "inline"]
    words = ["".join(child.content for child in token.children) for token in inline]
    return words, {token.type for token in tokens}


def test_every_finding_is_on_the_page_in_words(report):
    words, _ = shown(data_page.page(report, NAMES))
    text = "\n".join(words)
    assert " ".join(words[:4]) == "class train pictures validation pictures test pictures"
    rows = [words[4 + 4 * i : 8 + 4 * i] for i in range(3)]
    assert rows == [["cat", "2", "1", "1"], ["dog", "1", "1", "1"], ["a|b <i>", "1", "0", "1"]]
    for line in (
        "Sizes in the files, in pixels: 100x100 (400), 3024x3024 (1). Modes: RGB (400), L (1).",
        "Unreadable files, which were left out: 1.",
        r"bro|ken\n.png, truncated",
        "big.png, 3024x3024",
        "Exact copies of an earlier picture within train: 1.",
        "Exact copies in test of pictures of train, which is not independent: 1.",
        "train/2.png, test/0.png",
        "Classes that validation lacks: a|b <i>.",
        "without their labels",
    ):
        assert line in text, line
    assert "same edges" not in text and "two labels" not in text and "Nothing" not in text


def test_a_clean_set_is_called_clean_and_what_is_long_folds(report):
    many = [f"class {i}" for i in range(200)]
    clean = data_report(
        {"train": facts("t", range(200), range(200)), "test": facts("u", [201], [0])}, tuple(many)
    )
    text = data_page.page({**clean, "absent_classes": {}}, many)
    assert "<details><summary>Pictures of 200 classes</summary>" in text
    assert "Nothing else was found" in text
    words, kinds = shown(text)
    assert "table_open" in kinds and "class 199" in words  # Markdown within the fold is read
    longer = copy.deepcopy(report)
    longer["unreadable"] = {"count": 900, "named": [[f"{i}.png", "bad"] for i in range(100)]}
    text = data_page.page(longer, NAMES)
    head = "<details><summary>Unreadable files, which were left out: 900, the first 100 named.</s"
    assert head in text


def test_what_was_dropped_is_said(report):
    text = data_page.page({**report, "dropped": {"train": 8, "validation": 0}}, NAMES)
    assert "Left out of train, since a later split has them: 8." in text
