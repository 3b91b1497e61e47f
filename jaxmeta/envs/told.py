"""An environment whose observation tells the task: what nothing has to be found out in."""

import math

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.envs.env import Env


def told(env: Env) -> Env:
    """The same tasks and rewards, and the task at the end of each observation.

    What is earned here is what `env` is worth to someone who knows: an agent trained in it,
    or a rule written by hand (`jaxmeta.envs.baselines.reactive`), is the upper end of a
    scale whose lower end never learns anything.

    Args: env: whose tasks are pytrees of arrays of numbers.
    Returns: an `Env`; observations are the environment's own, then the task's arrays, flat.
    Raises: ValueError for what is no environment.

    >>> from jaxmeta.envs import navigation
    >>> env = told(navigation())
    >>> goal = jnp.array([0.25, 0.5])
    >>> env.reset(goal, jax.random.key(0))[1].tolist()
    [0.0, 0.0, 0.25, 0.5]
    """
    checks.check_kind(env, Env, "env")
    leaves = jax.tree.leaves(jax.eval_shape(env.sample, jax.random.key(0)))
    numbers = sum(math.prod(leaf.shape) for leaf in leaves)

    def seen(task, obs):
        parts = [jnp.ravel(a).astype(obs.dtype) for a in jax.tree.leaves(task)]
        return jnp.concatenate([obs, *parts])

    def reset(task, key):
        state, obs = env.reset(task, key)
        return state, seen(task, obs)

    def step(task, state, action, key):
        state, obs, reward, over = env.step(task, state, action, key)
        return state, seen(task, obs), reward, over

    return env._replace(reset=reset, step=step, obs_dims=env.obs_dims + numbers)
