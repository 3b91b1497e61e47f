"""A transformer over the examples of a batch.

Vaswani et al. Attention Is All You Need. NeurIPS 2017, arXiv 1706.03762: the encoder,
without positions.
"""

import math

import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.boundary import remembered
from jaxmeta.models import parameters
from jaxmeta.models.attention import block, block_parameters, check_heads
from jaxmeta.models.layers import dense
from jaxmeta.types import Model


@remembered
def transformer(
    inputs: int | tuple[int, ...],
    outputs: int,
    *,
    width: int = 64,
    heads: int = 4,
    layers: int = 2,
) -> Model:
    """Transformer over the examples of a batch: all look at each other.

    Args:
        inputs: size of an example, or its shape (it is flattened). outputs: size of the
            output. width: of the tokens, a multiple of heads; heads, layers: how many.

    Returns: a `Model`, [n, *inputs] -> [n, outputs], equivariant to the order of the
        examples; masked ones are not looked at. Parameters: `embed`, `block1`, ...,
        `head`.
    Raises: ValueError for sizes below 1, or a width that heads does not divide.
    """
    shape = parameters.example_shape(inputs)
    check_heads(width, heads)
    checks.check_sizes(outputs=outputs, layers=layers)
    blocks = [f"block{i}" for i in range(1, layers + 1)]
    description = {
        "embed": parameters.dense(math.prod(shape), width),
        **{name: block_parameters(width, 2 * int(width)) for name in blocks},
        "head": parameters.dense(width, outputs),
    }

    def forward(params, x, mask):
        x = dense(params["embed"], jnp.reshape(x, (x.shape[0], -1)))
        for name in blocks:
            x = block(params[name], x, x, heads, mask)
        return dense(params["head"], x)

    return parameters.network(
        description, forward, shape, "inputs", flat=True, masks=True
    )
