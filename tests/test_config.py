import datetime
import json
import runpy
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_jax import config as config_module
from mnist_jax.config import FLAGS, config_hash, default, formats_to_export, help_text, parse
from mnist_jax.errors import UserError

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5)
RECIPES = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))


def read(*arguments, **environment):
    return parse(arguments, environment, NOW)


def test_without_a_word_the_defaults_hold():
    config = read()
    assert config == {**default(), "output_dir": "./output_20260102_030405"}


def test_flags_work_with_hyphens_and_with_underscores():
    assert read("--learning-rate=0.5", "--batch_size", "7") == read(
        "--learning_rate", "0.5", "--batch-size=7"
    )
    assert read("-q")["quiet"]
    assert not read("-q", "--noquiet")["quiet"]


def test_a_hyphen_in_a_value_is_left_alone():
    assert read("--output-dir=my-run")["output_dir"] == "my-run"


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.key)
def test_each_flag_overrides_its_key_and_no_other(flag):
    values = {bool: True, int: 3, float: 0.5, str: "./x", tuple: ("onnx",)}
    ids = {
        "model_id": "mnist_cnn_v1",
        "dataset_id": "digits_v1",
        "criterion_id": "mse",
        "optimizer_id": "sgd",
    }
    value = ids.get(flag.key, values[type(default()[flag.key])])
    text = {True: "", ("onnx",): "=onnx"}.get(value, f"={value}")
    config = read(f"--{flag.key}{text}", "--output-dir=./x")
    assert config == {**default(), "output_dir": "./x", flag.key: value}


def test_export_format_repeats():
    config = read("--export_format=onnx", "--export-format", "orbax")
    assert config["export_format"] == ("onnx", "orbax")
    assert formats_to_export(config) == ("orbax", "onnx")
    assert formats_to_export(read()) == config_module.EXPORT_FORMATS


def test_command_line_over_environment_over_recipe(tmp_path):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "from mnist_jax import config\n"
        "def get_config():\n"
        "    c = config.default(); c.data_dir = 'recipe'; c.output_dir = 'out'; return c\n"
    )
    from_recipe = read(f"--config={recipe}")
    assert (from_recipe["data_dir"], from_recipe["output_dir"]) == ("recipe", "out_20260102_030405")
    from_environment = read(f"--config={recipe}", DATA_DIR="env", OUTPUT_DIR="runs/a")
    assert from_environment["data_dir"] == "env"
    assert from_environment["output_dir"] == "runs/a_20260102_030405"
    for arguments in (
        ("--data-dir=line", "--output-dir=exact"),
        ("--config.data_dir=line", "--config.output_dir=exact"),
    ):
        config = read(f"--config={recipe}", *arguments, DATA_DIR="env", OUTPUT_DIR="runs/a")
        assert (config["data_dir"], config["output_dir"]) == ("line", "exact")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid_and_documents_itself(path):
    assert read(f"--config={path}")["model_id"] in config_module.MODEL_IDS
    docstring = runpy.run_path(str(path))["__doc__"]
    for word in (f"scripts/train --config=configs/{path.name}", "accuracy", "seeds", "s on"):
        assert word in docstring, f"{path.name} does not say: {word}"


def test_a_config_cannot_be_changed_afterwards():
    with pytest.raises(TypeError):
        read()["seed"] = 1


def test_the_hash_is_of_what_matters():
    base = config_hash(read())
    assert base == config_hash(read("-q", "--data-dir=a", "--manual-dir=b", "--output-dir=c"))
    assert base == config_hash(read("--config.mesh=0", "--config.coordinator=auto"))
    assert base != config_hash(read("--seed=1"))
    assert base == config_hash(json.loads(json.dumps(dict(read()))))  # as config.json gives it back


def test_help_names_every_flag_and_every_other_key():
    text = help_text()
    for key in default():
        assert "--" + key.replace("_", "-") in text or f"  {key} [" in text
    assert all(len(line) <= 100 for line in text.splitlines())
    assert read("--help") is None
    assert read("-h") is None


@given(st.lists(st.text(max_size=20), max_size=4))
def test_no_command_line_gets_past_with_anything_but_a_config_or_one_line(arguments):
    try:
        config = parse(arguments, {}, NOW)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert config is None or isinstance(config, Mapping)


@given(
    st.sampled_from([flag.key for flag in FLAGS]),
    st.one_of(st.floats().map(str), st.integers().map(str), st.text(max_size=10)),
)
def test_no_value_gets_past_with_anything_but_a_config_or_one_line(key, value):
    try:
        parse([f"--{key}={value}"], {}, NOW)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
        assert ";" in str(error)  # value, rule; remedy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.routing_iterations=1"], "must be 3 with mnist_cnn_v1: only mnist_capsule_v1"),
        (
            ["--model-id=mnist_hvc_capsule_v1", "--config.primary_factor=1.0"],
            "primary_factor is 1.0, but must be 0.03125 with mnist_hvc_capsule_v1: only",
        ),
        (["--config.has_class_biases=False"], "has_class_biases is False, but must be True"),
        (["--config.stop_routing_gradient"], "stop_routing_gradient is True, but must be False"),
        (["--model-id=mnist_capsule_v1", "--config.primary_factor=0.0"], "above 0 and at most 1"),
        (["--model-id=mnist_capsule_v1", "--config.routing_iterations=0"], "from 1 to 10"),
        (["--config.image_side=41"], "must be even"),
        (["--config.num_seeds=0"], "num_seeds is 0, but must be from 1 to"),
        (["--seed=4294967295", "--config.num_seeds=2"], "num_seeds is 2, but must be from 1 to 1"),
        (["--config.mesh=-1"], "mesh is -1, but must be from 0 to"),
        (["--config.coordinator=host"], "coordinator is 'host', but must be HOST:PORT or auto"),
        (["--config.coordinator=a:1"], "num_processes is 1, but must be from 2 to"),
        (["--config.num_processes=2"], "num_processes is 2, but must be .* else 1"),
        (["--config.process_id=1"], "process_id is 1, but must be from 0 to 0"),
        (["--config.image_side=27"], "from 28 to 64"),
        (["--config.image_side=40", "--config.augment_id=byerly"], "28 with augment_id byerly"),
    ],
)
def test_a_choice_that_does_not_fit_is_refused_with_the_reason(arguments, message):
    with pytest.raises(UserError, match=message):
        read(*arguments)


def test_the_papers_choices_are_taken_where_they_fit():
    config = read(
        *("--model-id=mnist_capsule_v1", "--config.primary_factor=1.0"),
        *("--config.has_class_biases=False", "--config.stop_routing_gradient"),
        *("--config.routing_iterations=1", "--config.image_side=40"),
    )
    assert (config["primary_factor"], config["routing_iterations"]) == (1.0, 1)
