"""How a point glides over the plane, and how one walks from cell to cell."""

import jax
import jax.numpy as jnp
import numpy as np

# stay, up, right, down, left: what each action adds to a cell (x, y)
STEPS = np.array([(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)], np.int32)


def glide(
    position: jax.Array, action: jax.Array, speed: float, bound: float = 1.0
) -> jax.Array:
    """The next position, [2]: an action in [-bound, bound], clipped there, moves by up to
    `speed` on each axis."""
    return position + speed / bound * jnp.clip(action, -bound, bound)


def distance(position: jax.Array, goal: jax.Array) -> jax.Array:
    """On a straight line, []."""
    return jnp.linalg.norm(position - goal)


def walk(cell: jax.Array, action: jax.Array, size: int) -> jax.Array:
    """The next cell, int32 [2], of size x size ones; a wall leaves it where it is."""
    return jnp.clip(cell + jnp.asarray(STEPS)[action], 0, size - 1)


def all_cells(size: int) -> np.ndarray:
    """int32 [size * size, 2]."""
    return np.indices((size, size), np.int32).reshape(2, -1).T
