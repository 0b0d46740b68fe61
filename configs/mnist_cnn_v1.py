"""The CNN on MNIST."""

from ml_collections import ConfigDict

from mnist_jax import config as base


def get_config() -> ConfigDict:
    config = base.default()
    config.model_id = "mnist_cnn_v1"
    config.dataset_id = "mnist_v1"
    return config
