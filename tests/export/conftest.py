import pytest
from flax import nnx

from mnist_jax import models


@pytest.fixture(scope="session")
def cnn():
    return models.build(
        "mnist_cnn_v1", num_classes=10, image_mean=0.1307, image_std=0.3081, rngs=nnx.Rngs(0)
    )
