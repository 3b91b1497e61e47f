"""Multi-layer perceptron, with context parameters if wanted.

By default the one of MAML's sinusoids: Finn, Abbeel, Levine 2017, arXiv 1703.03400,
section 5.1. Context parameters are inputs, as in CAVIA: Zintgraf, Shiarlis, Kurin,
Hofmann, Whiteson 2019, arXiv 1810.03642.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.boundary import remembered
from jaxmeta.models import layers, parameters
from jaxmeta.models.parameters import Parameter
from jaxmeta.types import Model


@remembered
def mlp(
    inputs: int | tuple[int, ...] = 1,
    outputs: int = 1,
    hidden: tuple[int, ...] = (40, 40),
    *,
    context: int = 0,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
) -> Model:
    """Multi-layer perceptron; by default the 1-40-40-1 of the sinusoids, with relu.

    Args:
        inputs: size of an example, or its shape (it is flattened).
        outputs: size of the output. hidden: widths of the hidden layers.
        context: extra inputs that are themselves parameters, the same for all examples
            (`cavia`).
        activation: of the hidden layers.

    Returns: a `Model`, [n, *inputs] -> [n, outputs]. Parameters: `dense1`, ...,
        `head`, each with `kernel` [in, out] and `bias` [out]; `context` if there is one.

    >>> import jax, jaxmeta as jm
    >>> params = jm.models.mlp().init(jax.random.key(0))
    >>> {name: layer["kernel"].shape for name, layer in params.items()}
    {'dense1': (1, 40), 'dense2': (40, 40), 'head': (40, 1)}
    """
    shape = parameters.example_shape(inputs)
    checks.check_sizes(outputs=outputs)
    checks.check_shapes(hidden=hidden)
    checks.check_sizes(0, context=context)
    checks.check_functions(activation=activation)
    sizes = (math.prod(shape) + int(context), *hidden, outputs)
    names = (*(f"dense{i}" for i in range(1, len(hidden) + 1)), "head")
    description: dict[str, Any] = {
        name: parameters.dense(*ends)
        for name, ends in zip(names, pairwise(sizes), strict=True)
    }
    if context:
        description["context"] = Parameter((context,))

    def forward(params, x):
        x = jnp.reshape(x, (x.shape[0], -1))
        if context:
            rows = jnp.broadcast_to(params["context"], (x.shape[0], context))
            x = jnp.concatenate([x, rows], axis=1)
        for name in names[:-1]:
            x = activation(layers.dense(params[name], x))
        return layers.dense(params["head"], x)

    return parameters.network(description, forward, shape, "inputs", flat=True)
