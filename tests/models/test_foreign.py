"""Weights of other people's code: their golden outputs, and what does not fit."""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mnist_jax import models
from mnist_jax.data.idx import read_idx
from mnist_jax.errors import UserError
from mnist_jax.export import weight_files
from mnist_jax.models import foreign
from mnist_jax.models.network import rebuild, take_apart
from tests.compiling import quick_jit


def build(model_id):
    return models.build(model_id, num_classes=10, rngs=nnx.Rngs(0))


def shapes(model_id):
    """A network's parts without arrays, whose weights take seconds to draw."""
    return take_apart(nnx.eval_shape(lambda: build(model_id)))


def golden(real_data, name):
    with np.load(real_data / "golden" / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    weights = {key: array for key, array in arrays.items() if key.startswith("W:")}
    return weight_files.Weights(weights, origin="keras", is_ordered=True), arrays


def first_images(real_data, number):
    path = real_data / "mnist" / "t10k-images-idx3-ubyte.gz"
    images = read_idx(path, (10_000, 28, 28), 255, None)[:number]
    return jnp.asarray(images.astype(np.float32)[..., None] / 255)


def imported(model_id, weights, scale):
    structure, params, model_state = shapes(model_id)
    placed = foreign.place(
        weights.arrays,
        params,
        model_state,
        origin=weights.origin,
        model_id=model_id,
        is_ordered=weights.is_ordered,
    )
    scaled = foreign.absorb_scale(model_id, placed.params, placed.model_state, scale)
    return rebuild(structure, *jax.tree.map(jnp.asarray, scaled)), placed


def test_efficient_capsnet_is_its_authors_layer_by_layer(real_data):
    weights, told = golden(real_data, "efficient_capsule")
    model, placed = imported("mnist_efficient_capsule_v1", weights, 255 / 256)
    assert not placed.has_decoder
    images = first_images(real_data, 300)
    primary = quick_jit(model.primary_capsules)(images[:8])
    capsules, couplings = quick_jit(model.route)(primary)
    np.testing.assert_allclose(primary, told["primary"], atol=1e-5, rtol=0)
    theirs = told["couplings"][..., 0]
    np.testing.assert_allclose(couplings, theirs, atol=1e-5, rtol=0)
    np.testing.assert_allclose(capsules, told["capsules"], atol=1e-5, rtol=0)
    scores = np.linalg.norm(quick_jit(model)(images), axis=-1)
    np.testing.assert_allclose(scores, told["scores"], atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def hvc_logits():
    """What `mnist_hvc_capsule_v1` with given arrays makes of 200 images, compiled once."""
    structure, _, _ = shapes("mnist_hvc_capsule_v1")
    return quick_jit(lambda arrays, images: rebuild(structure, *arrays)(images))


def test_homogeneous_capsules_are_their_authors(real_data, hvc_logits):
    weights, told = golden(real_data, "hvc_capsule")
    model, _ = imported("mnist_hvc_capsule_v1", weights, 1.0)
    logits = hvc_logits(take_apart(model)[1:], first_images(real_data, 200))
    np.testing.assert_allclose(logits, told["logits"], atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def sabours_port(tmp_path_factory):
    """A Keras file as EscVM's port saves it, network and decoder, and its arrays by name."""
    sizes = {
        "conv2d/kernel:0": (9, 9, 1, 256),
        "conv2d/bias:0": (256,),
        "primary_caps/kernel:0": (9, 9, 256, 256),
        "primary_caps/biases:0": (32, 8),
        "digit_caps/W:0": (1152, 8, 160),
        "digit_caps/biases:0": (10, 16),
        "dense/kernel:0": (160, 512),
        "dense/bias:0": (512,),
        "dense_1/kernel:0": (512, 1024),
        "dense_1/bias:0": (1024,),
        "dense_2/kernel:0": (1024, 784),
        "dense_2/bias:0": (784,),
    }
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("keras") / "capsnet.h5"
    arrays = {name: rng.standard_normal(shape, np.float32) for name, shape in sizes.items()}
    for name, factor in (("conv2d/kernel:0", 0.1), ("digit_caps/W:0", 0.1)):
        arrays[name] *= np.float32(factor)
    arrays["primary_caps/kernel:0"] *= np.float32(0.02)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["Original_CapsNet", "Generator"]
        for layer in file.attrs["layer_names"]:
            names = [name for name in arrays if name.startswith("dense") == (layer == "Generator")]
            group = file.create_group(layer)
            group.attrs["weight_names"] = names
            for name in names:
                group[name] = arrays[name]
    return path, arrays


def test_a_port_of_sabours_network_is_what_its_papers_say(sabours_port, reference, real_data):
    path, arrays = sabours_port
    model, placed = imported("mnist_capsule_v1", weight_files.read(path), 255 / 256)
    assert placed.has_decoder and placed.names["params/decoder/dense3/bias"].endswith("2/bias:0")
    image = first_images(real_data, 1)
    capsules = quick_jit(model)(image)

    at = {name: reference.float64(array) for name, array in arrays.items()}
    x = reference.float64(image) * 255 / 256  # the port divides pixels by 256
    x = np.maximum(reference.convolve(x, at["conv2d/kernel:0"]) + at["conv2d/bias:0"], 0)
    x = reference.convolve(x, at["primary_caps/kernel:0"], 2).reshape(-1, 32, 8) / 32
    primary = [reference.squash(s) for s in (x + at["primary_caps/biases:0"]).reshape(-1, 8)]
    votes = reference.cast_votes(primary, at["digit_caps/W:0"], 16)
    expected = reference.dynamic_routing(votes, at["digit_caps/biases:0"], 3)
    np.testing.assert_allclose(capsules[0], expected, atol=1e-5, rtol=0)


def test_the_optimizer_in_a_file_of_keras_3_is_passed_over(tmp_path):
    kernel = np.random.default_rng(0).standard_normal((4, 3), np.float32)
    with h5py.File(tmp_path / "model.weights.h5", "w") as file:
        file["layers/dense/vars/0"] = kernel
        file["optimizer/vars/0"] = 1875  # steps, a whole number
        file["optimizer/vars/2"] = np.zeros((4, 3), np.float32)
    weights = weight_files.read(tmp_path / "model.weights.h5")
    assert list(weights.arrays) == ["layers/dense/vars/0"]
    np.testing.assert_array_equal(weights.arrays["layers/dense/vars/0"], kernel)


def test_a_published_file_of_another_network_is_refused_by_name(real_data):
    """Its trunk has instance normalisation and two views of each object: no network of ours."""
    weights = weight_files.read(real_data / "golden" / "efficient_capsnet_SMALLNORB.h5")
    assert weights.arrays["CapsNet/digit_caps/W:0"].shape == (5, 16, 8, 16)
    with pytest.raises(UserError, match=r"lacks conv2d/kernel.*it holds CapsNet/conv2d_4/kernel"):
        imported("mnist_efficient_capsule_v1", weights, 1.0)


def cnn_of_torch():
    shapes = {"conv1": (32, 1, 3, 3), "conv2": (64, 32, 3, 3), "fc1": (128, 9216), "fc2": (10, 128)}
    arrays, rng = {}, np.random.default_rng(0)
    for name, shape in shapes.items():
        arrays[f"{name}.weight"] = rng.normal(size=shape).astype(np.float32)
        arrays[f"{name}.bias"] = rng.normal(size=shape[0]).astype(np.float32)
    return arrays


def place(arrays, **options):
    _, params, model_state = shapes("mnist_cnn_v1")
    facts = {"origin": "torch", "model_id": "mnist_cnn_v1", **options}
    return foreign.place(arrays, params, model_state, **facts)


def test_kernels_of_torch_are_turned_by_name_and_by_order():
    arrays = cnn_of_torch()
    other_names = {f"features.{index}": array for index, array in enumerate(arrays.values())}
    for placed in (place(arrays), place(other_names, is_ordered=True)):
        kernel = placed.params["conv2"]["kernel"]
        assert kernel[1, 2, 3, 4] == arrays["conv2.weight"][4, 3, 1, 2]
        assert placed.params["dense1"]["kernel"][5, 6] == arrays["fc1.weight"][6, 5]


@pytest.mark.parametrize("is_mapped", [False, True])
def test_a_cnn_of_keras_flattens_with_the_channels_last(is_mapped):
    random = np.random.default_rng(0)
    arrays = {
        f"{layer}/{layer}/{part}:0": random.standard_normal(shape).astype(np.float32) / size
        for layer, shape, size in (
            ("conv1", (3, 3, 1, 32), 3),
            ("conv2", (3, 3, 32, 64), 17),
            ("dense1", (9216, 128), 96),
            ("dense2", (128, 10), 11),
        )
        for part, shape in (("kernel", shape), ("bias", shape[-1:]))
    }
    names = {name.split("/", 1)[1].removesuffix(":0"): name for name in arrays}
    placed = place(arrays, origin="keras", mapping=names if is_mapped else None)
    structure, _, _ = shapes("mnist_cnn_v1")
    images = random.random((2, 28, 28, 1), np.float32)
    # The image mean and deviation are the network's own.
    state = {"image_mean": jnp.float32(0), "image_std": jnp.float32(1)}
    logits = rebuild(structure, jax.tree.map(jnp.asarray, placed.params), state)(jnp.array(images))

    def dense(x, layer):
        return x @ arrays[f"{layer}/{layer}/kernel:0"] + arrays[f"{layer}/{layer}/bias:0"]

    x = images
    for layer in ("conv1", "conv2"):
        kernel = arrays[f"{layer}/{layer}/kernel:0"]
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
        x = np.einsum("nyxcij,ijcf->nyxf", windows, kernel) + arrays[f"{layer}/{layer}/bias:0"]
        x = np.maximum(x, 0)
    x = x.reshape(2, 12, 2, 12, 2, 64).max(axis=(2, 4)).reshape(2, -1)  # as Keras's Flatten
    expected = dense(np.maximum(dense(x, "dense1"), 0), "dense2")
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("shape", [(), (9216,), (0, 128), (9215, 128)])
def test_a_dense_layer_of_keras_of_another_shape_is_named(shape):
    _, params, _ = shapes("mnist_cnn_v1")
    arrays = {
        f"{layer}/{part}": np.zeros(leaf.shape, np.float32)
        for layer, leaves in params.items()
        for part, leaf in leaves.items()
    }
    with pytest.raises(UserError, match="dense1/kernel has the shape"):
        place(arrays | {"dense1/kernel": np.zeros(shape, np.float32)}, origin="keras")


def test_a_mapping_says_where_what_goes_and_in_which_order_a_layer_was_flattened():
    arrays = cnn_of_torch()
    mapping = {
        f"{ours}/{part}": f"{theirs}.{other}"
        for ours, theirs in {"conv1": "conv1", "conv2": "conv2", "dense2": "fc2"}.items()
        for part, other in {"kernel": "weight", "bias": "bias"}.items()
    }
    mapping["dense1/bias"] = "fc1.bias"
    # This network has the channels first, as PyTorch has them.
    for entry in ("fc1.weight", {"name": "fc1.weight", "channels_first": [64, 12, 12]}):
        placed = place(arrays, mapping=mapping | {"dense1/kernel": entry})
        np.testing.assert_array_equal(placed.params["dense1"]["kernel"], arrays["fc1.weight"].T)
    params = {"head": {"kernel": np.zeros((9216, 128), np.float32)}}
    mapping = {"head/kernel": {"name": "fc1.weight", "channels_first": [64, 12, 12]}}
    kernel = foreign.place(
        {"fc1.weight": arrays["fc1.weight"]},
        params,
        {},
        origin="torch",
        model_id="own.py:Net",
        mapping=mapping,
    ).params["head"]["kernel"]
    channel, row, column = 3, 4, 5
    there = arrays["fc1.weight"][7, (channel * 12 + row) * 12 + column]
    assert kernel[(row * 12 + column) * 64 + channel, 7] == there


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda arrays: arrays.pop("fc2.bias"), "lacks fc2.bias"),
        (lambda arrays: arrays.update(extra=np.zeros(3)), "extra of the file would be left over"),
        (lambda arrays: arrays.update({"fc2.bias": np.zeros(11)}), "fc2.bias has the shape"),
    ],
)
def test_what_is_left_over_missing_or_of_another_shape_is_named(change, told):
    arrays = cnn_of_torch()
    change(arrays)
    with pytest.raises(UserError, match=told):
        place(arrays)


def test_absorbing_the_scale_changes_nothing_but_the_scale(hvc_logits):
    _, params, model_state = shapes("mnist_hvc_capsule_v1")
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda x: 0.05 * random.standard_normal(x.shape, np.float32), params)
    model_state = jax.tree.map_with_path(  # means of 0, variances of 1, as at the start
        lambda path, x: np.full(x.shape, path[-1].key == "var", np.float32), model_state
    )
    scaled = foreign.absorb_scale("mnist_hvc_capsule_v1", params, model_state, 0.5)
    images = random.random((200, 28, 28, 1), np.float32)
    before = hvc_logits((params, model_state), images * np.float32(0.5))
    after = hvc_logits(scaled, images)
    assert np.std(before, axis=0).min() > 0.01  # capsules are alive
    np.testing.assert_allclose(after, before, atol=1e-4, rtol=1e-4)
    with pytest.raises(UserError, match="input-divisor is 510"):
        foreign.absorb_scale("mnist_sabour_cnn_v1", params, model_state, 0.5)
