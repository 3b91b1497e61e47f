"""ResNet-12 with DropBlock, as the few-shot papers have it.

Lee, Maji, Ravichandran, Soatto. Meta-Learning with Differentiable Convex Optimization
(MetaOptNet). CVPR 2019, arXiv 1904.03758, section 4.1; DropBlock: Ghiasi, Lin, Le 2018,
arXiv 1810.12890.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.boundary import remembered
from jaxmeta.models import layers, parameters
from jaxmeta.models.parameters import KAIMING, Parameter
from jaxmeta.types import Model

# meta-steps until the drop rate is reached, as in MetaOptNet's code
DROP_STEPS = 40_000


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
    window = (size, size, 1, 1)
    dropped = jax.lax.reduce_window(
        jnp.pad(seeds, pad), -jnp.inf, jax.lax.max, window, (1,) * 4, "VALID"
    )
    keep = 1 - dropped
    return x * keep * keep.size / jnp.maximum(jnp.sum(keep), 1)


def _description(channels, widths) -> dict[str, Any]:
    """Parameters of the blocks: kernels `conv1_1` to `conv4_skip`, a norm for each."""
    description = {}
    place = itertools.count(1)  # all kernels are of one layer, the network itself
    for i, width in enumerate(widths, start=1):
        for name, size, inputs in (
            ("1", 3, channels),
            ("2", 3, width),
            ("3", 3, width),
            ("skip", 1, channels),
        ):
            shape = (size, size, inputs, width)
            kernel = Parameter(shape, KAIMING, next(place))
            description[f"conv{i}_{name}"] = kernel
            description[f"norm{i}_{name}"] = parameters.batch_norm(width)
        channels = width
    return description


def _normed(params, name, x, mask):
    """A convolution and its batch norm."""
    kernel, norm = params[f"conv{name}"], params[f"norm{name}"]
    one = len(kernel) == 1
    y = x @ kernel[0, 0][None, None] if one else layers.conv3x3(x, kernel)
    return layers.batch_norm(y, norm["scale"], norm["offset"], mask)


def _block(params, i, x, mask):
    """Three convolutions with a skip connection, and max-pooling."""
    y = jax.nn.leaky_relu(_normed(params, f"{i}_1", x, mask), 0.1)
    y = jax.nn.leaky_relu(_normed(params, f"{i}_2", y, mask), 0.1)
    y = _normed(params, f"{i}_3", y, mask) + _normed(params, f"{i}_skip", x, mask)
    return layers.max_pool2x2(jax.nn.leaky_relu(y, 0.1))


@remembered
def resnet12(
    outputs: int | None = None,
    *,
    input_shape: tuple[int, int, int] = (84, 84, 3),
    widths: tuple[int, int, int, int] = (64, 160, 320, 640),
    drop_rate: float = 0.1,
    block_size: int = 5,
    pooled: bool = True,
) -> Model:
    """ResNet-12 with DropBlock.

    Four residual blocks of three 3x3 convolutions with batch norm (of the batch at hand)
    and leaky relu, 2x2 max-pooling after each.

    Args:
        outputs: size of the head; None = no head, the features themselves.
        input_shape: (height, width, channels) of an image.
        widths: channels of the blocks.
        drop_rate: share of a feature map that training drops, reached after 40,000
            meta-steps; DropBlock after the last two blocks, dropout after the first two.
            Only in `Model.noisy`: train with `jm.with_noise`.
        block_size: side of a dropped square.
        pooled: average over space at the end; otherwise the map is flattened, as
            MetaOptNet has it.

    Returns: a `Model`, [n, h, w, c] -> [n, outputs], or [n, features] without a head: 640
        if pooled. Parameters: of block 1 `conv1_1`, `conv1_2`, `conv1_3` [3, 3, in, out],
        `conv1_skip` [1, 1, in, out] and `norm1_1` (`scale`, `offset`), ...; ...; `head`
        (`kernel`, `bias`).
    Raises: ValueError for images below 16 x 16, or a drop rate not in [0, 1).

    Source: Lee et al. 2019, section 4.1.
    """
    if outputs is not None:
        checks.check_sizes(outputs=outputs)
    checks.check_shapes(3, input_shape=input_shape)
    checks.check_shapes(4, widths=widths)
    checks.check_numbers(least=0, below=1, drop_rate=drop_rate)
    checks.check_sizes(block_size=block_size)
    checks.check_flags(pooled=pooled)
    if min(input_shape[:2]) < 16:
        raise ValueError(
            "input_shape: resnet12 expected images of at least 16 x 16, got "
            f"{tuple(input_shape[:2])}"
        )
    shape = height, width, channels = parameters.whole(input_shape)
    description = _description(channels, widths)
    if outputs is not None:
        cells = 1 if pooled else (height // 16) * (width // 16)
        description["head"] = parameters.dense(cells * int(widths[3]), outputs)

    def forward(params, x, mask, key=None, step: Any = 0):
        x = jnp.transpose(x, (1, 2, 0, 3))  # see `layers`
        for i in (1, 2, 3, 4):
            x = _block(params, i, x, mask)
            if key is not None:
                key, now = jax.random.split(key)
                rate = drop_rate * jnp.minimum(1.0, step / DROP_STEPS)
                size = block_size if i > 2 else 1
                x = drop_block(now, x, rate, min(size, *x.shape[:2]))
        x = jnp.mean(x, axis=(0, 1)) if pooled else layers.flatten(x)
        return x if outputs is None else layers.dense(params["head"], x)

    def noisy(params, x, mask, key, step):
        checks.check_inputs(x, shape)
        parameters.check_params(description, params)
        return forward(params, x, mask, key, step)

    model = parameters.network(description, forward, shape, masks=True)
    return model._replace(noisy=noisy)
