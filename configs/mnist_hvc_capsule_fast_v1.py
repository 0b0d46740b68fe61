"""The homogeneous vector capsules on MNIST in little time: 9 epochs, one rise and fall of the rate.

Command:  scripts/train --config=configs/mnist_hvc_capsule_fast_v1.py
Cost:     about 5,800 s on two CPU cores without AVX-512
Result:   test accuracy 0.9974 (seed 0; over more seeds not yet measured)
"""

from ml_collections import ConfigDict

from mnist_jax import config as base


def get_config() -> ConfigDict:
    config = base.default()
    config.model_id = "mnist_hvc_capsule_v1"
    config.criterion_id = "nll"
    config.augment_shift_px = 2
    config.augment_rotation_degrees = 15.0
    config.schedule_id = "one_cycle"
    config.learning_rate = 0.002
    config.ema_decay = 0.998  # over half an epoch
    config.batch_size = 64
    config.epochs = 9
    config.min_test_accuracy = 0.99
    config.min_per_class_accuracy = 0.97
    return config
