"""The CNN on Fashion-MNIST."""

from ml_collections import ConfigDict

from mnist_jax import config as base


def get_config() -> ConfigDict:
    config = base.default()
    config.dataset_id = "fashion_mnist_v1"
    config.schedule_id = "one_cycle"
    config.learning_rate = 0.002
    config.epochs = 8
    config.min_test_accuracy = 0.91
    config.min_per_class_accuracy = (
        0.70  # shirts are hard to tell from T-shirts, coats and pullovers
    )
    return config
