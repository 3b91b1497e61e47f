"""Grid navigation: a goal that has to be searched, then visited in each episode.

Zintgraf et al. VariBAD. 2020, arXiv 1910.08348, with four episodes a task there; by the
authors' code, github.com/lmzintgraf/varibad, gridworld.py.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.checks import check_sizes
from jaxmeta.envs.env import Discrete, Env
from jaxmeta.envs.moves import STEPS, all_cells, walk


def grid(size: int = 5, *, horizon: int = 15) -> Env:
    """Tasks are goals, int32 [2], cells outside the start's corner of 2x2 ones.

    An episode starts in cell (0, 0); actions are stay, up, right, down, left. The reward is
    1 for each step that ends on the goal, -0.1 for others; no end but the horizon. The
    observation is the cell (x, y).

    Args: size: cells of a side. horizon: steps of an episode.
    Returns: an `Env`. Raises: ValueError for a size below 3 or a horizon below 1.

    >>> env = grid()
    >>> goal, cell, key = jnp.array([1, 2]), jnp.array([1, 1]), jax.random.key(0)
    >>> [float(env.step(goal, cell, action, key)[2]) for action in (0, 1)]
    [-0.10000000149011612, 1.0]
    """
    check_sizes(3, size=size)
    check_sizes(horizon=horizon)
    cells = all_cells(size)
    goals = cells[np.max(cells, axis=1) > 1]

    def sample(key):
        return jax.random.choice(key, jnp.asarray(goals))

    def reset(goal, key):
        del goal, key
        return jnp.zeros(2, jnp.int32), jnp.zeros(2)

    def step(goal, cell, action, key):
        del key
        after = walk(cell, action, size)
        reward = jnp.where(jnp.all(after == goal), 1.0, -0.1)
        return after, after.astype(jnp.float32), reward, jnp.zeros((), bool)

    return Env(sample, reset, step, Discrete(len(STEPS)), horizon, 2)
