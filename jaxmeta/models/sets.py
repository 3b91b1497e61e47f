"""Networks of sets: one vector for a set, and attention from one set to another.

Zaheer, Kottur, Ravanbakhsh, Poczos, Salakhutdinov, Smola. Deep Sets. NIPS 2017, arXiv
1703.06114, theorem 2; as neural processes have them, with and without attention: Kim et
al. 2019, arXiv 1901.05761, section 3.
"""

from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.boundary import remembered
from jaxmeta.models import layers, parameters
from jaxmeta.models.attention import (
    check_heads,
    multi_head,
    multi_head_parameters,
    set_to_set,
    set_to_set_parameters,
)
from jaxmeta.types import Model


def _dense_layers(name: str, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Layers `name`1, `name`2, ... from each size to the next."""
    each = enumerate(pairwise(sizes), start=1)
    return {f"{name}{i}": parameters.dense(*ends) for i, ends in each}


def _mean(x, mask):
    """[n, c] -> [1, c], of the examples that count."""
    counts = jnp.ones(x.shape[0], x.dtype) if mask is None else (mask > 0) * 1
    total = jnp.sum(jnp.where(counts[:, None] > 0, x, 0), axis=0, keepdims=True)
    return total / jnp.maximum(jnp.sum(counts), 1).astype(x.dtype)


@remembered
def set_encoder(
    inputs: int,
    outputs: int,
    *,
    hidden: tuple[int, ...] = (128, 128),
    after: tuple[int, ...] = (128,),
    heads: int = 0,
) -> Model:
    """Deep set: one vector for a whole set, whatever its order.

    Args:
        inputs: size of an example. outputs: size of the vector.
        hidden: layers before the mean over examples. after: hidden layers after it.
        heads: of an attention layer before the mean, by which examples look at each
            other (`anp`); 0 = none.

    Returns: a `Model`, [n, inputs] -> [outputs]; masked examples are left out.
        Parameters: `dense1`, ..., `set_to_set` if there are heads, `after1`, ...,
        `head`.
    Raises: ValueError for heads that do not divide the last hidden width.
    """
    checks.check_sizes(inputs=inputs, outputs=outputs)
    checks.check_shapes(hidden=hidden, after=after)
    checks.check_sizes(0, heads=heads)
    of_each = (inputs, *hidden)
    of_mean = (of_each[-1], *after)
    before, behind = _dense_layers("dense", of_each), _dense_layers("after", of_mean)
    head = {"head": parameters.dense(of_mean[-1], outputs)}
    description = before | behind | head
    if heads:
        check_heads(of_each[-1], heads)
        description["set_to_set"] = set_to_set_parameters(of_each[-1])

    def forward(params, x, mask):
        x = jnp.reshape(x, (x.shape[0], -1))
        for i, name in enumerate(before, start=1):
            x = layers.dense(params[name], x)
            x = jax.nn.relu(x) if heads or i < len(before) else x
        if heads:
            x = set_to_set(params["set_to_set"], x, heads, mask)
        x = _mean(x, mask)
        for name in behind:
            x = jax.nn.relu(layers.dense(params[name], x))
        return layers.dense(params["head"], x)[0]

    return parameters.network(
        description, forward, (inputs,), "inputs", flat=True, masks=True
    )


@remembered
def cross_attention(
    inputs: int,
    values: int,
    *,
    width: int = 128,
    heads: int = 8,
    hidden: tuple[int, ...] = (128,),
) -> Model:
    """Attention from one set of inputs to another with values (`anp`).

    Args:
        inputs: size of queries and keys. values: size of the values.
        width: of the result, a multiple of heads. heads: of the attention.
        hidden: layers that queries and keys go through first, the same for both.

    Returns: a `Model` whose apply is (params, queries [n, inputs], keys [m, inputs],
        values [m, values], mask [m] or None) -> [n, width]. Parameters: `dense1`, ...,
        `attention`.
    Raises: ValueError for a width that heads does not divide.
    """
    checks.check_sizes(inputs=inputs, values=values)
    checks.check_shapes(hidden=hidden)
    check_heads(width, heads)
    size_of_value = (values,)
    embedding = _dense_layers("dense", (inputs, *hidden, width))
    description = embedding | {
        "attention": multi_head_parameters(width, width, width, values)
    }
    first, *others = embedding

    def embed(params, x):
        x = layers.dense(params[first], x)
        for name in others:
            x = layers.dense(params[name], jax.nn.relu(x))
        return x

    def apply(params, queries, keys, values, mask=None):
        for x in (queries, keys):
            checks.check_inputs(x, (inputs,), "inputs")
        checks.check_inputs(values, size_of_value, "values")
        parameters.check_params(description, params)
        q, k = embed(params, queries), embed(params, keys)
        return multi_head(params["attention"], q, k, values, heads, mask)

    return Model(partial(parameters.fill, description), apply)
