"""ResNet-12 with DropBlock, as the few-shot papers have it.

Lee et al. 2019 (MetaOptNet), arXiv 1904.03758, section 4.1; DropBlock: Ghiasi, Lin, Le
2018, arXiv 1810.12890.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmeta.models import layers
from jaxmeta.models.networks import Affine

DROP_STEPS = (
    40_000  # meta-steps until the drop rate is reached, as in MetaOptNet's code
)


class ResNet12(nn.Module):
    """Four residual blocks of three convolutions; a head or none."""

    widths: tuple[int, ...]
    drop_rate: float
    block_size: int
    pooled: bool
    outputs: int | None = None

    @nn.compact
    def __call__(self, x, mask=None, key=None, step=0):
        """[n, h, w, c] -> [n, features]; with a key, blocks are dropped."""
        x = jnp.transpose(x, (1, 2, 0, 3))  # see `layers`
        for i, width in enumerate(self.widths, start=1):
            x = self._block(i, width, x, mask)
            if key is not None:
                key, now = jax.random.split(key)
                rate = self.drop_rate * jnp.minimum(1.0, step / DROP_STEPS)
                size = self.block_size if i > 2 else 1
                x = drop_block(now, x, rate, min(size, *x.shape[:2]))
        flat = jnp.reshape(jnp.transpose(x, (2, 0, 1, 3)), (x.shape[2], -1))
        x = jnp.mean(x, axis=(0, 1)) if self.pooled else flat
        return x if self.outputs is None else nn.Dense(self.outputs, name="head")(x)

    def _block(self, i, width, x, mask):
        y = x
        for j in (1, 2, 3):
            y = self._normed(f"{i}_{j}", width, y, mask, size=3)
            y = nn.leaky_relu(y, 0.1) if j < 3 else y
        y = y + self._normed(f"{i}_skip", width, x, mask, size=1)
        return layers.max_pool2x2(nn.leaky_relu(y, 0.1))

    def _normed(self, name, width, x, mask, size):
        shape = (size, size, x.shape[-1], width)
        init = nn.initializers.kaiming_normal()
        kernel = self.param(f"conv{name}", init, shape)
        one = size == 1
        y = x @ kernel[0, 0][None, None] if one else layers.conv3x3(x, kernel)
        return layers.batch_norm(y, *Affine(width, name=f"norm{name}")(), mask)


def drop_block(key: jax.Array, x: jax.Array, rate, size: int) -> jax.Array:
    """Zero random squares of a feature map, and scale up what is left (algorithm 1).

    Args: x [h, w, n, c]; rate: share to drop; size: side of a square, 1 = dropout.
    """
    height, width = x.shape[:2]
    inside = (height - size + 1) * (width - size + 1)
    gamma = rate * height * width / (size**2 * inside)  # Ghiasi et al., section 3.1
    corners = (height - size + 1, width - size + 1, *x.shape[2:])
    seeds = jax.random.bernoulli(key, gamma, corners).astype(x.dtype)
    pad = ((size - 1, size - 1), (size - 1, size - 1), (0, 0), (0, 0))
    dropped = jax.lax.reduce_window(
        jnp.pad(seeds, pad),
        -jnp.inf,
        jax.lax.max,
        (size, size, 1, 1),
        (1,) * 4,
        "VALID",
    )
    keep = 1 - dropped
    return x * keep * keep.size / jnp.maximum(jnp.sum(keep), 1)
