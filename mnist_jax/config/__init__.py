"""What a run can be told: one table of keys, from which everything else about keys is derived.

A row says a key's default, its rule, its meaning, whether it has a flag of its own, and what it
changes. A recipe in `configs/` starts from `default()` and changes what it must; `flags.py` reads
the command line.
"""

import os
import runpy
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from mnist_jax.config.rules import (
    ADDRESS,
    BELOW_ONE,
    CHANNELS,
    CLASS_WEIGHTS,
    COORDINATOR,
    FOLDER,
    FOLDER_OR_NONE,
    IMAGE_SIDE,
    PATH_OR_NONE,
    SETTINGS,
    SHARE,
    SWITCH,
    Rule,
    above_zero,
    from_to,
    one_of,
    own_or_one_of,
    some_of,
    split_reference,
)
from mnist_jax.errors import UserError, first_line
from mnist_jax.files import json_sha256

__all__ = ["split_reference"]  # besides what is defined here

# The built-in networks, as references to classes: known here without importing JAX.
MODELS: dict[str, str] = {
    "mnist_cnn_v1": "mnist_jax.models.cnn:CNN",
    "mnist_capsule_v1": "mnist_jax.models.sabour:SabourCapsNet",
    "mnist_efficient_capsule_v1": "mnist_jax.models.efficient:EfficientCapsNet",
    "mnist_hvc_capsule_v1": "mnist_jax.models.hvc:HVCCapsNet",
    "mnist_sabour_cnn_v1": "mnist_jax.models.sabour:SabourCNN",
    "mnist_efficient_cnn_v1": "mnist_jax.models.efficient:EfficientCNN",
    "small_resnet_v1": "mnist_jax.models.small_resnet:SmallResNet",
}
# Known here so that a misspelt id is refused before JAX is imported; tests compare with the code.
DATASET_IDS = ("digits_v1", "mnist_v1", "fashion_mnist_v1", "kmnist_v1")
_LOSSES = Path(__file__).parents[1] / "training" / "losses"  # a file each, of its id's name
CRITERION_IDS = tuple(sorted(path.stem for path in _LOSSES.glob("[!_]*.py")))
OPTIMIZER_IDS = ("adam", "adamw", "sgd")
SCHEDULE_IDS = ("constant", "cosine", "one_cycle", "exponential")
COMPUTE_DTYPES = ("float32", "bfloat16")
FITS = ("pad", "crop", "stretch")
AUGMENT_IDS = ("shift_and_rotate", "byerly")
EXPORT_FORMATS = ("orbax", "safetensors", "onnx", "stablehlo")


class Changes(Enum):
    """What a key can change."""

    MODEL = "the weights"
    VERDICT = "the release criteria alone"
    OUTPUT = "what is made of the trained model"
    # On another number of devices the weights are the same but for rounding.
    PLACE = "where a run lives and how much it says"


class Key(NamedTuple):
    """A row of the table."""

    name: str
    default: Any
    rule: Rule
    help: str
    changes: Changes = Changes.MODEL
    has_flag: bool = False
    short_name: str | None = None  # of the flag
    is_later: bool = False  # came later: at its default it leaves the hash as it was before


_VERDICT, _OUTPUT, _PLACE = Changes.VERDICT, Changes.OUTPUT, Changes.PLACE
# fmt: off
KEYS = (
    Key("quiet", False, SWITCH, "nothing on the terminal; the log file stays complete",
        _PLACE, has_flag=True, short_name="q"),
    Key("model_id", "mnist_cnn_v1", own_or_one_of("Class", *MODELS), "the network", has_flag=True),
    Key("network", {}, SETTINGS,
        "settings of this network: --config.network.NAME=VALUE, or a dict in a recipe"),
    Key("dataset_id", "mnist_v1", one_of(*DATASET_IDS), "the data", has_flag=True),
    Key("data", "", PATH_OR_NONE, "your own pictures in place of it: a folder of classes or "
        "with a table, .npz, IDX, Parquet, CSV", has_flag=True),
    Key("fit", "pad", one_of(*FITS), "how such pictures become squares"),
    Key("channels", 0, CHANNELS, "of such pictures: 1 grey, 3 colour; 0: as they are",
        is_later=True),
    Key("validation_share", 0.1, SHARE, "of such pictures, where no split is given"),
    Key("test_share", 0.1, SHARE, "of such pictures, where no split is given"),
    Key("transposed", False, SWITCH,
        "such pictures have rows for columns, as EMNIST's IDX files do"),
    Key("drop_duplicates", False, SWITCH,
        "leaves pictures out of train and validation that a later split has"),
    Key("data_dir", "./data", FOLDER, "where prepared data is kept; DATA_DIR",
        _PLACE, has_flag=True),
    Key("manual_dir", "", FOLDER_OR_NONE, "folder with the raw published files: no download",
        _PLACE, has_flag=True),
    Key("output_dir", "./output", FOLDER,
        "the run's folder, used as given; a recipe's and OUTPUT_DIR are prefixes that "
        "_<date>_<time> follows", _PLACE, has_flag=True),
    Key("export_format", ("all",), some_of(*EXPORT_FORMATS), "files to make; repeatable",
        _OUTPUT, has_flag=True),
    Key("criterion_id", "nll", own_or_one_of("function", *CRITERION_IDS), "the loss",
        has_flag=True),
    Key("class_weights", "none", CLASS_WEIGHTS,
        "what an image of a class counts in the loss; balanced: as much as its class is rare",
        has_flag=True, is_later=True),
    Key("optimizer_id", "adam", one_of(*OPTIMIZER_IDS), "the optimizer", has_flag=True),
    Key("weight_decay", 0.0, from_to(0.0, 10.0), "decoupled; adamw only"),
    Key("momentum", 0.0, BELOW_ONE, "sgd only"),
    Key("compute_dtype", "float32", one_of(*COMPUTE_DTYPES),
        "what layers compute in during training; weights, losses and releases are float32"),
    Key("schedule_id", "cosine", one_of(*SCHEDULE_IDS), "how the learning rate varies"),
    Key("learning_rate", 0.001, above_zero(100.0), "the optimizer's largest step size",
        has_flag=True),
    Key("epochs", 5, from_to(1, 100_000), "passes over the train split", has_flag=True),
    Key("patience", 0, from_to(0, 100_000), "epochs without a better one that end it; 0: never",
        is_later=True),
    Key("batch_size", 64, from_to(1, 60_000), "images in each training step", has_flag=True),
    Key("seed", 0, from_to(0, 2**32 - 1), "seed of all random streams", has_flag=True),
    Key("mesh", 1, from_to(0, 100_000), "devices that share each batch; 0: all", _PLACE),
    Key("coordinator", "", COORDINATOR,
        "process 0 of several, or auto under Slurm and Open MPI: see docs/scale.md", _PLACE),
    Key("num_processes", 1, from_to(1, 100_000), "how many processes train together", _PLACE),
    Key("process_id", 0, from_to(0, 99_999), "which of them this one is", _PLACE),
    Key("num_seeds", 1, from_to(1, 2**32 - 1),
        "trains with seed, seed + 1, ...; the best on validation is released"),
    Key("image_side", 0, IMAGE_SIDE,
        "pixels of the square images that the network gets; 0: as the data is; published images: "
        "even, 28 to 64, with a black border", has_flag=True),
    Key("learning_rate_decay", 0.97, above_zero(1.0), "over an epoch; exponential schedule only"),
    Key("learning_rate_floor", 1e-6, from_to(0.0, 100.0), "exponential schedule only"),
    Key("ema_decay", 0.0, BELOW_ONE,
        "of the average of the weights, released in their place; 0: none"),
    # Sabour et al. 2017, section 4.1.
    Key("reconstruction_weight", 0.0005, from_to(0.0, 100.0),
        "of the squared error, summed over pixels, that a network with a decoder adds to its loss"),
    Key("augment_id", "shift_and_rotate", one_of(*AUGMENT_IDS),
        "how training images are varied; byerly takes no settings"),
    Key("augment_shift_px", 0, from_to(0, 14), "the largest shift along each axis"),
    Key("augment_rotation_degrees", 0.0, from_to(0.0, 180.0), "the largest rotation either way"),
    Key("augment_flip", False, SWITCH, "mirrors every second image, left to right",
        is_later=True),
    Key("augment_cutout_px", 0, from_to(0, 127), "side of the square that is blackened",
        is_later=True),
    Key("augment_brightness", 0.0, from_to(0.0, 1.0), "largest change of the factor, from 1",
        is_later=True),
    Key("augment_contrast", 0.0, from_to(0.0, 1.0), "largest change of the factor, from 1",
        is_later=True),
    Key("augment_saturation", 0.0, from_to(0.0, 1.0),
        "largest change of the factor, from 1; images in colour only", is_later=True),
    Key("min_test_accuracy", 0.97, from_to(0.0, 1.0), "release criterion",
        _VERDICT, has_flag=True),
    Key("min_per_class_accuracy", 0.90, from_to(0.0, 1.0), "release criterion",
        _VERDICT, has_flag=True),
    Key("min_balanced_accuracy", 0.0, from_to(0.0, 1.0),
        "release criterion: mean of the classes' accuracies; 0: none", _VERDICT,
        is_later=True),
    Key("min_macro_f1", 0.0, from_to(0.0, 1.0),
        "release criterion: mean of the classes' F1; 0: none", _VERDICT,
        is_later=True),
    Key("min_auc", 0.0, from_to(0.0, 1.0),
        "release criterion: area under the ROC curve, of the second class of two, or the mean of "
        "each class against the rest; 0: none", _VERDICT,
        is_later=True),
    Key("max_model_size_mb", 10.0, above_zero(1e6), "release criterion, on the ONNX file",
        _VERDICT, has_flag=True),
    Key("max_inference_time_ms", 50.0, above_zero(1e6),
        "release criterion, on the ONNX file, p90", _VERDICT, has_flag=True),
    Key("tensorboard", True, SWITCH, "writes curves and pictures of validation", _OUTPUT,
        is_later=True),
    Key("skip_visualizations", False, SWITCH, "leaves the plots out", _OUTPUT, has_flag=True),
    Key("skip_export", False, SWITCH, "leaves the export out: never a release",
        _OUTPUT, has_flag=True),
)
# fmt: on


def keys_that_change(*changes: Changes) -> tuple[str, ...]:
    """Returns the names of the keys that change nothing but this."""
    return tuple(key.name for key in KEYS if key.changes in changes)


PLACES = keys_that_change(Changes.PLACE)


def default() -> ConfigDict:
    """Returns the configuration of `mnist_cnn_v1` on MNIST, which every recipe starts from."""
    return ConfigDict({key.name: key.default for key in KEYS})


def load_recipe(path: str | os.PathLike[str]) -> ConfigDict:
    """Runs a recipe's `get_config()`.

    Raises:
        UserError: there is no such file, it cannot be run, or it does not return a ConfigDict.
    """
    if not os.path.isfile(path):
        raise UserError(f"--config={path} names no file; give a recipe, as those in configs/")
    try:
        config = runpy.run_path(os.fspath(path))["get_config"]()
    except UserError:
        raise
    except Exception as error:  # a recipe is code: it can raise anything
        raise UserError(
            f"recipe {path} fails with {first_line(error)}; correct it, see configs/"
        ) from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config() in {path} must return a ConfigDict; see configs/")
    return config


def require(holds: bool, name: str, value: Any, rule: str) -> None:
    """Raises what is wrong with a key's value, with the rule and the flag that sets it."""
    if not holds:
        has_flag = next(key.has_flag for key in KEYS if key.name == name)
        flag = "--" + name.replace("_", "-") if has_flag else f"--config.{name}"
        raise UserError(f"{name} is {value!r}, but must be {rule}; give {flag} such a value")


def validate(config: Mapping[str, Any]) -> None:
    """Checks every key.

    Raises:
        UserError: a key is missing, unknown, of the wrong type or against its rule.
    """
    for name in sorted({*config} ^ {key.name for key in KEYS}):
        problem = "is not a key of the config" if name in config else "is missing from the config"
        raise UserError(f"{name!r} {problem}; start a recipe from mnist_jax.config.default()")
    for key in KEYS:
        value, is_switch = config[key.name], isinstance(key.default, bool)
        kind = (int, float) if isinstance(key.default, float) else type(key.default)
        is_right = isinstance(value, kind) and isinstance(value, bool) == is_switch
        require(is_right, key.name, value, f"of type {type(key.default).__name__}")
        require(key.rule.holds(value), key.name, value, key.rule.text)
    for holds, name, rule in _between_keys(config):
        require(holds, name, config[name], rule)


def _between_keys(config: Mapping[str, Any]) -> Iterator[tuple[bool, str, str]]:
    """Yields the rules between keys: whether it holds, the key to change, the rule in words."""
    optimizer_id, side = config["optimizer_id"], config["image_side"]
    for name, taker in (("weight_decay", "adamw"), ("momentum", "sgd")):
        holds = config[name] == 0 or optimizer_id == taker
        yield holds, name, f"0 with {optimizer_id}: only {taker} takes it"
    largest = config["learning_rate"]
    is_below = config["learning_rate_floor"] <= largest or config["schedule_id"] != "exponential"
    yield is_below, "learning_rate_floor", f"at most the learning_rate, {largest:g}"
    most = 2**32 - config["seed"]
    yield config["num_seeds"] <= most, "num_seeds", f"from 1 to {most}"
    is_own = config["data"] != ""
    is_fine = side == 0 or is_own or (28 <= side <= 64 and side % 2 == 0)
    yield is_fine, "image_side", "even, from 28 to 64, for published images; or 0"
    yield is_own or not config["drop_duplicates"], "drop_duplicates", "false without --data"
    rule = "28 with augment_id byerly, whose turns and squeezes are made for that size"
    is_byerly = config["augment_id"] == "byerly"
    yield side in (0, 28) or not is_byerly, "image_side", rule
    for name in ("flip", "cutout_px", "brightness", "contrast", "saturation"):
        value, rule = config[f"augment_{name}"], "0 or false with augment_id byerly"
        yield not (is_byerly and value), f"augment_{name}", rule
    num_processes = config["num_processes"]
    has_address = ADDRESS.fullmatch(config["coordinator"]) is not None
    rule = "from 2 to 100000 with coordinator=HOST:PORT, else 1"
    yield (num_processes > 1) == has_address, "num_processes", rule
    yield config["process_id"] < num_processes, "process_id", f"from 0 to {num_processes - 1}"


def formats_to_export(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Spells out `all`; keeps the order of `EXPORT_FORMATS`."""
    wanted = EXPORT_FORMATS if "all" in config["export_format"] else config["export_format"]
    return tuple(name for name in EXPORT_FORMATS if name in wanted)


def config_hash(config: Mapping[str, Any]) -> str:
    """Returns the SHA-256, in hex, of everything that can change the model or its verdict.

    Of the user's own pictures the name counts and not the place: it is in exported files, which are
    the same bytes wherever the pictures lie. What is in them has a hash of its own.
    """
    unused = {key.name for key in KEYS if key.is_later and config[key.name] == key.default}
    kept = {name: config[name] for name in config if name not in PLACES and name not in unused}
    kept["data"] = os.path.basename(os.path.abspath(config["data"])) if config["data"] else ""
    return json_sha256(kept)
