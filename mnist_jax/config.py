"""What a run can be told: the defaults, the flags, the rules, and the hash of it all.

A recipe in `configs/` starts from `default()` and changes what it must. A flag overrides one key.
The command line wins over the environment and `.env`, and these over the recipe.
"""

import hashlib
import json
import math
import os
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from mnist_jax.errors import UserError

# Known here so that a misspelt id is refused before JAX is imported; tests hold them to the code.
MODELS = {
    "mnist_cnn_v1": "mnist_jax.models.cnn:CNN",
    "mnist_capsule_v1": "mnist_jax.models.sabour:SabourCapsNet",
    "mnist_efficient_capsule_v1": "mnist_jax.models.efficient:EfficientCapsNet",
    "mnist_hvc_capsule_v1": "mnist_jax.models.hvc:HVCCapsNet",
    "mnist_sabour_cnn_v1": "mnist_jax.models.sabour:SabourCNN",
    "mnist_efficient_cnn_v1": "mnist_jax.models.efficient:EfficientCNN",
}
MODEL_IDS = tuple(MODELS)
DATASET_IDS = ("digits_v1", "mnist_v1", "fashion_mnist_v1", "kmnist_v1")
CRITERION_IDS = ("nll", "mse", "capsule_loss_v1")
OPTIMIZER_IDS = ("adam", "adamw", "sgd")
SCHEDULE_IDS = ("constant", "cosine", "one_cycle", "exponential")
COMPUTE_DTYPES = ("float32", "bfloat16")
AUGMENT_IDS = ("shift_and_rotate", "byerly")
EXPORT_FORMATS = ("orbax", "safetensors", "onnx", "stablehlo")

# Where a run lives and how much it says: two runs that differ only here give the same model (on
# another number of devices: but for rounding).
PLACES = (
    *("quiet", "data_dir", "manual_dir", "output_dir"),
    *("mesh", "coordinator", "num_processes", "process_id"),
)


def default() -> ConfigDict:
    """Returns the configuration of `mnist_cnn_v1` on MNIST, which every recipe starts from."""
    return ConfigDict(
        {
            "quiet": False,
            "model_id": "mnist_cnn_v1",
            "dataset_id": "mnist_v1",
            "data_dir": "./data",
            "manual_dir": "",  # empty: download what is not prepared
            "output_dir": "./output",  # a prefix here and in OUTPUT_DIR: _<date>_<time> follows
            "export_format": ("all",),
            "criterion_id": "nll",
            "optimizer_id": "adam",
            "weight_decay": 0.0,  # decoupled; adamw only
            "momentum": 0.0,  # sgd only
            # What layers compute in while they train; weights, losses and releases are float32.
            "compute_dtype": "float32",
            "schedule_id": "cosine",
            "learning_rate": 0.001,  # the peak, where a schedule varies it
            "epochs": 5,
            "batch_size": 64,
            "seed": 0,
            "mesh": 1,  # devices that share each batch; 0: all there are
            "coordinator": "",  # HOST:PORT of process 0 of several, or auto: see docs/scale.md
            "num_processes": 1,
            "process_id": 0,
            "num_seeds": 1,  # with seed, seed + 1, ...; the best on validation is released
            # Larger than the published 28: they are put into the middle of a black square.
            "image_side": 28,
            "network": {},  # keyword arguments of the network's constructor
            "learning_rate_decay": 0.97,  # over an epoch, with the exponential schedule
            "learning_rate_floor": 1e-6,  # of the exponential schedule
            "ema_decay": 0.0,  # of the average of the weights, released in their place; 0: none
            # Of the squared error, summed over the pixels, that a network with a decoder adds to
            # its loss (Sabour et al. 2017, section 4.1).
            "reconstruction_weight": 0.0005,
            "augment_id": "shift_and_rotate",  # byerly takes no settings
            "augment_shift_px": 0,  # the largest shift along each axis
            "augment_rotation_degrees": 0.0,  # the largest turn either way
            "min_test_accuracy": 0.97,
            "min_per_class_accuracy": 0.90,
            "max_model_size_mb": 10.0,
            "max_inference_time_ms": 50.0,
            "skip_visualizations": False,
            "skip_export": False,
        }
    )


get_config = default  # this file is the recipe where no --config is given


class Flag(NamedTuple):
    """One flag: the key it overrides, how it is read, and what `--help` says of it."""

    key: str
    define: Callable[..., Any]
    meaning: str
    short_name: str | None = None


FLAGS = (
    Flag("quiet", flags.DEFINE_boolean, "nothing on the terminal; the log file stays whole", "q"),
    Flag("model_id", flags.DEFINE_string, "the network: " + ", ".join(MODEL_IDS)),
    Flag("dataset_id", flags.DEFINE_string, "the data: " + ", ".join(DATASET_IDS)),
    Flag("data_dir", flags.DEFINE_string, "where prepared data is kept (DATA_DIR)"),
    Flag("manual_dir", flags.DEFINE_string, "folder with the raw published files: no download"),
    Flag(
        "output_dir", flags.DEFINE_string, "the run's folder, used as given (OUTPUT_DIR: a prefix)"
    ),
    Flag(
        "export_format",
        flags.DEFINE_multi_string,
        "all, or one of " + ", ".join(EXPORT_FORMATS) + "; repeatable",
    ),
    Flag("criterion_id", flags.DEFINE_string, "the loss: " + ", ".join(CRITERION_IDS)),
    Flag("optimizer_id", flags.DEFINE_string, "the optimizer: " + ", ".join(OPTIMIZER_IDS)),
    Flag("epochs", flags.DEFINE_integer, "passes over the train split"),
    Flag("batch_size", flags.DEFINE_integer, "images a training step"),
    Flag("learning_rate", flags.DEFINE_float, "the optimizer's (largest) step size"),
    Flag("seed", flags.DEFINE_integer, "of every random stream"),
    Flag("min_test_accuracy", flags.DEFINE_float, "release criterion, 0 to 1"),
    Flag("min_per_class_accuracy", flags.DEFINE_float, "release criterion, 0 to 1"),
    Flag("max_model_size_mb", flags.DEFINE_float, "release criterion, on the ONNX file"),
    Flag("max_inference_time_ms", flags.DEFINE_float, "release criterion, on the ONNX file, p90"),
    Flag("skip_visualizations", flags.DEFINE_boolean, "leave the plots out"),
    Flag("skip_export", flags.DEFINE_boolean, "leave the export out: never a release"),
)


def help_text() -> str:
    """Returns what `--help` prints, with the defaults taken from `default()`."""
    config = default()
    lines = [
        "usage: scripts/train [--config=configs/NAME.py] [--config.KEY=VALUE ...] [flags]",
        "",
        "Trains a small image classifier, judges it, exports it to ONNX and proves the file equal.",
        "Exit status: 0 released, 1 refused by a criterion, 2 wrong usage, data or environment.",
        "",
        "flags (with - or _; each overrides one key of the config):",
    ]
    for flag in FLAGS:
        value = config[flag.key]
        shown = ", ".join(value) if isinstance(value, tuple) else value
        name = f"-{flag.short_name}, " if flag.short_name else ""
        name += "--" + flag.key.replace("_", "-")
        is_switch = flag.define is flags.DEFINE_boolean
        suffix = "" if is_switch or shown == "" else f" [{shown}]"
        lines += textwrap.wrap(
            f"{flag.meaning}{suffix}",
            width=100,
            initial_indent=f"  {name:<27} ",
            subsequent_indent=" " * 30,
        )
    others = sorted(set(config) - {flag.key for flag in FLAGS})
    lines += ["", "keys without a flag (--config.KEY=VALUE):"]
    lines += [f"  {key} [{config[key]}]" for key in others]
    return "\n".join(lines)


def parse(
    arguments: Sequence[str], environment: Mapping[str, str], now: datetime
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
    arguments = ["train", *map(_with_underscores, arguments)]
    if "--config" in arguments[:-1]:  # its value stands apart
        index = arguments.index("--config")
        arguments[index : index + 2] = [f"--config={arguments[index + 1]}"]
    if not any(argument.startswith("--config=") for argument in arguments):
        arguments.insert(1, f"--config={__file__}")
    values = flags.FlagValues()
    flags.DEFINE_boolean("help", False, "", short_name="h", flag_values=values)
    for flag in FLAGS:
        flag.define(flag.key, None, "", flag_values=values, short_name=flag.short_name)
    try:
        recipe = next(argument for argument in arguments if argument.startswith("--config="))
        if not os.path.isfile(recipe.removeprefix("--config=").split(":")[0]):
            raise UserError(f"{recipe} names no file; give a recipe, as those in configs/")
        config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=arguments)
        rest = values(arguments)[1:]
        if values.help:
            return None
        config = values.config
        if not hasattr(config, "lock"):  # a file that could not be loaded says so here
            raise UserError(
                "get_config() in the config file must return a ConfigDict; see configs/"
            )
        overridden = set(config_flags.get_override_values(values["config"]))
        for flag in FLAGS:
            if values[flag.key].value is not None:
                config[flag.key] = values[flag.key].value
                overridden.add(flag.key)
    except UserError:
        raise
    except Exception as error:  # a recipe is code: it can raise anything
        raise UserError(_one_line(error)) from error
    if rest:
        raise UserError(f"{rest[0]!r} is not a flag; flags start with --, see --help")
    settings = config.to_dict()
    _apply_environment(settings, environment, overridden, now)
    validate(settings)
    return MappingProxyType(settings)


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
        # The library quotes its message once more on its way up.
        plain = str(error.args[0]).replace("\\n", "\n").translate(dict.fromkeys(map(ord, "'\"\\")))
        key, *hint = plain.splitlines()
        message = " ".join([f"unknown key of the config: {key.strip()};", *hint]).rstrip("; ")
    return f"{message.rstrip('.')}; see --help"


def _apply_environment(
    config: dict[str, Any], environment: Mapping[str, str], overridden: set[str], now: datetime
) -> None:
    """Fills in DATA_DIR and OUTPUT_DIR where the command line is silent."""
    if "data_dir" not in overridden and environment.get("DATA_DIR"):
        config["data_dir"] = environment["DATA_DIR"]
    if "output_dir" not in overridden:
        prefix = environment.get("OUTPUT_DIR") or config["output_dir"]
        if prefix.endswith("/"):
            prefix += "output"
        config["output_dir"] = f"{prefix}_{now:%Y%m%d_%H%M%S}"


def _require(holds: bool, key: str, value: Any, rule: str) -> None:
    if not holds:
        flag = "--" + key.replace("_", "-") if key in {f.key for f in FLAGS} else f"--config.{key}"
        raise UserError(f"{key} is {value!r}, but must be {rule}; give {flag} such a value")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def validate(config: Mapping[str, Any]) -> None:
    """Checks every key; the only place where ranges are known.

    Raises:
        UserError: a key is missing, unknown, of the wrong type or out of its range.
    """
    known = default().to_dict()
    for key in sorted(set(config) ^ set(known)):
        problem = "is not a key of the config" if key in config else "is missing from the config"
        raise UserError(f"{key!r} {problem}; start a recipe from mnist_jax.config.default()")
    for key, expected in known.items():
        kind = (int, float) if isinstance(expected, float) else type(expected)
        is_right = isinstance(config[key], kind) and isinstance(config[key], bool) == isinstance(
            expected, bool
        )
        _require(is_right, key, config[key], f"of type {type(expected).__name__}")

    for key, ids in (
        ("model_id", MODEL_IDS),
        ("dataset_id", DATASET_IDS),
        ("criterion_id", CRITERION_IDS),
        ("optimizer_id", OPTIMIZER_IDS),
        ("schedule_id", SCHEDULE_IDS),
        ("augment_id", AUGMENT_IDS),
        ("compute_dtype", COMPUTE_DTYPES),
    ):
        is_own = key in ("model_id", "criterion_id") and ":" in config[key]
        _require(config[key] in ids or is_own, key, config[key], "one of " + ", ".join(ids))
    formats = config["export_format"]
    is_known = len(formats) > 0 and all(name in ("all", *EXPORT_FORMATS) for name in formats)
    _require(is_known, "export_format", formats, "all or some of " + ", ".join(EXPORT_FORMATS))

    for key, low, high in (
        ("epochs", 1, 100_000),
        ("batch_size", 1, 60_000),
        ("seed", 0, 2**32 - 1),
        ("num_seeds", 1, 2**32 - config["seed"]),
        ("augment_shift_px", 0, 14),
        ("image_side", 28, 64),
    ):
        _require(low <= config[key] <= high, key, config[key], f"from {low} to {high}")
    for key, low, high in (
        ("weight_decay", 0.0, 10.0),
        ("learning_rate_floor", 0.0, 100.0),
        ("reconstruction_weight", 0.0, 100.0),
        ("augment_rotation_degrees", 0.0, 180.0),
        ("min_test_accuracy", 0.0, 1.0),
        ("min_per_class_accuracy", 0.0, 1.0),
    ):
        is_within = _is_number(config[key]) and low <= config[key] <= high
        _require(is_within, key, config[key], f"from {low:g} to {high:g}")
    for key in ("momentum", "ema_decay"):
        is_within = _is_number(config[key]) and 0 <= config[key] < 1
        _require(is_within, key, config[key], "at least 0 and below 1")
    for key, high in (
        ("learning_rate", 100.0),
        ("learning_rate_decay", 1.0),
        ("max_model_size_mb", 1e6),
        ("max_inference_time_ms", 1e6),
    ):
        is_within = _is_number(config[key]) and 0 < config[key] <= high
        _require(is_within, key, config[key], f"above 0 and at most {high:g}")
    _validate_places(config)
    _require(
        config["weight_decay"] == 0 or config["optimizer_id"] == "adamw",
        "weight_decay",
        config["weight_decay"],
        f"0 with {config['optimizer_id']}: only adamw takes it",
    )
    _require(
        config["momentum"] == 0 or config["optimizer_id"] == "sgd",
        "momentum",
        config["momentum"],
        f"0 with {config['optimizer_id']}: only sgd takes it",
    )
    side = config["image_side"]
    _require(side % 2 == 0, "image_side", side, "even, for as much black on either side")
    _require(
        side == 28 or config["augment_id"] != "byerly",
        "image_side",
        side,
        "28 with augment_id byerly, whose turns and squeezes are made for that size",
    )


def _validate_places(config: Mapping[str, Any]) -> None:
    """Checks where a run lives: folders, devices, processes."""
    for key in ("data_dir", "output_dir"):
        _require(bool(config[key]), key, config[key], "the path of a folder")
    _require(0 <= config["mesh"] <= 100_000, "mesh", config["mesh"], "from 0 to 100000")
    address, num_processes, process_id = (
        config[key] for key in ("coordinator", "num_processes", "process_id")
    )
    is_address = re.fullmatch(r"\S+:\d{1,5}", address) is not None
    is_known = address in ("", "auto") or is_address
    _require(is_known, "coordinator", address, "HOST:PORT or auto")
    is_told = 1 < num_processes <= 100_000 if is_address else num_processes == 1
    rule = "from 2 to 100000 with coordinator=HOST:PORT, else 1"
    _require(is_told, "num_processes", num_processes, rule)
    is_within = 0 <= process_id < num_processes
    _require(is_within, "process_id", process_id, f"from 0 to {num_processes - 1}")


def formats_to_export(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Spells out `all`; keeps the order of `EXPORT_FORMATS`."""
    wanted = EXPORT_FORMATS if "all" in config["export_format"] else config["export_format"]
    return tuple(name for name in EXPORT_FORMATS if name in wanted)


def config_hash(config: Mapping[str, Any]) -> str:
    """Returns the SHA-256, in hex, of everything that can change the model or its verdict."""
    kept = {key: config[key] for key in config if key not in PLACES}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
