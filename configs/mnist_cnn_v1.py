"""The CNN on MNIST.

Command:  scripts/train --config=configs/mnist_cnn_v1.py
Cost:     about 160 s on two CPU cores
Result:   test accuracy 0.9915 ± 0.0010 (3 seeds)
"""

from ml_collections import ConfigDict

from mnist_jax import config as base


def get_config() -> ConfigDict:
    config = base.default()
    config.model_id = "mnist_cnn_v1"
    config.dataset_id = "mnist_v1"
    return config
