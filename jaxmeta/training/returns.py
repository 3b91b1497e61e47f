"""What an agent earns in unseen tasks."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta import checks, keys
from jaxmeta.envs.env import Env, check_env
from jaxmeta.rollouts import Agent, Rollouts, practise, returns
from jaxmeta.training.evaluate import Report, summarize


def evaluate_returns(
    agent: Agent,
    params: Any,
    env: Env,
    *,
    updates: int | None = None,
    episodes: int = 1,
    num_tasks: int = 1000,
    key: jax.Array,
) -> Report:
    """Let an agent act in many tasks.

    Args:
        agent, params: who acts. env: where; task i and all that is random in its trial
            come from fold_in(key, i).
        updates: how often it adapts; None = as in training.
        episodes: before each update and after the last. num_tasks: how many. key: typed.

    Returns: a `Report` of `return`, the mean return of an episode after the updates; with
        updates also `return_0`, `return_1`, ... before each; of an agent with memory and
        several episodes also `episode_1`, `episode_2`, ... and `total`, their sum. A task in
        which a reward is not finite, or an action none of the environment's (such as a
        policy of NaN has), is `diverged`: its return is no number, and so is the mean.
    Raises: ValueError for fewer than 2 tasks, an environment whose shapes change, or an
        agent with actions of another shape.
    """
    checks.check_kind(agent, Agent, "agent")
    check_env(env)
    checks.check_key(key)
    checks.check_sizes(2, num_tasks=num_tasks)
    checks.check_sizes(episodes=episodes)
    if updates is not None:
        checks.check_sizes(0, updates=updates)
        agent = agent._replace(updates=updates)
    metrics = _metrics(agent, params, env, episodes, keys.tasks(key, num_tasks))
    return _report(metrics)


def report_returns(agent: Agent, *batches: Rollouts) -> Report:
    """What an agent earned in recorded trials, as `evaluate_returns` reports it.

    Args: agent; batches: recorded episodes of many tasks, [tasks, episodes, steps, ...],
        before each update and after the last.
    Returns: a `Report`. Raises: ValueError for what are no such `Rollouts`.
    """
    checks.check_kind(agent, Agent, "agent")
    if not batches:
        raise ValueError("batches: expected recorded jm.Rollouts, got none")
    for batch in batches:
        checks.check_kind(batch, Rollouts, "batches")
        if batch.reward.ndim != 3:
            raise ValueError(
                "batches: expected rewards [tasks, episodes, steps], got "
                f"{checks.said(batch.reward)}"
            )
    return _report(jax.vmap(lambda *batches: _told(agent, batches))(*batches))


def _report(metrics) -> Report:
    # the first tells whether a task diverged, and programs sort names
    metrics = jax.device_get(metrics)
    return summarize({"return": metrics["return"]} | metrics)


@partial(jax.jit, static_argnames=("agent", "env", "episodes"))
def _metrics(agent, params, env, episodes, task_keys) -> dict[str, jax.Array]:
    """[tasks] each."""

    def one(key):
        key_task, key_act = jax.random.split(key)
        task = env.sample(key_task)
        batches = practise(agent, params, env, task, key_act, episodes)
        return _told(agent, batches)

    return jax.vmap(one)(task_keys)


def _told(agent: Agent, batches: tuple[Rollouts, ...]) -> dict[str, jax.Array]:
    """What was earned in one recorded trial, [] each."""
    *before, last = (returns(batch) for batch in batches)
    told = {"return": jnp.mean(last)}
    told |= {f"return_{k}": jnp.mean(each) for k, each in enumerate(before)}
    if agent.begin is None or len(last) == 1:
        return told
    told |= {f"episode_{i + 1}": paid for i, paid in enumerate(last)}
    return told | {"total": jnp.sum(last)}
