"""Bernoulli bandits: each arm pays 1 with a chance of its own, else 0.

Duan et al. RL^2. 2016, arXiv 1611.02779, section 3.1: chances uniform in [0, 1]. Wang et
al. Learning to Reinforcement Learn. 2016, arXiv 1611.05763, section 3.1: two arms whose
chances depend on each other, which `chances` gives.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import checks
from jaxmeta.envs.env import Discrete, Env


def bandit(
    arms: int = 5, pulls: int = 10, *, chances: Sequence[Sequence[float]] | None = None
) -> Env:
    """A trial is one episode of `pulls` pulls; the observation is constant, 0.

    Args:
        arms: how many; the task is their chances, [arms].
        pulls: of an episode, its horizon.
        chances: rows of one chance an arm, of which each task is one at random; None =
            uniform in [0, 1].

    Returns: an `Env`. Raises: ValueError without an arm or pull, or for chances that are
        not rows of `arms` numbers in [0, 1].

    >>> env = bandit(2, 100, chances=((0.1, 0.9), (0.9, 0.1)))
    >>> bool(env.sample(jax.random.key(0)).sum() == 1)
    True
    """
    checks.check_sizes(arms=arms, pulls=pulls)
    rows = None if chances is None else _rows(chances, arms)

    def sample(key):
        if rows is None:
            return jax.random.uniform(key, (arms,))
        return jax.random.choice(key, jnp.asarray(rows))

    def reset(task, key):
        del task, key
        return (), jnp.zeros(1)

    def step(task, state, action, key):
        reward = jax.random.bernoulli(key, task[action]).astype(jnp.float32)
        return state, jnp.zeros(1), reward, jnp.zeros((), bool)

    return Env(sample, reset, step, Discrete(arms), pulls, 1)


def _rows(chances, arms):
    """[rows, arms], or a ValueError."""
    rows = checks.to_array("chances", chances)
    fits = np.isrealobj(rows) and rows.ndim == 2 and len(rows) and rows.shape[1] == arms
    if not fits or not np.all((rows >= 0) & (rows <= 1)):
        raise ValueError(
            f"chances: expected rows of {arms} numbers in [0, 1], one for each of the "
            f"arms={arms}, got {checks.said(chances)}"
        )
    return rows.astype(np.float32)
