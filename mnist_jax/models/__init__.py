"""The networks, by model id.

Every network is a `flax.nnx.Module` with the same face:

* `Network(num_classes=..., image_mean=..., image_std=..., rngs=...)` builds it;
* `network(images, rngs=None)` maps grey levels in 0..1, `[batch, 28, 28, 1]`, to the outputs that
  its losses take; dropout runs only where `rngs` is given, so the exported graph holds none;
* `network.scores_of(outputs)` turns those into one number per class, the largest being the answer;
* `network.scores(images)` does both and is what ships;
* `network.reconstruct(outputs, labels)`, where there is one, draws the images again; its decoder is
  trained along and not exported;
* `Network.criteria` names the losses that fit its outputs;
* `Network.needs_transpose` says whether its exported graph may hold a Transpose.
"""

from mnist_jax.models.cnn import CNN
from mnist_jax.models.efficient_capsule import EfficientCapsNet
from mnist_jax.models.hvc_capsule import HVCCapsNet
from mnist_jax.models.sabour_capsule import SabourCapsNet

MODELS = {
    "mnist_cnn_v1": CNN,
    "mnist_capsule_v1": SabourCapsNet,
    "mnist_efficient_capsule_v1": EfficientCapsNet,
    "mnist_hvc_capsule_v1": HVCCapsNet,
}
