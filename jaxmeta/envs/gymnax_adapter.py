"""Environments of gymnax, `pip install "jaxmeta[gymnax]"`, as distributions over tasks."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.envs.env import Box, Discrete, Env


class GymnaxTask(NamedTuple):
    """The environment's parameters, and those fields of its state that are the task's."""

    params: Any
    hidden: dict[str, jax.Array]


def from_gymnax(
    env: Any,
    env_params: Any | Callable[[jax.Array], Any] = None,
    *,
    hidden: tuple[str, ...] = (),
) -> Env:
    """An environment of gymnax, by its own step that never resets itself.

    gymnax draws a bandit's chances or a robot's goal anew at each reset. Named as `hidden`
    they are drawn with the task and stay through all its episodes:

        env = from_gymnax(*gymnax.make("PointRobot-misc"), hidden=("goal",))

    Args:
        env: the first of what `gymnax.make` gives.
        env_params: its parameters, or a function key -> parameters that draws a task's;
            None = env.default_params.
        hidden: fields of the state that belong to the task; no observation may show them.

    Returns: an `Env`. Observations are flattened; of continuous actions [-1, 1] is scaled to
        the environment's limits, and clipped. max_steps_in_episode is the horizon, and only
        what gymnax calls terminated ends an episode before it.
    Raises: ValueError for what is no environment of gymnax, for actions or observations
        that are no single array, and for a hidden field that its state has not.
    """
    methods = "reset_env", "step_env", "action_space"
    what = "an environment of gymnax, e.g. gymnax.make('CartPole-v1')[0]"
    checks.check_methods("env", env, methods, what)
    draw = env_params
    if not callable(env_params):
        draw = lambda key: env.default_params if env_params is None else env_params
    params = draw(jax.random.key(0))
    seen, state = jax.eval_shape(env.reset_env, jax.random.key(0), params)
    _check(seen, state, hidden)
    actions, act = _actions(env.action_space(params))

    def sample(key):
        key_params, key_hidden = jax.random.split(key)
        params = draw(key_params)
        _, state = env.reset_env(key_hidden, params)
        return GymnaxTask(params, {name: getattr(state, name) for name in hidden})

    def reset(task, key):
        obs, state = env.reset_env(key, task.params)
        return _typed(state.replace(**task.hidden)), _flat(obs)

    def step(task, state, action, key):
        obs, after, reward, terminated, *_ = env.step_env(
            key, state, act(action), task.params
        )
        # some fields of gymnax's states change their type at the first step
        after = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), after, state)
        reward = jnp.asarray(reward, jnp.float32)
        return after, _flat(obs), reward, jnp.asarray(terminated, bool)

    horizon = int(params.max_steps_in_episode)
    return Env(sample, reset, step, actions, horizon, math.prod(seen.shape))


def _check(seen, state, hidden):
    """Raise ValueError unless observations are one array, and the state has the fields."""
    if not hasattr(seen, "shape"):
        raise ValueError(f"env: expected observations of one array, got {seen}")
    for name in hidden:
        if not hasattr(state, name):
            raise ValueError(
                f"hidden: expected fields of the environment's state, "
                f"{', '.join(vars(state))}, got {name!r}"
            )


def _actions(space):
    """Our actions, and the function from one of ours to gymnax's."""
    if hasattr(space, "n"):
        return Discrete(int(space.n)), lambda action: action
    if not hasattr(space, "low"):
        raise ValueError(f"env: expected actions of a Discrete or Box, got {space}")
    low, high = (jnp.broadcast_to(a, space.shape) for a in (space.low, space.high))

    def scaled(action):
        unit = jnp.clip(jnp.reshape(action, space.shape), -1, 1)
        return low + (high - low) * (unit + 1) / 2

    return Box(math.prod(space.shape)), scaled


def _typed(state):
    """All fields as arrays, none of a weak type."""
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.asarray(a).dtype), state)


def _flat(obs):
    """float32 [numbers]."""
    return jnp.ravel(obs).astype(jnp.float32)
