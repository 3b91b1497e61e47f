"""A point robot and a goal on the upper half of the unit circle.

Zintgraf et al. VariBAD. 2020, arXiv 1910.08348, by the authors' code,
github.com/lmzintgraf/varibad, point_robot.py with its sampler of semi-circle goals.
"""

import jax
import jax.numpy as jnp

from jaxmeta.checks import check_sizes
from jaxmeta.envs.env import Box, Env
from jaxmeta.envs.moves import distance, glide


def semicircle(*, horizon: int = 100) -> Env:
    """Tasks are goals, [2], uniform on the half circle; the observation is the position.

    An episode starts at (0, 0). An action in [-1, 1]^2, clipped, moves by a tenth of it; the
    reward is minus the distance to the goal after the move. No end but the horizon.

    Args: horizon: steps of an episode.
    Returns: an `Env`. Raises: ValueError for a horizon below 1.

    >>> goal = semicircle().sample(jax.random.key(0))
    >>> round(float(jnp.linalg.norm(goal)), 4), bool(goal[1] > 0)
    (1.0, True)
    """
    check_sizes(horizon=horizon)

    def sample(key):
        angle = jax.random.uniform(key, (), maxval=jnp.pi)
        return jnp.stack([jnp.cos(angle), jnp.sin(angle)])

    def reset(goal, key):
        del goal, key
        return jnp.zeros(2), jnp.zeros(2)

    def step(goal, position, action, key):
        del key
        after = glide(position, action, 0.1)
        return after, after, -distance(after, goal), jnp.zeros((), bool)

    return Env(sample, reset, step, Box(2), horizon, 2)
