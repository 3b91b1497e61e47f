"""A small LSTM over rows, for optimisers: every coordinate is a row with its own state.

Hochreiter, Schmidhuber 1997, with the forget gate of Gers et al. 2000.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Cell(NamedTuple):
    """State of an LSTM over n rows."""

    h: jax.Array  # [n, hidden]
    c: jax.Array  # [n, hidden]


def init(key: jax.Array, inputs: int, hidden: int) -> dict[str, jax.Array]:
    """Weights of one layer: w [inputs + hidden, 4 hidden], b [4 hidden]."""
    size = inputs + hidden
    w = jax.random.normal(key, (size, 4 * hidden)) / jnp.sqrt(1.0 * size)
    b = jnp.zeros((4, hidden)).at[1].set(1.0)  # remember at first
    return {"w": w, "b": jnp.reshape(b, -1)}


def zero_state(n: int, hidden: int, dtype) -> Cell:
    """The state before the first input."""
    return Cell(jnp.zeros((n, hidden), dtype), jnp.zeros((n, hidden), dtype))


def step(params: dict[str, jax.Array], cell: Cell, x: jax.Array) -> Cell:
    """One step, x [n, inputs]."""
    sums = jnp.concatenate([x, cell.h], axis=-1) @ params["w"] + params["b"][None, :]
    i, f, o, g = jnp.split(sums, 4, axis=-1)
    c = jax.nn.sigmoid(f) * cell.c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return Cell(jax.nn.sigmoid(o) * jnp.tanh(c), c)
