"""The order of names."""

import functools
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_jax.data.readers.listing import natural, split_of_file


def test_numbers_count_as_numbers():
    expected = ["", "007", "7", "7a", "10", "a", "a2", "a2b", "a010", "a10", "a10b2", "ab", "é1"]
    assert sorted(reversed(expected), key=natural) == expected


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00001.parquet", "train"),
        ("test-00000-of-00001.parquet", "test"),
        ("mnist_test.parquet", "test"),
        ("fashion-mnist_val.CSV", "validation"),
        ("sign.Testing.csv", "test"),
        ("latest.parquet", "train"),  # no word of it is a split's name
        ("0000.parquet", "train"),
    ],
)
def test_a_word_of_a_file_s_name_says_the_split(name, split):
    assert split_of_file(Path(name)) == split


def runs(name):
    return ["".join(run) for _, run in itertools.groupby(name, lambda c: c in "0123456789")]


def compare(one, other):
    """By runs of digits and of other characters: numbers first, by value, then as written."""
    for left, right in zip(runs(one), runs(other), strict=False):
        if left != right:
            numbers = [run[0] in "0123456789" for run in (left, right)]
            if all(numbers) and int(left) != int(right):
                return int(left) - int(right)
            if any(numbers) and not all(numbers):
                return -1 if numbers[0] else 1
            return -1 if left < right else 1
    return len(runs(one)) - len(runs(other))


@given(st.lists(st.text("ab0127.٣", max_size=6)))
def test_the_order_is_that_of_runs_compared_in_turn(names):
    assert sorted(names, key=natural) == sorted(names, key=functools.cmp_to_key(compare))
