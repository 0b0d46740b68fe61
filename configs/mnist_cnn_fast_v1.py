"""The CNN on MNIST in little time: few epochs of large batches, one rise and fall of the rate.

Command:  scripts/train --config=configs/mnist_cnn_fast_v1.py
Cost:     meant for a GPU, where it is not yet measured; about 110 s on two CPU cores
Result:   test accuracy 0.9906 ± 0.0004 (3 seeds)
"""

from ml_collections import ConfigDict

from mnist_jax import config as base


def get_config() -> ConfigDict:
    config = base.default()
    config.schedule_id = "one_cycle"
    config.learning_rate = 0.003
    config.batch_size = 256
    config.epochs = 4
    return config
