"""The command line: flags and `--config` overrides over the environment, and these over a recipe.

Everything about the keys is read from `config.KEYS`.
"""

import ast
import os
import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

from absl import flags
from dotenv import dotenv_values
from ml_collections import config_flags

from mnist_jax.command import as_called, expand_home
from mnist_jax.config import (
    KEYS,
    Key,
    class_weights,
    default,
    load_recipe,
    require,
    split_reference,
    validate,
)
from mnist_jax.errors import UserError

DEFINE = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    tuple: flags.DEFINE_multi_string,
}
FLAGS = tuple(key for key in KEYS if key.has_flag)
NETWORK = "--config.network."
# Of these keys the environment has a say: the name of its variable.
VARIABLES = {"data_dir": "DATA_DIR", "output_dir": "OUTPUT_DIR"}
TRAINS = """
Trains a small image classifier, exports it to ONNX, proves the file equal and
judges it. Exit status: 0 released, 1 refused by a criterion, 2 wrong usage,
data or environment.
"""


def help_text(program: str = "scripts/train", about: str = TRAINS) -> str:
    """Returns what `--help` prints: every flag and key with its meaning (rule) [default].

    Args:
        program: the command that takes these flags.
        about: what it does, in some lines.
    """
    lines = [
        f"usage: {program} [--config=configs/NAME.py] [--config.KEY=VALUE ...] [flags]",
        "",
        about.strip(),
        "",
        "flags (with - or _; each overrides one key of the config):",
    ]
    for key in FLAGS:
        short = f"-{key.short_name}, " if key.short_name else ""
        lines += _entry(f"{short}--{key.name.replace('_', '-')}", key)
    lines += ["", "keys without a flag (--config.KEY=VALUE):"]
    for key in KEYS:
        if not key.has_flag:
            lines += _entry(key.name, key)
    return as_called("\n".join(lines))


def _entry(shown_name: str, key: Key) -> list[str]:
    value = ", ".join(key.default) if isinstance(key.default, tuple) else key.default
    shown = (
        "none" if value in ("", {}) else str(value).lower() if isinstance(value, bool) else value
    )
    return textwrap.wrap(
        f"{key.help} ({key.rule.text}) [{shown}]",
        width=max(60, min(100, shutil.get_terminal_size((100, 24)).columns)),
        initial_indent=f"  {shown_name:<27} ",
        subsequent_indent=" " * 30,
        break_on_hyphens=False,
    )


def parse_here(arguments: Sequence[str]) -> Mapping[str, Any] | None:
    """Does what `parse` does, with this process's environment, the folder's `.env` and the time.

    Raises:
        UserError: as `parse`; or `.env` cannot be read.
    """
    try:
        environment = {**dotenv_values(".env"), **os.environ}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f".env cannot be read ({error}); write it as .env.example is") from error
    return parse(arguments, environment, datetime.now())


def parse(
    arguments: Sequence[str], environment: Mapping[str, str | None], now: datetime
) -> Mapping[str, Any] | None:
    """Reads the command line into a valid configuration, read-only; None where help is asked for.

    Args:
        arguments: the command line without the program's name.
        environment: process environment over `.env`; DATA_DIR and OUTPUT_DIR are read from it.
        now: the time that names a new run's folder.

    Raises:
        UserError: an unknown flag or key, a value of the wrong type or out of its range, or a
            config file that cannot be read.
    """
    recipe, settings_of_network, rest = _take_out(list(map(_with_underscores, arguments)))
    config = default() if recipe is None else load_recipe(recipe)
    values = flags.FlagValues()
    flags.DEFINE_boolean("help", False, "", short_name="h", flag_values=values)
    for key in FLAGS:
        define = DEFINE[type(key.default)]
        define(key.name, None, "", flag_values=values, short_name=key.short_name)
    rest = ["train", *rest]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=rest)
        unknown = values(rest)[1:]
        if values.help:
            return None
        overridden = set(config_flags.get_override_values(values["config"]))
        for key in FLAGS:
            if values[key.name].value is not None:
                config[key.name] = values[key.name].value
                overridden.add(key.name)
    except Exception as error:  # the libraries raise many kinds, a few of them bare
        raise UserError(_one_line(error)) from error
    if unknown:
        raise UserError(f"{unknown[0]!r} is not a flag; flags start with --, see --help")
    settings = config.to_dict()
    if settings_of_network:
        settings["network"] = {**settings["network"], **settings_of_network}
    _apply_environment(settings, environment, overridden)
    for key in KEYS:
        if key.rule.is_path and isinstance(settings.get(key.name), str):
            settings[key.name] = expand_home(settings[key.name], key.name)
    validate(settings)
    _check_effect(settings)
    for key in KEYS:
        _check_file(key.name, settings[key.name])
    settings["class_weights"] = class_weights.inlined(settings["class_weights"])
    if "output_dir" not in overridden:
        prefix = settings["output_dir"]
        prefix += "output" if prefix.endswith("/") else ""
        settings["output_dir"] = f"{prefix}_{now:%Y%m%d_%H%M%S}"
    return MappingProxyType(settings)


def _check_effect(settings: Mapping[str, Any]) -> None:
    """Refuses what has no effect, which runs of earlier versions may hold.

    Raises:
        UserError: an amount that the augmentation does not take.
    """
    for key in ("augment_shift_px", "augment_rotation_degrees"):
        if settings["augment_id"] == "byerly" and settings[key]:
            raise UserError(f"{key} is {settings[key]}, but must be 0 with augment_id byerly")


def _take_out(arguments: list[str]) -> tuple[str | None, dict[str, Any], list[str]]:
    """Takes `--config` and the network's settings, which ml_collections does not know, out.

    Returns:
        The recipe's path, or None; the settings; the other arguments.
    """
    recipe, settings, rest = None, {}, []
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, value = argument.partition("=")
        if name == "--config":
            recipe = value if equals else next(remaining, "")
        elif name.startswith(NETWORK):
            setting = name.removeprefix(NETWORK)
            if not equals or not setting.isidentifier():
                raise UserError(f"{argument} has no name or no value; give {NETWORK}NAME=VALUE")
            settings[setting] = _literal(value)
        else:
            rest.append(argument)
    return recipe, settings, rest


def _literal(text: str) -> Any:
    """Reads a number, true or false as Python or the shell writes it; anything else is a text."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _with_underscores(argument: str) -> str:
    """Turns --learning-rate=0.1 into --learning_rate=0.1, --no-quiet into --noquiet."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    name = name[2:].replace("-", "_")
    return (
        "--" + (name.replace("no_", "no", 1) if name.startswith("no_") else name) + equals + value
    )


def _one_line(error: Exception) -> str:
    """Shortens a library's message to its most telling line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = lines[-1] if lines else type(error).__name__
    if isinstance(error, AttributeError | KeyError):
        # The library quotes its message again on its way up.
        plain = str(error.args[0]).replace("\\n", "\n").translate(dict.fromkeys(map(ord, "'\"\\")))
        key, *hint = plain.splitlines()
        message = " ".join([f"unknown key of the config: {key.strip()};", *hint]).rstrip("; ")
    return f"{message.rstrip('.')}; see --help"


def _apply_environment(
    config: dict[str, Any], environment: Mapping[str, str | None], overridden: set[str]
) -> None:
    """Fills in what the environment says where the command line is silent.

    No shell expands what stands in `.env`, so `$NAME` and `${NAME}` are expanded here.
    """

    def replace(match: re.Match[str]) -> str:
        value = environment.get(match[1] or match[2])
        if not value:
            raise UserError(f"{match[0]} in {variable} is not set; set it or write the path out")
        return value

    for name, variable in VARIABLES.items():
        text = environment.get(variable)
        if text and name not in overridden:
            config[name] = re.sub(r"\$(?:(\w+)|\{(\w+)\})", replace, text)


def _check_file(name: str, value: Any) -> None:
    """Refuses a network or a loss of the user's own whose file is not there."""
    reference = split_reference(value) if name in ("model_id", "criterion_id") else None
    if reference and reference[0].endswith(".py"):
        require(os.path.isfile(reference[0]), name, value, "in a file that exists")
