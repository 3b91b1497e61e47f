"""Agents that act by a rule on what they see, and remember nothing."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.envs.agent import Agent
from jaxmeta.envs.env import Box, Discrete

Rule = Callable[[jax.Array, jax.Array], jax.Array]


def reactive(rule: Rule) -> Agent:
    """An agent without parameters, (), for `jm.evaluate_returns`.

    Args: rule: (obs, key) -> action; in `jaxmeta.envs.told(env)` it sees the task.

    >>> agent = reactive(lambda obs, key: -obs)
    >>> _, action, _, _ = agent.act((), (), jnp.array([1.0]), None, jax.random.key(0))
    >>> action.tolist()
    [-1.0]
    """
    checks.check_functions(rule=rule)

    def act(adapted, memory, obs, last, key):
        del adapted, last
        none = jnp.zeros(())
        return memory, rule(obs, key), none, none

    nothing = lambda *given: ()
    return Agent(nothing, nothing, nothing, act)


def random_action(actions: Discrete | Box) -> Agent:
    """Any action, each as often; of a `Box` numbers uniform in [-1, 1]."""
    if isinstance(actions, Discrete):
        return reactive(lambda obs, key: jax.random.randint(key, (), 0, actions.n))
    shape = (actions.dims,)
    return reactive(lambda obs, key: jax.random.uniform(key, shape, minval=-1))


def still(actions: Box) -> Agent:
    """Never moves."""
    return reactive(lambda obs, key: jnp.zeros(actions.dims))


def glider(speed: float = 0.1) -> Agent:
    """Straight to the goal on the plane on each axis, where `told` says it.

    Args: speed: of an action of size 1.
    """
    checks.check_positive(speed=speed)
    return reactive(lambda obs, key: (obs[2:] - obs[:2]) / speed)


def walker() -> Agent:
    """To the goal in a grid, along x, then along y, where `told` says it."""

    def rule(obs, key):
        dx, dy = obs[2:] - obs[:2]
        along_y = jnp.where(dy > 0, 1, jnp.where(dy < 0, 3, 0))
        return jnp.where(dx > 0, 2, jnp.where(dx < 0, 4, along_y)).astype(jnp.int32)

    return reactive(rule)
