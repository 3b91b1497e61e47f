"""A transformer that reads a support set once and answers any number of targets.

As in-context learners have it: Müller, Hollmann, Pineda Arango, Grabocka, Hutter.
Transformers Can Do Bayesian Inference. ICLR 2022, arXiv 2112.10510. The states of the
support set do not depend on the targets.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.boundary import remembered
from jaxmeta.models import parameters
from jaxmeta.models.attention import block, block_parameters, check_heads
from jaxmeta.models.layers import dense
from jaxmeta.types import PyTree


class ReaderModel(NamedTuple):
    """A transformer that reads a support set once and answers any number of targets.

    init: key -> params. encode: (params, tokens [m, width], mask=None) -> states.
    read: (params, states, targets [n, width], mask=None) -> [n, outputs]; mask [m] of the
        support tokens in both.
    """

    init: Callable[..., PyTree]
    encode: Callable[..., Any]
    read: Callable[..., Any]


@remembered
def reader(
    outputs: int, *, width: int = 64, heads: int = 4, hidden: int = 128, layers: int = 6
) -> ReaderModel:
    """Transformer whose targets look at a support set, and not at each other.

    Args: outputs: size of the output; width of the tokens, a multiple of heads; hidden:
        size of the dense layers; layers: how many.
    Returns: a `ReaderModel`; states are [layers, m, width], what each layer looks at.
        Parameters: `blocks_0`, ..., `head_hidden`, `head`.
    Raises: ValueError for a width that heads does not divide.
    """
    check_heads(width, heads)
    checks.check_sizes(outputs=outputs, hidden=hidden, layers=layers)
    blocks = [f"blocks_{i}" for i in range(layers)]
    description = {
        **{name: block_parameters(width, hidden) for name in blocks},
        "head_hidden": parameters.dense(width, hidden),
        "head": parameters.dense(hidden, outputs),
    }

    def encode(params, tokens, mask=None):
        parameters.check_params(description, params)
        states = []
        for name in blocks:
            states.append(tokens)
            tokens = block(params[name], tokens, tokens, heads, mask)
        return jnp.stack(states)

    def read(params, states, targets, mask=None):
        parameters.check_params(description, params)
        for name, seen in zip(blocks, states, strict=True):
            targets = block(params[name], targets, seen, heads, mask)
        y = jax.nn.relu(dense(params["head_hidden"], targets))
        return dense(params["head"], y)

    return ReaderModel(partial(parameters.fill, description), encode, read)
