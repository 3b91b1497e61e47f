"""2-D navigation, the first reinforcement learning of the MAML paper.

Finn et al. 2017, arXiv 1703.03400, section 5.3: a point starts at (0, 0) and has to go to
a goal that is uniform in [-0.5, 0.5]^2; 100 steps.

Departures: none from the authors' code, github.com/cbfinn/maml_rl, which departs from the
paper. It pays minus the distance (only that fits the paper's figures), the paper writes the
squared distance; and it scales a policy's [-1, 1] to moves of at most 0.1 an axis.
"""

import jax
import jax.numpy as jnp

from jaxmeta.checks import check_flags, check_sizes
from jaxmeta.envs.env import Box, Env
from jaxmeta.envs.moves import distance, glide


def navigation(*, squared: bool = False, horizon: int = 100) -> Env:
    """Tasks are goals, [2]; the observation is the position.

    An action in [-1, 1]^2, clipped, moves by a tenth of it; the reward is minus the distance
    to the goal after the move, and within 0.01 of it on both axes the episode ends.

    Args: squared: whether to pay minus the squared distance. horizon: steps of an episode.
    Returns: an `Env`. Raises: ValueError for a horizon below 1, a `squared` that is no bool.

    >>> env = navigation()
    >>> goal, key = jnp.array([0.3, 0.4]), jax.random.key(0)
    >>> start, _ = env.reset(goal, key)
    >>> position, _, reward, _ = env.step(goal, start, jnp.array([0.0, 4.0]), key)
    >>> [round(float(n), 3) for n in (*position, reward)]
    [0.0, 0.1, -0.424]
    """
    check_flags(squared=squared)
    check_sizes(horizon=horizon)

    def sample(key):
        return jax.random.uniform(key, (2,), minval=-0.5, maxval=0.5)

    def reset(goal, key):
        del goal, key
        return jnp.zeros(2), jnp.zeros(2)

    def step(goal, position, action, key):
        del key
        after = glide(position, action, 0.1)
        away = distance(after, goal)
        there = jnp.all(jnp.abs(after - goal) < 0.01)
        return after, after, -(jnp.square(away) if squared else away), there

    return Env(sample, reset, step, Box(2), horizon, 2)
