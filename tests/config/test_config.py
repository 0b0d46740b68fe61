import ast
import hashlib
import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from mnist_jax.config import (
    KEYS,
    MODELS,
    Changes,
    config_hash,
    default,
    keys_that_change,
    load_recipe,
    split_reference,
    validate,
)
from mnist_jax.errors import UserError

RECIPES = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))
# A value of the right type that no rule allows; switches have none.
REFUSED = {int: -1, float: float("nan"), str: "\0", tuple: (), dict: {"no name": 1}}
# Another value that the rule allows.
OTHER = {
    "model_id": "mnist_sabour_cnn_v1",
    "dataset_id": "digits_v1",
    "criterion_id": "mse",
    "optimizer_id": "sgd",
    "schedule_id": "constant",
    "augment_id": "byerly",
    "compute_dtype": "bfloat16",
    "image_side": 30,
    "fit": "crop",
    "channels": 3,
    "network": {"depth": 1},
    "export_format": ("onnx",),
    "coordinator": "auto",
    "mesh": 3,
}


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_each_row_is_complete_and_its_default_keeps_its_rule(key):
    assert key.rule.holds(key.default)
    assert key.help and key.rule.text and "\n" not in key.help + key.rule.text
    assert isinstance(key.changes, Changes)
    assert key.short_name is None or key.has_flag


def test_names_and_short_names_are_unique():
    names = [key.name for key in KEYS]
    short = [key.short_name for key in KEYS if key.short_name]
    assert len({*names}) == len(names) and len({*short}) == len(short)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_each_row_refuses_something_with_value_rule_and_remedy_in_one_line(key):
    good = default().to_dict()
    validate(good)
    wrong_values = [None, object(), *(REFUSED[k] for k in REFUSED if type(key.default) is k)]
    for value in wrong_values:
        with pytest.raises(UserError) as raised:
            validate({**good, key.name: value})
        message = str(raised.value)
        assert message.startswith(f"{key.name} is ") and len(message.splitlines()) == 1
        rule = key.rule.text if type(value) is type(key.default) else "of type"
        assert f", but must be {rule}" in message and "; give --" in message


def test_a_number_is_no_switch_and_a_switch_no_number():
    for name, value in (("quiet", 1), ("epochs", True), ("learning_rate", True)):
        with pytest.raises(UserError, match="of type"):
            validate({**default().to_dict(), name: value})
    validate({**default().to_dict(), "learning_rate": 1})


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_the_hash_changes_with_all_but_the_place(key):
    base = default().to_dict()
    others = {bool: not key.default, int: 1 if key.default == 0 else 2, float: 0.5, str: "x"}
    other = OTHER[key.name] if key.name in OTHER else others[type(key.default)]
    assert other != key.default and key.rule.holds(other)
    is_same = config_hash({**base, key.name: other}) == config_hash(base)
    assert is_same == (key.changes is Changes.PLACE)
    assert (key.name in keys_that_change(Changes.PLACE)) == is_same


def test_of_the_user_s_own_pictures_the_name_counts_and_not_the_place():
    hashes = {
        config_hash({**default().to_dict(), "data": path})
        for path in ("/a/cats", "/b/c/cats/", "cats")
    }
    assert len(hashes) == 1
    assert config_hash({**default().to_dict(), "data": "/a/dogs"}) not in hashes


def test_a_key_that_came_later_leaves_the_hash_as_it_was_until_it_is_used():
    config = default().to_dict()
    before = {
        key.name: key.default
        for key in KEYS
        if not key.is_later and key.changes is not Changes.PLACE
    }
    text = json.dumps(before, sort_keys=True)
    assert config_hash(config) == hashlib.sha256(text.encode()).hexdigest()
    assert len(before) + len(keys_that_change(Changes.PLACE)) < len(KEYS)


def test_the_hash_is_that_of_what_config_json_gives_back():
    config = {**default().to_dict(), "network": {"depth": 1, "kind": "deep", "is_wide": True}}
    assert config_hash(config) == config_hash(json.loads(json.dumps(config)))


def test_each_key_changes_one_thing():
    parts = [keys_that_change(change) for change in Changes]
    assert sorted(name for part in parts for name in part) == sorted(key.name for key in KEYS)
    assert keys_that_change(Changes.VERDICT) == tuple(
        key.name for key in KEYS if key.name.startswith(("min_", "max_"))
    )


def test_a_default_is_not_shared():
    default().network["depth"] = 1
    assert default().to_dict()["network"] == {}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid_and_documents_itself(path):
    config = load_recipe(path).to_dict()
    validate(config)
    assert config["model_id"] in MODELS
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    for word in (f"scripts/train --config=configs/{path.name}", "accuracy", "seeds", "s on"):
        assert word in docstring, f"{path.name} does not say: {word}"


def test_a_recipe_is_run_each_time_and_leaves_nothing_behind(tmp_path):
    recipe = tmp_path / "recipe.py"
    for value in (1, 2):
        recipe.write_text(
            "from ml_collections import ConfigDict\n"
            f"VALUE = {value}\ndef get_config():\n    return ConfigDict({{'a': VALUE}})\n"
        )
        assert load_recipe(recipe) == ConfigDict({"a": value})
    assert list(tmp_path.iterdir()) == [recipe]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a/b.py:Net", ("a/b.py", "Net")),
        ("my folder/b:c.py:Net", ("my folder/b:c.py", "Net")),
        ("package.module:Net", ("package.module", "Net")),
        ("module:Net", ("module", "Net")),
        ("mnist_cnn_v1", None),
        ("a/b.txt:Net", None),
        ("a..b:Net", None),
        ("a.py:", None),
        ("\0.py:Net", None),
    ],
)
def test_a_reference_is_a_file_or_a_module_and_a_name(text, parts):
    assert split_reference(text) == parts
