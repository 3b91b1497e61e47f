"""What an environment is: pure functions of one task, which never changes inside a trial."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks


class Discrete(NamedTuple):
    """Actions 0..n-1, int32 []."""

    n: int


class Box(NamedTuple):
    """Actions of `dims` numbers, float32 [dims]; the environment clips them itself."""

    dims: int


class Env(NamedTuple):
    """A distribution over tasks, and how an episode of one goes.

    sample: key -> task, a pytree: what is hidden (a goal, the chances of arms).
    reset: (task, key) -> (state, obs), a new episode of the same task; obs float32 [n].
    step: (task, state, action, key) -> (state, obs, reward [], terminated []). There is no
        automatic reset: after `terminated`, what it gives counts no more.
    actions: which there are.
    horizon: steps of an episode, at most; its end truncates, it does not terminate.
    obs_dims: numbers of an observation.
    """

    sample: Callable[[jax.Array], Any]
    reset: Callable[[Any, jax.Array], tuple[Any, jax.Array]]
    step: Callable[
        [Any, Any, jax.Array, jax.Array],
        tuple[Any, jax.Array, jax.Array, jax.Array],
    ]
    actions: Discrete | Box
    horizon: int
    obs_dims: int


def no_action(actions: Discrete | Box) -> jax.Array:
    """The action before the first: -1, or zeros."""
    if isinstance(actions, Discrete):
        return jnp.full((), -1, jnp.int32)
    return jnp.zeros(actions.dims)


def is_action(actions: Discrete | Box, action: jax.Array) -> jax.Array:
    """Whether it is one of them, bool []. Of a `Box` all finite numbers are: its limits are
    the environment's to clip to."""
    if isinstance(actions, Discrete):
        return (action >= 0) & (action < actions.n)
    return jnp.all(jnp.isfinite(action))


def check_action(actions: Discrete | Box, action: Any) -> None:
    """Raise ValueError unless it has the shape and the kind of number of one of them."""
    wanted = jax.eval_shape(lambda: no_action(actions))
    kind = jnp.integer if isinstance(actions, Discrete) else jnp.floating
    dtype, shape = jnp.result_type(action), jnp.shape(action)
    if shape != wanted.shape or not jnp.issubdtype(dtype, kind):
        raise ValueError(
            f"agent: expected actions of type {wanted.dtype} and shape {wanted.shape}, for "
            f"{actions}, got {dtype} and {shape}"
        )


def guarded(env: Env) -> Env:
    """The same environment, whose reward is NaN for an action that is none of its own.

    Out of range JAX takes the nearest, and what it pays looks like any other reward.
    """

    def step(task, state, action, key):
        check_action(env.actions, action)
        after, obs, reward, over = env.step(task, state, action, key)
        sound = is_action(env.actions, action)
        return after, obs, jnp.where(sound, reward, jnp.nan), over

    return env._replace(step=step)


def check_env(env: Any) -> None:
    """Raise ValueError unless it is an environment that keeps its shapes."""
    checks.check_kind(env, Env, "env")
    checks.check_sizes(horizon=env.horizon, obs_dims=env.obs_dims)
    key = jax.random.key(0)
    task = jax.eval_shape(env.sample, key)
    state, obs = jax.eval_shape(env.reset, task, key)
    action = no_action(env.actions)
    after, seen, reward, over = jax.eval_shape(env.step, task, state, action, key)
    expected = jax.ShapeDtypeStruct((env.obs_dims,), jnp.float32)
    for what, found, wanted in (
        ("reset's observation", obs, expected),
        ("step's observation", seen, expected),
        ("step's state", after, state),
        ("reward", reward, jax.ShapeDtypeStruct((), jnp.float32)),
        ("terminated", over, jax.ShapeDtypeStruct((), jnp.bool_)),
    ):
        shapes = lambda tree: jax.tree.map(lambda a: (a.shape, str(a.dtype)), tree)
        if shapes(found) != shapes(wanted):
            raise ValueError(
                f"env: {what} has shape and type {shapes(found)}, expected "
                f"{shapes(wanted)}; one that changes from step to step can't be compiled"
            )
