"""Attention, and the layers that are built of it.

Vaswani et al. Attention Is All You Need. NeurIPS 2017, arXiv 1706.03762. Under vmap all
of it stays batched matrix products. Each layer is two functions, a description of its
parameters (see `parameters`) and the forward pass.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.models import layers, parameters


def attention(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Scaled dot-product attention of several heads (eq. 1).

    Args:
        queries: [n, heads, size]. keys: [m, heads, size]. values: [m, heads, size'].
        mask: [m] or [n, m], what is looked at (> 0); None = everything. A query that may
            look at nothing gets zeros.

    Returns: [n, heads, size'].
    """
    scores = jnp.einsum("nhd,mhd->hnm", queries, keys) / queries.shape[-1] ** 0.5
    if mask is None:
        return jnp.einsum("hnm,mhd->nhd", jax.nn.softmax(scores, axis=-1), values)
    see = jnp.broadcast_to(mask > 0, scores.shape[1:])[None]
    weights = jax.nn.softmax(jnp.where(see, scores, -1e30), axis=-1)
    return jnp.einsum("hnm,mhd->nhd", jnp.where(see, weights, 0), values)


def multi_head_parameters(
    width: int, queries: int, keys: int, values: int
) -> dict[str, Any]:
    """Parameters of `multi_head`, for queries, keys and values of these sizes."""
    return {
        "query": parameters.dense(queries, width),
        "key": parameters.dense(keys, width),
        "value": parameters.dense(values, width),
        "out": parameters.dense(width, width),
    }


def multi_head(params, queries, keys, values, heads: int, mask=None) -> jax.Array:
    """Attention of `heads` heads from queries to a set of keys with values.

    [n, _], [m, _], [m, _] -> [n, width]; mask as in `attention`.
    """

    def split(name, x):
        return jnp.reshape(layers.dense(params[name], x), (x.shape[0], heads, -1))

    q, k, v = split("query", queries), split("key", keys), split("value", values)
    y = attention(q, k, v, mask)
    return layers.dense(params["out"], jnp.reshape(y, (queries.shape[0], -1)))


def block_parameters(width: int, hidden: int) -> dict[str, Any]:
    """Parameters of `block`, for tokens of one width."""
    return {
        "attention": multi_head_parameters(width, width, width, width),
        "norm1": parameters.layer_norm(width),
        "dense1": parameters.dense(width, hidden),
        "dense2": parameters.dense(hidden, width),
        "norm2": parameters.layer_norm(width),
    }


def block(params, x, context, heads: int, mask=None) -> jax.Array:
    """A transformer layer: attention, then two dense layers; norms after each sum.

    x [n, width] looks at context [m, width], mask as in `attention` -> [n, width].
    """
    y = multi_head(params["attention"], x, context, context, heads, mask)
    x = layers.layer_norm(params["norm1"], x + y)
    y = jax.nn.relu(layers.dense(params["dense1"], x))
    return layers.layer_norm(params["norm2"], x + layers.dense(params["dense2"], y))


def set_to_set_parameters(features: int) -> dict[str, Any]:
    """Parameters of `set_to_set`."""
    return {
        "attention": multi_head_parameters(features, features, features, features),
        "norm": parameters.layer_norm(features),
    }


def set_to_set(params, z, heads: int, mask=None) -> jax.Array:
    """One attention layer of a set to itself, a sum and a norm.

    [n, features] -> [n, features]; mask [n] or [n, n], what is looked at.
    """
    y = multi_head(params["attention"], z, z, z, heads, mask)
    return layers.layer_norm(params["norm"], z + y)


def check_heads(width: int, heads: int) -> None:
    """Raise ValueError unless each head gets an equal part of the width."""
    checks.check_sizes(width=width, heads=heads)
    if width % heads:
        raise ValueError(
            f"width, heads: expected a width that heads divides, got {width} and {heads}"
        )
