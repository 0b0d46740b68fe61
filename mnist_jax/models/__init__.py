"""The networks, by model id.

Every network is a `flax.nnx.Module` with the same face:

* `Network(num_classes=..., image_mean=..., image_std=..., image_side=..., rngs=...)` builds it;
  a recipe's `network` holds further arguments; `dtype=...` is the precision its layers
  compute in, routing and outputs apart, which are float32 as the weights;
* `network(images, rngs=None)` maps grey levels in 0..1, `[batch, side, side, 1]`, to the outputs
  that its losses take; dropout runs only where `rngs` is given, so the exported graph holds none;
* `network.image_side` is the height and width of its images in pixels;
* `network.scores_of(outputs)` turns those into one number per class, the largest being the answer;
* `network.scores(images)` does both and is what ships;
* `network.reconstruct(outputs, labels)`, where there is one, draws the images again; its decoder is
  trained along and not exported;
* `Network.criteria` names the losses that fit its outputs;
* `Network.needs_transpose` says whether its exported graph may hold a Transpose.
"""

from mnist_jax.models.cnn import CNN
from mnist_jax.models.efficient import EfficientCapsNet, EfficientCNN
from mnist_jax.models.hvc import HVCCapsNet
from mnist_jax.models.sabour import SabourCapsNet, SabourCNN

MODELS = {
    "mnist_cnn_v1": CNN,
    "mnist_capsule_v1": SabourCapsNet,
    "mnist_efficient_capsule_v1": EfficientCapsNet,
    "mnist_hvc_capsule_v1": HVCCapsNet,
    "mnist_sabour_cnn_v1": SabourCNN,
    "mnist_efficient_cnn_v1": EfficientCNN,
}
