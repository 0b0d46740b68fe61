"""Wrong files in the place of the right ones: each must turn the verdict, for the right reason.

The whole way: the files on disk, `scripts/export`, its exit status, release.json. What takes long,
all of the capsule network among it, runs with scripts/test -m slow. `test_verify.py` tests the
checks alone, faster and finer.
"""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mnist_jax import reexport, train
from mnist_jax.card import document
from mnist_jax.release import prove
from mnist_jax.run.paths import EXPORTED

ONNX = EXPORTED["onnx"]
FLAGS = ["--dataset-id=digits_v1", "-q", "--skip-visualizations"]
EASY = ["--min-test-accuracy=0", "--min-per-class-accuracy=0", "--max-inference-time-ms=1000"]
# What it has learnt does not matter here.
CAPSULES = [
    *("--model-id=mnist_efficient_capsule_v1", "--criterion-id=capsule_loss_v1"),
    *("--batch-size=64", "--epochs=1", "--export_format=onnx", "--export_format=safetensors"),
]


def slowly(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def files_of(run_dir, data_dir):
    """A run that is released, and what its files hold."""
    return SimpleNamespace(
        folder=run_dir,
        data=data_dir,
        files={
            name: (run_dir / path).read_bytes()
            for name, path in EXPORTED.items()
            if (run_dir / path).is_file()
        },
    )


def trained(folder, *flags):
    places = [f"--data-dir={folder / 'data'}", f"--output-dir={folder / 'run'}"]
    assert train.main([*FLAGS, *EASY, *flags, *places]) == 0
    return files_of(folder / "run", folder / "data")


@pytest.fixture(scope="module")
def cnn(released, tmp_path_factory):
    copy = tmp_path_factory.mktemp("cnn") / "run"
    shutil.copytree(released / "run", copy)
    return files_of(copy, released / "data")


@pytest.fixture(scope="module")
def later_epoch(tmp_path_factory):
    """The same run, but an epoch longer."""
    flags = ["--batch-size=32", "--config.augment_shift_px=1", "--epochs=3"]
    return trained(tmp_path_factory.mktemp("later"), *flags)


@pytest.fixture(scope="module")
def capsules(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("capsules"), *CAPSULES)


def release_with(run, files, monkeypatch, formats=("onnx",)):
    """Exports again, with these files in the place of those that an export would write."""
    for path in (*EXPORTED.values(), "models/weights.bin"):
        if (run.folder / path).is_file():
            (run.folder / path).unlink()

    def write_exports(formats, subject, run_dir):
        for path, data in files.items():
            (run_dir / path).write_bytes(data)

    monkeypatch.setattr(prove, "write_exports", write_exports)
    monkeypatch.setattr(document, "draw", lambda *_: None)  # the verdict is there by then
    flags = [f"--export_format={name}" for name in formats]
    status = reexport.main([str(run.folder), f"--data-dir={run.data}", *flags])
    return status, json.loads((run.folder / "logs" / "release.json").read_text())


def assert_refused(status, release, *reasons):
    assert (status, release["verdict"]) == (1, "refused")
    failed = {row["name"] for row in release["criteria"] if not row["passed"]}
    # What cannot be read cannot be measured; nothing else may have a part in the refusal.
    assert "verified" in failed
    assert failed <= {"verified", "model_size_mb", "inference_time_ms"}
    for reason in reasons:
        assert any(re.match(f"verified: {reason}", line) for line in release["reasons"]), release[
            "reasons"
        ]


def onnx_with(run, sabotage):
    proto = onnx.load_model_from_string(run.files["onnx"])
    sabotage(proto)
    return {ONNX: proto.SerializeToString()}


# ---- What is done to the graph


def initializer(proto, *dims):
    return next(tensor for tensor in proto.graph.initializer if tuple(tensor.dims) == dims)


def change(proto, dims, function):
    tensor = initializer(proto, *dims)
    array = np.ascontiguousarray(function(numpy_helper.to_array(tensor)))
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def constant(proto, name, value):
    proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def insert_first(proto, operator, *inputs):
    """Puts a node between the image and all that reads it."""
    for node in proto.graph.node:
        node.input[:] = ["sabotaged" if name == "image" else name for name in node.input]
    proto.graph.node.insert(0, helper.make_node(operator, ["image", *inputs], ["sabotaged"]))


def insert_last(proto, operator, *inputs, **attributes):
    """Puts a node between the graph and its scores."""
    for node in proto.graph.node:
        node.output[:] = ["honest" if name == "scores" else name for name in node.output]
    node = helper.make_node(operator, ["honest", *inputs], ["scores"], **attributes)
    proto.graph.node.append(node)


def transpose_a_kernel(proto):
    change(proto, (64, 32, 3, 3), lambda kernel: kernel.swapaxes(2, 3))


def permute_classes(proto):
    change(proto, (128, 10), lambda kernel: np.roll(kernel, 1, axis=1))


def swap_two_classes_at_the_end(proto):
    """Works on any network, and is the only thing wrong with it."""
    order = np.array([1, 0, *range(2, 10)])
    insert_last(proto, "Gather", constant(proto, "order", order), axis=1)


def poison_a_weight(proto):
    def with_nan(kernel):
        kernel = kernel.copy()
        kernel.flat[0] = np.nan
        return kernel

    change(proto, (128, 10), with_nan)


def poison_every_first_weight(proto):
    tensor = proto.graph.initializer[0]
    array = np.full_like(numpy_helper.to_array(tensor), np.nan)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def leave_dropout_on(proto):
    node = proto.graph.node[-1]  # scores are a softmax's: drop what goes into it
    ratio, on = constant(proto, "ratio", np.float32(0.5)), constant(proto, "on", True)
    dropout = helper.make_node("Dropout", [node.input[0], ratio, on], ["dropped"])
    node.input[0] = "dropped"
    proto.graph.node.insert(len(proto.graph.node) - 1, dropout)


def leave_normalisation_out(proto):
    assert [node.op_type for node in proto.graph.node[:2]] == ["Sub", "Div"]
    proto.graph.node[2].input[0] = "image"
    del proto.graph.node[:2]


def normalise_by_the_batch(proto):
    mean = helper.make_node("ReduceMean", ["image"], ["mean"], axes=[0], keepdims=1)
    insert_first(proto, "Sub", "mean")
    proto.graph.node.insert(0, mean)


def expect_grey_levels_to_255(proto):
    insert_first(proto, "Div", constant(proto, "scale", np.float32(255)))


def expect_black_on_white(proto):
    insert_first(proto, "Neg")


def leave_the_softmax_out(proto):
    *_, before, last = proto.graph.node
    assert last.op_type == "Softmax"
    before.output[0] = "scores"
    del proto.graph.node[-1]


def double_the_scores(proto):
    """The classes stay right, but no score is a probability."""
    insert_last(proto, "Mul", constant(proto, "two", np.float32(2)))


def give_scores_in_double(proto):
    insert_last(proto, "Cast", to=TensorProto.DOUBLE)
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def take_images_in_double(proto):
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    insert_first(proto, "Cast")
    proto.graph.node[0].attribute.append(helper.make_attribute("to", TensorProto.FLOAT))


def round_weights_to_half(proto):
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            rounded = array.astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))


def fix_the_batch(proto):
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1


def add_noise(proto):
    noise = helper.make_node("RandomNormalLike", ["honest"], ["noise"], scale=1e-9)
    insert_last(proto, "Add", "noise")
    proto.graph.node.insert(len(proto.graph.node) - 1, noise)


def name_the_classes_in_another_order(proto):
    (entry,) = [entry for entry in proto.metadata_props if entry.key == "class_names"]
    entry.value = json.dumps(json.loads(entry.value)[::-1])


DIFFERS = "onnx: parity, optimisation (disabled|basic|all): test set, batch 64: "
SABOTAGES = {  # the first by default; `test_verify.py` has the like of the others
    "a transposed weight": (transpose_a_kernel, [f"{DIFFERS}a score differs by"]),
    "classes permuted in the weights": (
        permute_classes,
        [f"{DIFFERS}.* images get another class", rf"{DIFFERS}\d+ are right, not \d+ as in JAX"],
    ),
    "a weight that is NaN": (
        poison_a_weight,
        ["onnx: weights: .* is not finite", f"{DIFFERS}scores are not finite"],
    ),
    "dropout left on": (
        leave_dropout_on,
        ["onnx: operators: Dropout is not allowed", f"{DIFFERS}a score differs by"],
    ),
    "normalisation left out": (leave_normalisation_out, [f"{DIFFERS}a score differs by"]),
    "a batch of one": (
        fix_the_batch,
        ["onnx: interface: .*1x1x28x28.* is not .*batchx1x28x28", "onnx: parity"],
    ),
    "class names in another order": (
        name_the_classes_in_another_order,
        ["onnx: metadata: class_names"],
    ),
    "normalised by the batch": (
        normalise_by_the_batch,
        [f"{DIFFERS}a score differs by", ".* sample, batch 1: a score differs by"],
    ),
    "grey levels to 255": (expect_grey_levels_to_255, [f"{DIFFERS}a score differs by"]),
    "black on white": (expect_black_on_white, [f"{DIFFERS}a score differs by"]),
    "logits for scores": (leave_the_softmax_out, [f"{DIFFERS}a score differs by"]),
    "scores that sum to two": (double_the_scores, [f"{DIFFERS}a score differs by"]),
    "weights in half precision": (round_weights_to_half, [f"{DIFFERS}a score differs by"]),
    "scores in double": (give_scores_in_double, ["onnx: interface: .*DOUBLE.* is not "]),
    "images in double": (
        take_images_in_double,
        ["onnx: interface: .*DOUBLE.* is not ", "onnx: parity.* Unexpected input data type"],
    ),
    "noise too small to see": (add_noise, ["onnx: operators: RandomNormalLike is not allowed$"]),
}


@pytest.mark.parametrize("network", ["cnn", slowly("capsules")])
def test_the_files_as_they_are_are_released(network, request, monkeypatch):
    """Without it, whatever refuses everything would pass all tests below."""
    run = request.getfixturevalue(network)
    files = {EXPORTED[name]: data for name, data in run.files.items()}
    status, release = release_with(run, files, monkeypatch, formats=run.files)
    assert (status, release["verdict"], release["reasons"]) == (0, "released", [])


@pytest.mark.parametrize(
    "name", [slowly(name) if index else name for index, name in enumerate(SABOTAGES)]
)
def test_a_sabotaged_cnn_is_refused(cnn, name, monkeypatch):
    sabotage, reasons = SABOTAGES[name]
    assert_refused(*release_with(cnn, onnx_with(cnn, sabotage), monkeypatch), *reasons)


def transpose_the_largest_kernel(proto):
    kernels = [tensor for tensor in proto.graph.initializer if len(tensor.dims) == 4]
    largest = max(kernels, key=lambda tensor: np.prod(tensor.dims))
    assert largest.dims[2] == largest.dims[3] > 1
    change(proto, tuple(largest.dims), lambda kernel: kernel.swapaxes(2, 3))


SABOTAGES_OF_CAPSULES = {
    "a transposed weight": (transpose_the_largest_kernel, [f"{DIFFERS}a score differs by"]),
    "two classes swapped": (
        swap_two_classes_at_the_end,
        [f"{DIFFERS}.* images get another class"],
    ),
    "weights that are NaN": (poison_every_first_weight, ["onnx: weights: .* is not finite"]),
    "grey levels to 255": (expect_grey_levels_to_255, [f"{DIFFERS}a score differs by"]),
    "lengths above one": (double_the_scores, [f"{DIFFERS}a score differs by"]),
    "noise too small to see": SABOTAGES["noise too small to see"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SABOTAGES_OF_CAPSULES)
def test_a_sabotaged_capsule_network_is_refused(capsules, name, monkeypatch):
    sabotage, reasons = SABOTAGES_OF_CAPSULES[name]
    assert_refused(*release_with(capsules, onnx_with(capsules, sabotage), monkeypatch), *reasons)


# ---- Files that are right in themselves, but not the right ones; files that are not whole


@pytest.mark.slow
def test_stale_files_of_another_epoch_are_refused(cnn, later_epoch, monkeypatch):
    files = {EXPORTED[name]: data for name, data in cnn.files.items()}
    assert_refused(
        *release_with(later_epoch, files, monkeypatch, formats=cnn.files),
        f"{DIFFERS}a score differs by",
        "safetensors: parity: its arrays are not, bit for bit, the checkpoint's",
        "stablehlo: parity: test set.* a score differs by",
    )


@pytest.mark.slow
def test_another_models_file_under_the_right_name_is_refused(cnn, capsules, monkeypatch):
    assert_refused(
        *release_with(cnn, {ONNX: capsules.files["onnx"]}, monkeypatch),
        "onnx: metadata: model_id",
        f"{DIFFERS}a score differs by",
    )
    assert_refused(
        *release_with(capsules, {ONNX: cnn.files["onnx"]}, monkeypatch),
        "onnx: metadata: model_id",
        f"{DIFFERS}a score differs by",
    )


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 1.0, 0.0], ids=["half", "whole", "empty"])
def test_weights_beside_the_file_are_refused_cut_off_or_not(cnn, share, monkeypatch):
    outside = {}

    def store_outside(proto):
        tensor = initializer(proto, 9216, 128)
        data = tensor.raw_data
        onnx.external_data_helper.set_external_data(tensor, "weights.bin")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        outside["models/weights.bin"] = data[: int(share * len(data))]

    files = onnx_with(cnn, store_outside) | outside
    assert_refused(
        *release_with(cnn, files, monkeypatch), "onnx: weights: .* is stored outside the file"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cut", "reasons"),
    [
        (lambda data: data[: len(data) // 2], ["onnx: parity"]),
        (lambda data: data[:-1], ["onnx: checker: ", "onnx: parity"]),
        (lambda data: b"", ["onnx: checker: ", "onnx: interface: .*is not %image"]),
    ],
    ids=["by half", "by a byte", "empty"],
)
def test_a_file_that_is_cut_off_is_refused(cnn, cut, reasons, monkeypatch):
    files = {ONNX: cut(cnn.files["onnx"])}
    assert_refused(*release_with(cnn, files, monkeypatch), *reasons)


def test_a_file_that_is_not_there_is_refused(cnn, monkeypatch):
    assert_refused(*release_with(cnn, {}, monkeypatch), "onnx: file: FileNotFoundError")
    files = {EXPORTED["safetensors"]: cnn.files["safetensors"]}
    verdict = release_with(cnn, files, monkeypatch, formats=["safetensors"])
    assert_refused(*verdict, "no ONNX file was verified")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("safetensors", "its arrays are not, bit for bit"), slowly("stablehlo", "")],
)
def test_one_bit_in_another_format_refuses_the_release(cnn, name, reason, monkeypatch):
    """All formats ship; a right ONNX file does not excuse the others."""
    data = bytearray(cnn.files[name])
    data[len(data) // 2] ^= 0x10
    files = {EXPORTED[format]: cnn.files[format] for format in cnn.files} | {
        EXPORTED[name]: bytes(data)
    }
    verdict = release_with(cnn, files, monkeypatch, formats=cnn.files)
    assert_refused(*verdict, f"{name}: parity: {reason}")
