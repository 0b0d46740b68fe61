import json

import hypothesis
import jax
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open

from mnist_jax.export import safetensors
from mnist_jax.models import network as network_module

arrays = hnp.arrays(
    st.sampled_from([np.float32, np.int32, np.uint8, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=3, max_side=4),
)
names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
positions = st.integers(0, 99)  # of the layers in a list
layers = st.dictionaries(names, arrays, min_size=1, max_size=3)
trees = st.dictionaries(names, arrays | layers, max_size=4) | st.dictionaries(positions, layers)


@hypothesis.given(params=trees, model_state=trees, metadata=st.dictionaries(st.text(), st.text()))
@hypothesis.settings(max_examples=30, deadline=None)
def test_what_is_written_is_read_again(params, model_state, metadata):
    data = safetensors.to_bytes(params, model_state, metadata)
    reread = safetensors.from_bytes(data)
    assert jax.tree.structure(reread) == jax.tree.structure((params, model_state))
    for ours, theirs in zip(
        jax.tree.leaves(reread), jax.tree.leaves((params, model_state)), strict=True
    ):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert ours.tobytes() == theirs.tobytes()
    backwards = dict(reversed(metadata.items()))
    assert safetensors.to_bytes(params, model_state, backwards) == data


def test_the_library_reads_names_and_metadata(cnn, tmp_path):
    _, params, model_state = network_module.take_apart(cnn)
    metadata = {"model_id": "mnist_cnn_v1", "classes": '["é"]'}
    (tmp_path / "model.safetensors").write_bytes(
        safetensors.to_bytes(params, model_state, metadata)
    )
    with safe_open(tmp_path / "model.safetensors", framework="np") as file:
        assert file.metadata() == metadata
        assert set(file.keys()) == {
            *("model_state/image_mean", "model_state/image_std"),
            *(
                f"params/{layer}/{kind}"
                for layer in ("conv1", "conv2", "dense1", "dense2")
                for kind in ("kernel", "bias")
            ),
        }
        kernel = file.get_tensor("params/conv2/kernel")
    np.testing.assert_array_equal(kernel, params["conv2"]["kernel"])


def test_the_tensors_begin_at_a_multiple_of_eight_bytes():
    data = safetensors.to_bytes({"a": np.ones(3, np.float32)}, {}, {"k": "v"})
    size = int.from_bytes(data[:8], "little")
    assert size % 8 == 0
    header = json.loads(data[8 : 8 + size])
    assert header == {
        "__metadata__": {"k": "v"},
        "params/a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
    }
    assert data[8 + size :] == np.ones(3, np.float32).tobytes()
