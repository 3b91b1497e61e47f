"""The relation module: how much two examples have to do with each other.

Sung, Yang, Zhang, Xiang, Torr, Hospedales. Learning to Compare: Relation Network for
Few-Shot Learning. CVPR 2018, arXiv 1711.06025, section 3.4.
"""

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.boundary import remembered
from jaxmeta.models import layers, parameters
from jaxmeta.types import Model


@remembered
def relation_module(
    input_shape: tuple[int, int, int] = (7, 7, 128),
    *,
    widths: int = 64,
    hidden: int = 8,
) -> Model:
    """The relation module of Sung et al. 2018: two convolution blocks, two dense layers.

    Args:
        input_shape: (height, width, channels) of a pair's maps, joined along channels.
            A block ends with 2x2 max-pooling if more than a row and a column is left.
        widths: channels of the blocks. hidden: size of the first dense layer.

    Returns: a `Model`, [pairs, h, w, c] -> [pairs, 1], before the sigmoid. Parameters:
        `conv1` (`kernel`, `bias`), `norm1` (`scale`, `offset`), `conv2`, `norm2`,
        `dense`, `head` (`kernel`, `bias`).
    """
    checks.check_shapes(3, input_shape=input_shape)
    checks.check_sizes(widths=widths, hidden=hidden)
    shape = height, width, channels = parameters.whole(input_shape)
    pools = []
    for _ in (1, 2):
        pools.append(min(height, width) > 1)
        if pools[-1]:
            height, width = height // 2, width // 2
    description = {
        "conv1": parameters.conv(channels, widths),
        "norm1": parameters.batch_norm(widths),
        "conv2": parameters.conv(widths, widths),
        "norm2": parameters.batch_norm(widths),
        "dense": parameters.dense(height * width * int(widths), hidden),
        "head": parameters.dense(hidden, 1),
    }

    def forward(params, x, mask):
        x = jnp.transpose(x, (1, 2, 0, 3))  # see `layers`
        for i, pool in enumerate(pools, start=1):
            kernel, norm = params[f"conv{i}"]["kernel"], params[f"norm{i}"]
            scale, offset = norm["scale"], norm["offset"]
            x = layers.conv_block(x, kernel, scale, offset, mask, pool=pool)
        x = jax.nn.relu(layers.dense(params["dense"], layers.flatten(x)))
        return layers.dense(params["head"], x)

    return parameters.network(description, forward, shape, masks=True)
