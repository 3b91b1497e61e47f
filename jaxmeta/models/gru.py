"""A gated recurrent unit, the memory of agents.

Cho et al. 2014, arXiv 1406.1078; the reset gate after the product, as in cuDNN.
"""

import jax
import jax.numpy as jnp
from jax.nn import initializers

from jaxmeta.models.parameters import LECUN, drawn


def init(key: jax.Array, inputs: int, hidden: int) -> dict[str, jax.Array]:
    """Weights: `x` [inputs, 3 hidden], `h` [hidden, 3 hidden], their biases."""
    key_x, key_h = jax.random.split(key)
    square = initializers.orthogonal()
    parts = [square(k, (hidden, hidden)) for k in jax.random.split(key_h, 3)]
    x = drawn(key_x, LECUN, (inputs, 3 * hidden))
    bias = jnp.zeros(3 * hidden)
    return {"x": x, "h": jnp.concatenate(parts, axis=1), "bias": bias, "bias_h": bias}


def step(params: dict[str, jax.Array], h: jax.Array, x: jax.Array) -> jax.Array:
    """The next state [..., hidden] from the last and an input [..., inputs]."""
    dense = lambda a, w, b: a @ w + jnp.broadcast_to(b, (*a.shape[:-1], *b.shape))
    r, z, n = jnp.split(dense(x, params["x"], params["bias"]), 3, axis=-1)
    hr, hz, hn = jnp.split(dense(h, params["h"], params["bias_h"]), 3, axis=-1)
    r, z = jax.nn.sigmoid(r + hr), jax.nn.sigmoid(z + hz)
    return (1 - z) * jnp.tanh(n + r * hn) + z * h
