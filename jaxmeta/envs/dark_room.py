"""Dark room: a goal that one feels only when on it.

Laskin et al. In-context Reinforcement Learning with Algorithm Distillation. 2023, arXiv
2210.14215.
"""

import jax
import jax.numpy as jnp

from jaxmeta.checks import check_sizes
from jaxmeta.envs.env import Discrete, Env
from jaxmeta.envs.moves import STEPS, all_cells, walk


def dark_room(size: int = 9, *, horizon: int = 20) -> Env:
    """Tasks are goals, int32 [2], any cell.

    An episode starts in the centre; actions are stay, up, right, down, left. The reward is 1
    for each step that ends on the goal, else 0; no end but the horizon. The observation is
    the cell (x, y).

    Args: size: cells of a side. horizon: steps of an episode.
    Returns: an `Env`. Raises: ValueError for a size below 2 or a horizon below 1.

    >>> cell, seen = dark_room().reset(jnp.array([1, 2]), jax.random.key(0))
    >>> seen.tolist()
    [4.0, 4.0]
    """
    check_sizes(2, size=size)
    check_sizes(horizon=horizon)

    def sample(key):
        return jax.random.choice(key, jnp.asarray(all_cells(size)))

    def reset(goal, key):
        del goal, key
        centre = jnp.full(2, size // 2, jnp.int32)
        return centre, centre.astype(jnp.float32)

    def step(goal, cell, action, key):
        del key
        after = walk(cell, action, size)
        reward = jnp.all(after == goal).astype(jnp.float32)
        return after, after.astype(jnp.float32), reward, jnp.zeros((), bool)

    return Env(sample, reset, step, Discrete(len(STEPS)), horizon, 2)
