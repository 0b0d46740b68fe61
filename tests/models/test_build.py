"""Networks and losses of the user's own: what is wrong with them is said in one line."""

import re

import pytest

from mnist_jax import train

NETWORK = """
import jax
import jax.numpy as jnp
from flax import nnx

class Net(nnx.Module):
    def __init__(self, *, num_classes, image_side, rngs):
        self.dense = nnx.Linear(image_side**2, num_classes, rngs=rngs)

    def __call__(self, images):
        return self.dense(images.reshape(images.shape[0], -1))
"""
INIT = "(self, *, num_classes, image_side, rngs):"
OUT = "return self.dense(images.reshape(images.shape[0], -1))"
LOSS = "import jax.numpy as jnp\ndef loss(outputs, labels):\n    return "


def changed(old, new):
    assert old in NETWORK
    return NETWORK.replace(old, new)


FAULTY_NETWORKS = {
    "does not load": ("import no_such_module", "cannot be loaded.*no_such_module.*fix it"),
    "ends the program": ("raise SystemExit(3)", "cannot be loaded.*SystemExit"),
    "is not Python": ("def", "cannot be loaded.*SyntaxError"),
    "no such class": ("class Other: pass", "'Net', but .* defines no Net; check the name"),
    "not a module": ("class Net: pass", "not a class derived from flax.nnx.Module; write"),
    "constructor fails": (
        changed("self.dense =", "raise ValueError('too small\\nand more')\n        self.dense ="),
        r"cannot be built for images of 28x28 .*\(ValueError: too small\); fix its constructor",
    ),
    "asks for something else": (
        changed(INIT, INIT.replace("rngs", "rngs, depth")),
        "asks for depth, but is offered .*--config.network.depth=VALUE",
    ),
    "call fails": (changed(OUT, "raise RuntimeError('no')"), "fails on images.*RuntimeError: no"),
    "wrong number of classes": (
        changed("num_classes, rngs=", "3, rngs="),
        r"returns \(2, 3\) for two images of 10 classes.*change its last layer",
    ),
    "not an array": (changed(OUT, "return {}"), "returns dict for two images"),
    "wrong axes": (changed("images.shape[0], -1)", "images.shape[0], 1, -1)"), r"\(2, 1, 10\)"),
    "unknown outputs": (
        changed("    def __init__", "    outputs = 'boxes'\n    def __init__"),
        "boxes",
    ),
    "half precision": (
        changed(OUT, OUT + ".astype(jnp.bfloat16)"),
        "returns bfloat16, but must return float32; convert it",
    ),
    "not finite": (changed(OUT, OUT + " * jnp.inf"), "not finite for black images; check"),
    "random in evaluation": (
        changed(OUT, OUT + " + jax.random.normal(jax.random.key(0), (10,))[None]"),
        "draws random numbers, which Net must not in evaluation",
    ),
    "stateful in evaluation": (
        changed(
            "self.dense =", "self.n = nnx.Variable(jnp.float32(0))\n        self.dense ="
        ).replace(OUT, "self.n[...] = self.n[...] + 1\n        " + OUT),
        "evaluation changes the network's state, which Net must not",
    ),
    "dropout without a stream": (
        changed("self.dense =", "self.drop = nnx.Dropout(0.5)\n        self.dense =").replace(
            OUT, OUT.replace("return ", "return self.drop(") + ")"
        ),
        "Net fails in training on images .*fix it, or what model.train.. switches",
    ),
    "a pair in training": (
        changed("self.dense =", "self.drop = nnx.Dropout(0)\n        self.dense =").replace(
            OUT,
            OUT.replace("return ", "x = ") + "\n        return "
            "x if self.drop.deterministic else (x, x)",
        ),
        "Net fails in training on images .*'tuple' object has no attribute 'astype'",
    ),
    "draws another shape": (
        NETWORK + "\n    def reconstruct(self, outputs, labels): return outputs",
        r"Net.reconstruct returns \(64, 10\), but must return .* \(64, 28, 28, 1\)",
    ),
    "drawing fails": (
        NETWORK + "\n    def reconstruct(self, outputs, labels): return outputs.no",
        r"Net.reconstruct fails \(AttributeError: .*; fix it there",
    ),
    "not exportable": (
        changed(OUT, OUT.replace("images.reshape", "jnp.fft.fft2(images).real.reshape")),
        "Net cannot be exported to ONNX: .*fft.*; write the layer named there",
    ),
}
FAULTY_LOSSES = {
    "not a function": ("loss = 3", "is not a function; name one"),
    "the mean": (LOSS + "outputs.mean()", r"returns \(\) float32 for two examples.*leave the mean"),
    "a loss for each class": (LOSS + "outputs", r"returns \(2, 10\) float32 for two examples"),
    "integers": (LOSS + "labels", r"returns \(2,\) uint8"),
    "not finite": (LOSS + "jnp.log(outputs[:, 0] - 0.5)", "losses that are not finite.*guard"),
    "fails": (LOSS + "outputs.no", r"fails on logits \[2, 10\] and two labels \(AttributeError"),
    "takes capsules": (
        LOSS + "outputs[:, 0]\nloss.takes = 'capsules'",
        "which takes capsules",
    ),
}


@pytest.fixture
def refused(tmp_path, capfd):
    """Runs the program, which must refuse in one line; returns the line."""

    def run(*flags):
        places = [f"--data-dir={tmp_path / 'data'}", f"--output-dir={tmp_path / 'run'}"]
        assert train.main(["-q", "--dataset-id=digits_v1", "--epochs=1", *flags, *places]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert not (tmp_path / "run").exists()
        return line

    return run


def write(tmp_path, text):
    path = tmp_path / "own.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", FAULTY_NETWORKS)
def test_a_faulty_network_is_refused_in_one_line(tmp_path, refused, name):
    text, message = FAULTY_NETWORKS[name]
    line = refused(f"--model-id={write(tmp_path, text)}:Net")
    assert re.search(message, line), line


@pytest.mark.parametrize("name", FAULTY_LOSSES)
def test_a_faulty_loss_is_refused_in_one_line(tmp_path, refused, name):
    text, message = FAULTY_LOSSES[name]
    own = write(tmp_path, NETWORK + "\n" + text)
    line = refused(f"--model-id={own}:Net", f"--criterion-id={own}:loss")
    assert re.search(message, line), line


def test_a_file_a_module_and_a_setting_that_are_not_there_are_refused(tmp_path, refused):
    assert "must be in a file that exists" in refused(f"--model-id={tmp_path / 'none.py'}:Net")
    assert "cannot be loaded (ModuleNotFoundError" in refused("--model-id=no_such_package:Net")
    dense = "nnx.Linear(image_side**2, num_classes, rngs=rngs)"
    without = changed(dense, "lambda x: x[:, :num_classes]")
    own = write(tmp_path, without)
    line = refused(f"--model-id={own}:Net", "--config.compute_dtype=bfloat16")
    assert "has no layer of Flax's that could compute in it; use float32" in line
