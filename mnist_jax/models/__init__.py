"""The networks, by model id.

Every network is a `flax.nnx.Module` with the same face:

* `Network(num_classes=..., image_mean=..., image_std=..., rngs=...)` builds it;
* `network(images, rngs=None)` maps grey levels in 0..1, `[batch, 28, 28, 1]`, to the outputs that
  its losses take; dropout runs only where `rngs` is given, so the exported graph holds none;
* `network.scores_of(outputs)` turns those into one number per class, the largest being the answer;
* `network.scores(images)` does both and is what ships;
* `Network.criteria` names the losses that fit its outputs.
"""

from mnist_jax.models.cnn import CNN

MODELS = {"mnist_cnn_v1": CNN}
