import datetime
import os
import re
import subprocess
import sys
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_jax.config import EXPORT_FORMATS, KEYS, config_hash, default, formats_to_export
from mnist_jax.config.flags import FLAGS, expand_home, help_text, parse
from mnist_jax.errors import UserError

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5)
NAMES = [key.name for key in KEYS]


def read(*arguments, **environment):
    return parse(arguments, environment, NOW)


def test_without_a_word_the_defaults_hold():
    config = read()
    assert config == {**default().to_dict(), "output_dir": "./output_20260102_030405"}


def test_flags_work_with_hyphens_and_with_underscores():
    assert read("--learning-rate=0.5", "--batch_size", "7") == read(
        "--learning_rate", "0.5", "--batch-size=7"
    )
    assert read("-q")["quiet"]
    assert not read("-q", "--noquiet")["quiet"]


def test_a_hyphen_in_a_value_is_left_alone():
    assert read("--output-dir=my-run")["output_dir"] == "my-run"


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_each_flag_overrides_its_key_and_no_other(flag):
    values = {bool: True, int: 3, float: 0.5, str: "./x", tuple: ("onnx",)}
    ids = {
        "model_id": "mnist_sabour_cnn_v1",
        "dataset_id": "digits_v1",
        "criterion_id": "mse",
        "optimizer_id": "sgd",
        "image_side": 30,
        "class_weights": "balanced",
    }
    value = ids.get(flag.name, values[type(flag.default)])
    text = {True: "", ("onnx",): "=onnx"}.get(value, f"={value}")
    config = read(f"--{flag.name}{text}", "--output-dir=./x")
    assert config == {**default().to_dict(), "output_dir": "./x", flag.name: value}


def test_export_format_repeats():
    config = read("--export_format=onnx", "--export-format", "orbax")
    assert config["export_format"] == ("onnx", "orbax")
    assert formats_to_export(config) == ("orbax", "onnx")
    assert formats_to_export(read()) == EXPORT_FORMATS


def test_command_line_over_environment_over_recipe(tmp_path):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "from mnist_jax import config\n"
        "def get_config():\n"
        "    c = config.default(); c.data_dir = 'recipe'; c.output_dir = 'out'; return c\n"
    )
    from_recipe = read(f"--config={recipe}")
    assert (from_recipe["data_dir"], from_recipe["output_dir"]) == ("recipe", "out_20260102_030405")
    assert from_recipe == read("--config", str(recipe))
    from_environment = read(f"--config={recipe}", DATA_DIR="env", OUTPUT_DIR="runs/a")
    assert from_environment["data_dir"] == "env"
    assert from_environment["output_dir"] == "runs/a_20260102_030405"
    assert read(OUTPUT_DIR="runs/")["output_dir"] == "runs/output_20260102_030405"
    for arguments in (
        ("--data-dir=line", "--output-dir=exact"),
        ("--config.data_dir=line", "--config.output_dir=exact"),
    ):
        config = read(f"--config={recipe}", *arguments, DATA_DIR="env", OUTPUT_DIR="runs/a")
        assert (config["data_dir"], config["output_dir"]) == ("line", "exact")


def test_settings_of_the_network_come_from_the_command_line_and_from_the_recipe(tmp_path):
    config = read(
        "--config.network.routing_iterations=1",
        "--config.network.primary_factor=0.5",
        "--config.network.has_class_biases=False",
        "--config.network.stop_routing_gradient=true",
        "--config.network.kind=deep",
    )
    assert config["network"] == {
        "routing_iterations": 1,
        "primary_factor": 0.5,
        "has_class_biases": False,
        "stop_routing_gradient": True,
        "kind": "deep",
    }
    assert config_hash(config) != config_hash(read())
    assert read(f"--config.network={config['network']}")["network"] == config["network"]
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "from mnist_jax import config\n"
        "def get_config():\n"
        "    c = config.default(); c.network = {'depth': 2, 'width': 8}; return c\n"
    )
    assert read(f"--config={recipe}")["network"] == {"depth": 2, "width": 8}
    config = read(f"--config={recipe}", "--config.network.depth=3")
    assert config["network"] == {"depth": 3, "width": 8}
    assert read()["network"] == {}, "a setting of one run must not reach the next"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.network.depth", r"--config\.network\.depth has no name or no value; give"),
        ("--config.network.=3", "has no name or no value; give"),
        ("--config.network.shape=(1, 2)", "network is .*, but must be names with numbers"),
        ("--config.network.rate=1e999", "network is .*, but must be names with numbers"),
        ("--config.network={1: 2}", "names with numbers|network"),
    ],
)
def test_settings_that_json_cannot_hold_are_refused_in_one_line(argument, message):
    with pytest.raises(UserError, match=message) as raised:
        read(argument)
    assert len(str(raised.value).splitlines()) == 1


# The file of class_weights is read: tests/training/test_class_weights.py.
PATHS = [key.name for key in KEYS if key.rule.is_path and key.name != "class_weights"]


@pytest.mark.parametrize("name", PATHS)
def test_the_home_folder_is_written_out_in_every_path(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.py").touch()
    is_reference = name in ("model_id", "criterion_id")
    value = "~/own.py:Own" if is_reference else "~/d"
    wanted = str(tmp_path / ("own.py:Own" if is_reference else "d"))
    assert read(f"--config.{name}={value}")[name] == wanted
    assert read(f"--{name}={value}")[name] == wanted
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "from mnist_jax import config\n"
        f"def get_config():\n    c = config.default(); c.{name} = {value!r}; return c\n"
    )
    assert read(f"--config={recipe}")[name].startswith(wanted)


@pytest.mark.parametrize("text", ["~/d", "$HOME/d", "${HOME}/d"])
@pytest.mark.parametrize("name", ["data_dir", "output_dir"])
def test_home_in_the_environment_is_expanded_as_a_shell_does(name, text, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = read(**{name.upper(): text, "HOME": str(tmp_path)})
    assert config[name].removesuffix("_20260102_030405") == str(tmp_path / "d")


def test_users_and_variables_that_do_not_exist_are_named():
    with pytest.raises(UserError, match=r"data_dir is '~nobody-here/d', but there is no user"):
        read("--data-dir=~nobody-here/d")
    with pytest.raises(UserError, match=r"\$NOWHERE in DATA_DIR is not set; set it or"):
        read(DATA_DIR="$NOWHERE/d")
    assert read("--data-dir=$HOME/d")["data_dir"] == "$HOME/d", "a flag's is the shell's business"
    assert read("--data-dir=./~")["data_dir"] == "./~"
    assert expand_home("~root/x").endswith("/x") and not expand_home("~root/x").startswith("~")


def test_an_own_network_or_loss_is_taken_by_reference(tmp_path):
    file = tmp_path / "net.py"
    file.touch()
    assert read(f"--model-id={file}:Net")["model_id"] == f"{file}:Net"
    assert read("--model-id=mine.nets:Net")["model_id"] == "mine.nets:Net"
    assert read(f"--criterion-id={file}:loss")["criterion_id"] == f"{file}:loss"
    file.unlink()
    for flag in ("--model-id", "--criterion-id"):
        with pytest.raises(UserError, match="but must be in a file that exists; give --"):
            read(f"{flag}={file}:Net")
        for text in (f"{file}", f"{file}:", f"{file}:a b", "net:", ":Net", "a-b:Net", "x/net:Net"):
            with pytest.raises(UserError, match=r"one of .*, or your own: path/to/file\.py:"):
                read(f"{flag}={text}")


def test_a_config_cannot_be_changed_afterwards():
    with pytest.raises(TypeError):
        read()["seed"] = 1


def test_help_names_every_key_with_its_meaning_rule_and_default():
    text = help_text()
    assert all(len(line) <= 100 for line in text.splitlines())
    flat = " ".join(text.split())
    for key in KEYS:
        shown = f"--{key.name.replace('_', '-')}" if key.has_flag else key.name
        assert f" {shown} {key.help} ({key.rule.text}) [" in flat, key.name
    assert "[0.001]" in text and "[none]" in text and "[false]" in text and "[0.0]" in text
    assert read("--help") is None
    assert read("-h") is None


def test_help_loads_nothing_heavy(monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    code = "import sys; from mnist_jax import train; assert train.main(['--help']) == 0\n"
    code += "heavy = {'jax', 'flax', 'numpy', 'onnx', 'matplotlib'} & {*sys.modules}\n"
    code += "assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == help_text() + os.linesep


@pytest.mark.parametrize("columns", [80, 120])
def test_help_fits_the_terminal(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert max(map(len, help_text().splitlines())) <= min(100, columns)


@given(st.lists(st.text(max_size=20), max_size=4))
def test_no_command_line_gets_past_with_anything_but_a_config_or_one_line(arguments):
    try:
        config = parse(arguments, {}, NOW)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert config is None or isinstance(config, Mapping)


@given(
    st.sampled_from([*(f"--{key.name}" for key in FLAGS), *(f"--config.{n}" for n in NAMES)]),
    st.one_of(st.floats().map(str), st.integers().map(str), st.text(max_size=10)),
)
def test_no_value_gets_past_with_anything_but_a_config_or_one_line(flag, value):
    try:
        parse([f"{flag}={value}"], {}, NOW)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
        assert ";" in str(error)  # value, rule; remedy


@given(st.text(max_size=12), st.text(max_size=12))
def test_no_setting_gets_past_with_anything_but_a_config_or_one_line(name, value):
    try:
        config = parse([f"--config.network.{name}={value}"], {}, NOW)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert len(config["network"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.routing_iterations=1"], "unknown key of the config: routing_iterations"),
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
        (
            ["--config.schedule_id=exponential", "--learning-rate=1e-7"],
            "learning_rate_floor is 1e-06, but must be at most the learning_rate, 1e-07",
        ),
        (["--config.augment_flip=true", "--config.augment_id=byerly"], "augment_flip is True"),
        (["--config.augment_shift_px=2", "--config.augment_id=byerly"], "augment_shift_px is 2"),
    ],
)
def test_a_choice_that_does_not_fit_is_refused_with_the_reason(arguments, message):
    with pytest.raises(UserError, match=message):
        read(*arguments)


def test_a_file_of_class_weights_is_read_from_the_home_folder_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "weights.json").write_text('{"b": 2, "a": 1}')
    assert read("--class-weights=~/weights.json")["class_weights"] == '{"a": 1.0, "b": 2.0}'
    with pytest.raises(UserError, match=r"class_weights is '.*/none.json', but must be none"):
        read("--class-weights=~/none.json")


def test_the_flag_of_the_remedy_is_one_that_exists():
    with pytest.raises(UserError, match=r"give --batch-size such a value"):
        read("--batch-size=0")
    with pytest.raises(UserError) as raised:
        read("--config.ema_decay=1.0")
    assert re.search(r"give --config\.ema_decay such a value", str(raised.value))
