"""Four corners, one of which pays: adapting needs exploring.

Rothfuss et al. ProMP. 2019, arXiv 1810.06784, by the authors' code,
github.com/jonasrothfuss/ProMP, point_env_2d_corner.py: reward is progress towards the goal,
and only in the goal's quadrant, outside a rhombus around the start that pays nothing.

As there, whoever knows the goal earns more by pacing than by going to it: a step back into
the rhombus, or out of the quadrant, costs nothing, and the way out again is paid again.

Departures: our policies' [-1, 1] is the authors' [-10, 10], which they scale to moves of at
most 0.2 an axis; `bound=10` is theirs.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.checks import check_positive, check_sizes
from jaxmeta.envs.env import Box, Env
from jaxmeta.envs.moves import distance, glide

CORNERS = np.array([(-2, -2), (2, -2), (-2, 2), (2, 2)], np.float32)


def corners(*, bound: float = 1.0, horizon: int = 100) -> Env:
    """Tasks are goals, [2], one of the corners (+-2, +-2); the observation is the position.

    An episode starts uniformly in [-0.2, 0.2]^2. The reward is by how much a move brought
    the point closer to the goal, if it then is in the goal's quadrant and |x| + |y| >= 0.5;
    else 0.

    Args: bound: an action in [-bound, bound]^2, clipped, moves by 0.2 / bound of it.
        horizon: steps of an episode.
    Returns: an `Env`. Raises: ValueError for a bound that is not positive or a horizon
        below 1.

    >>> env = corners()
    >>> goal, position, key = jnp.full(2, 2.0), jnp.full(2, 0.2), jax.random.key(0)
    >>> step = lambda action: env.step(goal, position, action, key)[2]
    >>> [round(float(step(jnp.array([a, a]))), 3) for a in (1.0, -1.0)]
    [0.283, 0.0]
    """
    check_positive(bound=bound)
    check_sizes(horizon=horizon)

    def sample(key):
        return jax.random.choice(key, jnp.asarray(CORNERS))

    def reset(goal, key):
        del goal
        start = jax.random.uniform(key, (2,), minval=-0.2, maxval=0.2)
        return start, start

    def step(goal, position, action, key):
        del key
        after = glide(position, action, 0.2, bound)
        away = distance(after, goal)
        # nearest of the corners is the goal; comparing distances would compare roundings
        inside = jnp.all(after * goal >= 0)
        pays = inside & (jnp.sum(jnp.abs(after)) >= 0.5)
        reward = jnp.where(pays, distance(position, goal) - away, 0.0)
        return after, after, reward, jnp.zeros((), bool)

    return Env(sample, reset, step, Box(2), horizon, 2)
