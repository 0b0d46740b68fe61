"""The CNN on the embedded digits: no network needed.

Command:  scripts/train --config=configs/digits_cnn_v1.py
Cost:     about 20 s on two CPU cores
Result:   test accuracy 0.9978 ± 0.0023 (5 seeds, 360 images)
"""

from ml_collections import ConfigDict

from mnist_jax import config as base


def get_config() -> ConfigDict:
    config = base.default()
    config.dataset_id = "digits_v1"
    config.schedule_id = "one_cycle"
    config.epochs = 12
    config.batch_size = 32
    config.augment_shift_px = 2
    config.augment_rotation_degrees = 10.0
    return config
