"""The command line: what is wrong is said in one line, at once, and nothing is left behind."""

import gzip
import os
import re
import subprocess
import sys

import pytest

from mnist_jax import train
from mnist_jax.__main__ import MODULES

RECIPE = "from mnist_jax import config\ndef get_config():\n    c = config.default()\n"


def gzipped(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content))


def no_files(folder):
    (folder / "raw" / "mnist").mkdir(parents=True)


def four_files(folder, **changes):
    """Files of the right names, all too short, but for those that are given."""
    header = {"images": bytes([0, 0, 8, 3]), "labels": bytes([0, 0, 8, 1])}
    for split in ("train", "t10k"):
        for kind, dimensions in (("images", 3), ("labels", 1)):
            name = f"{split}-{kind}-idx{dimensions}-ubyte"
            content = changes.get(f"{split}_{kind}", header[kind] + bytes(4 * dimensions))
            gzipped(folder / "raw" / "mnist" / f"{name}.gz", content)


def wrong_magic(folder):
    four_files(folder, t10k_images=b"\x00\x00\x08\x05" + bytes(12))


def huge_header(folder):
    four_files(folder, t10k_images=b"\x00\x00\x08\x03" + b"\x7f\xff\xff\xff" * 3)


def not_gzip(folder):
    four_files(folder)
    (folder / "raw" / "mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(b"plain text")


def cut_gzip(folder):
    four_files(folder)
    path = folder / "raw" / "mnist" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-5])


def only_tfrecords(folder):
    prepared = folder / "data" / "mnist" / "3.0.1"
    prepared.mkdir(parents=True)
    (prepared / "mnist-train.tfrecord-00000-of-00001").write_bytes(b"someone else's")


def recipe(text):
    return lambda folder: (folder / "recipe.py").write_text(text)


def finished(folder):
    (folder / "run" / "logs").mkdir(parents=True)
    (folder / "run" / "logs" / "config.json").write_text('{"config": {}}')
    (folder / "run" / "logs" / "release.json").write_text("{}")


def occupied(folder):
    (folder / "run").mkdir()
    (folder / "run" / "letter.txt").write_text("dear")


def nothing(folder):
    pass


MANUAL = ["--manual-dir=raw", "--data-dir=data", "--output-dir=run"]
WRONG = {
    # flags
    "unknown flag": (nothing, ["--epoch=3"], "Unknown command line flag 'epoch'.*see --help"),
    "no flag": (nothing, ["train"], "'train' is not a flag"),
    "no value": (nothing, ["--epochs"], "Missing value for flag --epochs"),
    "not a number": (nothing, ["--epochs=many"], "--epochs=many"),
    "not whole": (nothing, ["--batch-size=1.5"], "--batch_size=1.5"),
    "zero epochs": (nothing, ["--epochs=0"], "epochs is 0, but must be from 1 to"),
    "negative seed": (nothing, ["--seed=-1"], "seed is -1, but must be from 0"),
    "rate nan": (nothing, ["--learning-rate=nan"], "learning_rate is nan, but must be above 0"),
    "rate zero": (nothing, ["--learning-rate=0"], "learning_rate is 0.0, but must be above 0"),
    "accuracy above one": (nothing, ["--min-test-accuracy=97"], "97.0, but must be from 0 to 1"),
    "size negative": (nothing, ["--max-model-size-mb=-1"], "must be above 0"),
    "unknown model": (nothing, ["--model-id=resnet"], "'resnet', but must be one of mnist_cnn_v1"),
    "unknown data": (nothing, ["--dataset-id=cifar"], "'cifar', but must be one of digits_v1"),
    "unknown loss": (
        nothing,
        ["--criterion-id=l1"],
        "'l1', but must be one of capsule_loss_v1, mse, nll",
    ),
    "unknown optimizer": (nothing, ["--optimizer-id=lion"], "'lion', but must be one of adam"),
    "unknown format": (nothing, ["--export_format=pkl"], "pkl.*all or some of orbax"),
    "empty folder name": (nothing, ["--data-dir="], "data_dir is '', but must be the path"),
    "decay without adamw": (nothing, ["--config.weight_decay=0.1"], "only adamw takes it"),
    "momentum without sgd": (nothing, ["--config.momentum=0.9"], "only sgd takes it"),
    # configs
    "missing recipe": (
        nothing,
        ["--config=none.py"],
        "--config=none.py names no file; give a recipe",
    ),
    "no recipe": (nothing, ["--config="], "--config= names no file"),
    "a folder for a recipe": (nothing, ["--config=."], "--config=. names no file"),
    "unknown key": (nothing, ["--config.widht=3"], "unknown key of the config: widht; see"),
    "nearly a key": (
        nothing,
        ["--config.learning_rat=3"],
        "unknown key of the config: learning_rat; Did you mean learning_rate instead of",
    ),
    "wrong type": (nothing, ["--config.epochs=x"], "--config.epochs=x"),
    "recipe with a syntax error": (recipe("def"), ["--config=recipe.py"], "invalid syntax"),
    "recipe without get_config": (recipe("x = 1"), ["--config=recipe.py"], "get_config"),
    "recipe without return": (recipe(RECIPE), ["--config=recipe.py"], "must return a ConfigDict"),
    "recipe with a wrong value": (
        recipe(RECIPE + "    c.epochs = -3\n    return c\n"),
        ["--config=recipe.py"],
        "epochs is -3",
    ),
    "recipe with an extra key": (
        recipe(RECIPE + "    c.depth = 3\n    return c\n"),
        ["--config=recipe.py"],
        "'depth' is not a key of the config",
    ),
    "recipe without a key": (
        recipe(RECIPE + "    del c.epochs\n    return c\n"),
        ["--config=recipe.py"],
        "'epochs' is missing from the config",
    ),
    # data files
    "no raw folder": (nothing, MANUAL, "manual_dir raw is not a folder"),
    "no raw files": (no_files, MANUAL, "t10k-images-idx3-ubyte"),
    "empty raw files": (four_files, MANUAL, "raw/mnist/"),
    "wrong magic number": (wrong_magic, MANUAL, "t10k-images-idx3-ubyte.gz.*magic"),
    "absurd header": (huge_header, MANUAL, "t10k-images-idx3-ubyte.gz"),
    "not gzip": (not_gzip, MANUAL, "t10k-images-idx3-ubyte.gz"),
    "truncated gzip": (cut_gzip, MANUAL, "t10k-images-idx3-ubyte.gz"),
    "tfrecords only": (only_tfrecords, ["--data-dir=data", "--output-dir=run"], "TFRecord"),
    # folders
    "batch above the split": (
        nothing,
        ["--dataset-id=digits_v1", "--batch-size=5000", "--data-dir=data", "--output-dir=run"],
        "batch_size is 5000, but the train split has",
    ),
    "a file for a run": (
        lambda folder: (folder / "run").write_text(""),
        ["--output-dir=run"],
        "run is a file, not a folder",
    ),
    "a pattern for a folder": (nothing, ["--output-dir=a[b]"], r"holds '\[', which the checkpoint"),
    "an .env of bytes": (
        lambda folder: (folder / ".env").write_bytes(b"\xff\xfe\xff"),
        [],
        ".env cannot be read",
    ),
    "a damaged unfinished run": (
        lambda folder: (
            [(folder / "run" / "logs").mkdir(parents=True)]
            and (folder / "run" / "logs" / "config.json").write_text("{}")
        ),
        ["--output-dir=run"],
        "config.json is not what a run writes",
    ),
    "a folder of something else": (occupied, ["--output-dir=run"], "holds no run"),
    "a finished run": (finished, ["--output-dir=run"], "holds a finished run"),
    "a file for the data": (
        lambda folder: (folder / "data").write_text(""),
        ["--dataset-id=digits_v1", "--data-dir=data", "--output-dir=run"],
        "data",
    ),
}


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_exits_2_with_one_line_and_leaves_nothing(case, tmp_path, monkeypatch, capfd):
    prepare, arguments, message = WRONG[case]
    monkeypatch.chdir(tmp_path)
    for name in ("DATA_DIR", "OUTPUT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "config_config", raising=False)  # another test's recipe
    prepare(tmp_path)
    before = contents(tmp_path)
    status = train.main(["-q", *arguments])
    out, err = capfd.readouterr()
    assert status == 2
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert re.search(message, err), err
    left = {
        path: content
        for path, content in contents(tmp_path).items()
        if path.suffix != ".pyc" and "digits_v1" not in path.parts  # prepared data is whole data
    }
    assert left == before


def test_there_are_enough_of_them():
    assert len(WRONG) >= 25


def test_help_and_a_mistake_answer_without_loading_jax(tmp_path):
    code = (
        "import sys; from mnist_jax import train\n"
        "assert train.main(['--help']) == 0\n"
        "assert train.main(['--epochs=0']) == 2\n"
        "assert 'jax' not in sys.modules and 'sklearn' not in sys.modules"
    )
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "usage: scripts/train" in done.stdout
    after = os.times()  # of processor time, which other work on the machine does not lengthen
    assert sum(after[2:4]) - sum(before[2:4]) < 2


def test_help_of_no_command_loads_jax():
    """Not even of those that are for research: that takes a second, and help should not."""
    code = (
        "import contextlib, importlib, sys\n"
        "from mnist_jax.__main__ import MODULES\n"
        "for name, module in MODULES.items():\n"
        "    with contextlib.suppress(SystemExit):  # argparse's\n"
        "        importlib.import_module(module).main(['--help'])\n"
        "    assert 'jax' not in sys.modules, name"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\nusage: ") >= len(MODULES) - 1


def test_environment_files_are_read_below_the_environment(tmp_path, monkeypatch, capfd):
    (tmp_path / ".env").write_text("DATA_DIR=from_file\nOUTPUT_DIR=from_file\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUTPUT_DIR", "from_environment")
    seen = {}
    monkeypatch.setattr(
        "mnist_jax.pipeline.run", lambda config, console, phases: seen.update(config) or 0
    )
    assert train.main([]) == 0
    assert seen["data_dir"] == "from_file"
    assert seen["output_dir"].startswith("from_environment_")
