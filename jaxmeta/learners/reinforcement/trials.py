"""Trials of many tasks, recorded: what every outer loop of agents begins with."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, keys
from jaxmeta.envs.agent import Agent
from jaxmeta.envs.env import Env, check_env
from jaxmeta.rollouts import Rollouts, mean, practise, returns
from jaxmeta.task_axis import over_tasks


class Trials(NamedTuple):
    """Trials of a batch of tasks, constants.

    batches: `agent.updates` + 1 `Rollouts` [tasks, episodes, steps]. others: [tasks], mean
    reward of a step in the other tasks' last batches.
    """

    batches: tuple[Rollouts, ...]
    others: jax.Array


def check_agent(agent: Agent, env: Env) -> None:
    """Raise ValueError unless it can be trained there."""
    checks.check_kind(agent, Agent, "agent")
    if agent.loss is None or agent.predict is None:
        raise ValueError(
            "agent: it has no predict and loss, so nothing can train it; a baseline?"
        )
    check_env(env)


def collector(agent: Agent, env: Env, tasks_per_step: int, episodes: int) -> Callable:
    """(params, key) -> Trials of so many new tasks."""
    checks.check_sizes(tasks_per_step=tasks_per_step, episodes=episodes)

    def collect(params: Any, key: jax.Array) -> Trials:
        def one(key):
            key_task, key_act = jax.random.split(key)
            return practise(agent, params, env, env.sample(key_task), key_act, episodes)

        batches = over_tasks(one)(keys.tasks(key, tasks_per_step))
        return Trials(batches, _of_others(batches[-1]))

    return collect


def mean_loss(agent: Agent) -> Callable:
    """(params, Trials) -> (mean of the agent's loss [], means of what it tells)."""
    assert agent.loss is not None
    loss = agent.loss

    def over_trials(params, trials: Trials):
        of_task = lambda batches, others: loss(params, batches, others)
        value, told = over_tasks(of_task)(*trials)
        return jnp.mean(value), jax.tree.map(jnp.mean, told)

    return over_trials


def told_of(trials: Trials) -> dict[str, jax.Array]:
    """Mean returns of an episode: `return` in the last batch, `return_0`, ... before each
    update."""
    each = [jnp.mean(jax.vmap(returns)(batch)) for batch in trials.batches]
    return {"return": each[-1]} | {f"return_{k}": r for k, r in enumerate(each[:-1])}


def _of_others(last: Rollouts) -> jax.Array:
    """[tasks] the mean over the other tasks: independent of what a task's own episodes
    were, so it takes variance away and adds no bias. 0 for one task alone."""
    paid = jax.vmap(lambda rollouts: mean(rollouts.reward, rollouts))(last)
    return (jnp.sum(paid) - paid) / max(paid.shape[0] - 1, 1)
