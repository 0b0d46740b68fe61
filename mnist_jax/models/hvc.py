"""`mnist_hvc_capsule_v1`: homogeneous vector capsules in three branches, without routing."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mnist_jax.models import layers
from mnist_jax.models.capsules import drawn_flat, lengths

NUM_CONVS = 9
CONVS_PER_BRANCH = 3


def _norm(
    num_features: int,
    *,
    has_relu: bool = False,
    is_of_capsules: bool = False,
    rngs: nnx.Rngs,
) -> layers.BatchNorm:
    # The authors have momentum 0.9997. After 300 epochs that makes no difference; after two, three
    # quarters of the running statistics would still be what they began with.
    return layers.BatchNorm(
        num_features,
        has_relu=has_relu,
        momentum=0.99,
        epsilon=1e-3,
        use_scale=False,
        # Lengths lie far from zero for their spread, where the fast formula loses digits.
        use_fast_variance=not is_of_capsules,
        dtype=jnp.float32 if is_of_capsules else None,
        rngs=rngs,
    )


class HVCCapsNet(nnx.Module):
    """Nine 3x3 convolutions; after every third, each pixel is a capsule that votes for each class.

    Byerly, Kalganova, Dear 2021, "No routing needed between capsules" (arXiv 2001.09136), as in the
    second version of the authors' code (github.com/AdamByerly/BMCNNwHFCs) with fixed branch
    weights; 1,513,683 parameters for ten classes. (The first version, 1,514,187, makes each feature
    map a capsule, and sums where this one takes a length.) A learned weight for each branch, which
    the code also offers, is left out: the normalisation after it divides it away, all but its sign.
    """

    min_image_side = 2 * NUM_CONVS + 1

    def __init__(
        self,
        *,
        num_classes: int,
        rngs: nnx.Rngs,
        image_side: int = 28,
        num_channels: int = 1,
    ) -> None:
        """Draws the initial weights.

        Args:
            num_classes: class capsules of each branch.
            rngs: a stream named `params`.
            image_side: of the square images, in pixels.
            num_channels: 1 for grey images, 3 for colour.
        """
        normal = drawn_flat(jax.nn.initializers.normal(0.05))

        norm = functools.partial(_norm, rngs=rngs)
        filters = [32 + 16 * index for index in range(NUM_CONVS)]
        self.convs = nnx.List(
            nnx.Conv(
                num_inputs,
                num_outputs,
                (3, 3),
                padding="VALID",
                use_bias=False,
                kernel_init=normal,
                rngs=rngs,
            )
            for num_inputs, num_outputs in zip([num_channels, *filters], filters, strict=False)
        )
        self.norms = nnx.List(norm(num_outputs, has_relu=True) for num_outputs in filters)
        branch_dims = filters[CONVS_PER_BRANCH - 1 :: CONVS_PER_BRANCH]
        sides = [
            image_side - 2 * CONVS_PER_BRANCH * (branch + 1) for branch in range(len(branch_dims))
        ]
        # Dims first, then places, then classes: one small matrix product for each dim.
        self.branch_weights = nnx.List(
            nnx.Param(normal(rngs.params(), (dims, side * side, num_classes)))
            for dims, side in zip(branch_dims, sides, strict=True)
        )
        self.branch_norms = nnx.List(norm(dims, is_of_capsules=True) for dims in branch_dims)
        self.merge_norm = norm(len(branch_dims), is_of_capsules=True)

    def class_capsules(
        self, images: Float[Array, "batch side side channels"]
    ) -> list[Float[Array, "batch classes _"]]:
        """Returns the class capsules of each branch, of 64, 112 and 160 dims, none negative."""
        x = 2 * images - 1
        capsules = []
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(x))
            if (index + 1) % CONVS_PER_BRANCH == 0:
                branch = len(capsules)
                weights = self.branch_weights[branch][...]
                dims, places, _ = weights.shape
                by_dim = jnp.transpose(x.astype(jnp.float32), (0, 3, 1, 2))
                by_dim = by_dim.reshape(-1, dims, places)
                # Multiply each place's capsule by its weights dim by dim, and sum over the places:
                # one product for each dim, of all examples, as in `cast_votes`.
                sums = jnp.matmul(jnp.swapaxes(by_dim, 0, 1), weights)
                sums = jnp.transpose(sums, (1, 2, 0))
                branch_norm = self.branch_norms[branch]
                capsules.append(nnx.relu(branch_norm(sums)))
        return capsules

    def __call__(
        self, images: Float[Array, "batch side side channels"]
    ) -> Float[Array, "batch classes"]:
        """Returns logits."""
        branches = self.class_capsules(images)
        stacked = jnp.stack([lengths(capsules) for capsules in branches], axis=-1)
        return jnp.sum(self.merge_norm(stacked), axis=-1)
