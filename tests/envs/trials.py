"""Trials by policies that know what a learner has to find out."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.envs import Discrete
from jaxmeta.rollouts import Rollouts, returns, rollout


def play(env, choose, tasks, known=None, episodes=1) -> Rollouts:
    """Episodes [tasks, episodes, horizon, ...] of each of the tasks.

    choose: (known, obs, t, key) -> action, in step t of an episode; known: what the policy
        knows of each task, None = the task.
    """
    known = tasks if known is None else known
    keys = jax.random.split(jax.random.key(1), len(jax.tree.leaves(tasks)[0]))
    return _playing(env, choose, episodes)(tasks, known, keys)


@lru_cache  # so that the same played again is the same program
def _playing(env, choose, episodes):
    def act(memory, obs, last, key):
        known, t = memory
        t = jnp.where(last.done > 0, 0, t)
        unused = jnp.zeros(())
        return (known, t + 1), choose(known, obs, t, key), unused, unused

    def one(task, known, key):
        memory = known, jnp.zeros((), jnp.int32)
        return rollout(env, task, act, memory, key, episodes)

    return jax.jit(jax.vmap(one))


def sampled(env, tasks: int):
    """So many tasks."""
    return _sampled(env.sample, jax.random.split(jax.random.key(0), tasks))


@partial(jax.jit, static_argnums=0)
def _sampled(sample, keys):
    return jax.vmap(sample)(keys)


def mean_return(rollouts) -> np.ndarray:
    """Over tasks, of each episode, [episodes]."""
    return np.mean(returns(rollouts), axis=0)


def some_action(env, key):
    """At random; of continuous ones also such as are clipped."""
    if isinstance(env.actions, Discrete):
        return jax.random.randint(key, (), 0, env.actions.n)
    return 3 * jax.random.normal(key, (env.actions.dims,))


def glide_to(goal, obs, t=None, key=None):
    """Straight on each axis, at a speed of 0.1."""
    del t, key
    return (goal - obs) / 0.1


def walk_to(goal, obs, t=None, key=None):
    """Along x, then along y."""
    del t, key
    dx, dy = goal - obs
    along_y = jnp.where(dy > 0, 1, jnp.where(dy < 0, 3, 0))
    return jnp.where(dx > 0, 2, jnp.where(dx < 0, 4, along_y))
