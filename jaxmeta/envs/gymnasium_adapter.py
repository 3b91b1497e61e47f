"""Environments of Gymnasium, `pip install "jaxmeta[gymnasium]"`: one object a task, on the
host. `jm.collect` plays them."""

import math
from typing import Any, NamedTuple

import numpy as np

from jaxmeta import checks
from jaxmeta.envs.env import Box, Discrete, Env


class Stepped(NamedTuple):
    """What a step led to: obs float32 [numbers], reward, terminated, truncated."""

    obs: np.ndarray
    reward: float
    terminated: bool
    truncated: bool


def from_gymnasium(env: Any, *, horizon: int | None = None) -> Env:
    """What an agent has to know of an environment of Gymnasium: actions, horizon, obs_dims.

    A task is what the environment was made with (a length, a force, a goal); so tasks are
    many such objects, which `jm.collect` plays:

        envs = [make(task) for task in tasks]
        agent = jm.rl2(jm.envs.from_gymnasium(envs[0]))
        played = jm.collect(agent, params, envs, key=key, episodes=2)

    Args:
        env: an environment, not a vector of them.
        horizon: steps of an episode at most; None = its own `max_episode_steps`.

    Returns: an `Env` whose `sample`, `reset` and `step` raise: they are no pure functions,
        so nothing compiled can contain them. Observations are flattened as Gymnasium does
        (a Discrete one is one-hot). Of a `Box` actions are what the environment takes,
        clipped to its limits, not scaled to them; `gymnasium.wrappers.RescaleAction` does.
    Raises: ValueError for what is no environment of Gymnasium, for observations that can't
        be flattened, for other actions than a Discrete or a floating Box, and where no
        horizon is known.
    """
    what = "an environment of Gymnasium, e.g. gymnasium.make('CartPole-v1')"
    checks.check_methods("env", env, ("reset", "step"), what)
    if not hasattr(env, "action_space") or hasattr(env, "num_envs"):
        raise ValueError(f"env: expected {what}, got {checks.said(env)}")
    numbers = _numbers(env.observation_space)
    actions = _actions(env.action_space)
    return Env(_refuse, _refuse, _refuse, actions, _horizon(env, horizon), numbers)


def reset(env: Any, seed: int, numbers: int, where: str) -> np.ndarray:
    """The first observation of an episode, float32 [numbers]."""
    obs, _ = env.reset(seed=seed)
    return _flat(env, obs, numbers, where)


def step(env: Any, action: np.ndarray, numbers: int, where: str) -> Stepped:
    """One step. where: which, in words, for the ValueError if what it gives is no number,
    or of another shape than before."""
    obs, reward, terminated, truncated, _ = env.step(_theirs(env.action_space, action))
    if np.shape(reward) != () or not np.isfinite(reward):
        raise ValueError(
            f"{where}: expected one finite number as the reward, got {_said(reward)}"
        )
    obs = _flat(env, obs, numbers, where)
    return Stepped(obs, float(reward), bool(terminated), bool(truncated))


def _refuse(*args):
    raise ValueError(
        "env: an environment of Gymnasium lives on the host and can't be compiled; play it "
        "with jm.collect(agent, params, envs, key=...)"
    )


def _numbers(space) -> int:
    """How many an observation has, flattened."""
    from gymnasium import spaces  # pyright: ignore[reportMissingImports]

    if not getattr(space, "is_np_flattenable", False):
        raise ValueError(
            f"env: expected observations of a fixed number of numbers, got {space}"
        )
    return int(spaces.flatdim(space))


def _actions(space) -> Discrete | Box:
    if hasattr(space, "n") and space.shape == ():
        return Discrete(int(space.n))
    if hasattr(space, "low") and np.issubdtype(space.dtype, np.floating):
        return Box(math.prod(space.shape))
    raise ValueError(
        f"env: expected actions of a Discrete or a floating Box, got {space}; a wrapper "
        "(gymnasium.ActionWrapper) can make one of another"
    )


def _horizon(env, horizon) -> int:
    if horizon is None:
        horizon = getattr(getattr(env, "spec", None), "max_episode_steps", None)
    if horizon is None:
        raise ValueError(
            "horizon: expected a number of steps, since the environment has no limit of "
            "its own (gymnasium.make sets it), got None"
        )
    checks.check_sizes(horizon=horizon)
    return int(horizon)


def _theirs(space, action):
    """Gymnasium's action for one of ours."""
    if hasattr(space, "n"):
        return int(space.start + action)
    clipped = np.clip(np.reshape(action, space.shape), space.low, space.high)
    return clipped.astype(space.dtype)


def _flat(env, obs, numbers, where) -> np.ndarray:
    from gymnasium import spaces  # pyright: ignore[reportMissingImports]

    flat = np.asarray(spaces.flatten(env.observation_space, obs), np.float32)
    if flat.shape != (numbers,):
        raise ValueError(
            f"{where}: expected an observation of {numbers} numbers, as of "
            f"{env.observation_space}, got one of {flat.size}; one that changes from step "
            "to step can't be compiled"
        )
    if not np.isfinite(flat).all():
        raise ValueError(f"{where}: expected a finite observation, got {_said(flat)}")
    return flat


def _said(value) -> str:
    """Numbers as they are written, a few of them."""
    return np.array2string(np.asarray(value), threshold=8, precision=4)
