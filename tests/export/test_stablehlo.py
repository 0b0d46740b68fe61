from pathlib import Path

import jax
import numpy as np
import pytest

import mnist_jax
from mnist_jax.export import stablehlo
from mnist_jax.models.network import scores


@pytest.fixture(scope="module")
def data(cnn):
    return stablehlo.to_bytes(cnn, (28, 28, 1))


@pytest.mark.parametrize("batch_size", [1, 5])
def test_the_program_computes_what_the_network_does(cnn, data, batch_size):
    images = jax.random.uniform(jax.random.key(0), (batch_size, 28, 28, 1))
    of_file = stablehlo.from_bytes(data)(images.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(of_file, scores(cnn, images), rtol=0, atol=1e-6)


def test_it_declares_the_interface_of_the_onnx_file(data):
    exported = jax.export.deserialize(bytearray(data))
    assert str(exported.in_avals) == "(ShapedArray(float32[batch,1,28,28]),)"
    assert str(exported.out_avals) == "(ShapedArray(float32[batch,10]),)"
    assert exported.platforms == ("cpu", "cuda")


def test_no_path_of_this_machine_is_in_the_file(data):
    folders = [Path(module.__file__).parent for module in (mnist_jax, jax)]
    for name in (*map(str, folders), "site-packages", ".py"):
        assert name.encode() not in data


def test_the_setting_that_leaves_paths_out_is_put_back(cnn):
    before = jax.config.values["jax_traceback_in_locations_limit"]
    stablehlo.to_bytes(cnn, (28, 28, 1))
    assert jax.config.values["jax_traceback_in_locations_limit"] == before != 0
