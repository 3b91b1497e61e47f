"""What an agent earns in unseen tasks."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta import checks, keys
from jaxmeta.envs.env import Env, check_env
from jaxmeta.rollouts import Agent, returns, trial
from jaxmeta.training.evaluate import Report, summarize


def evaluate_returns(
    agent: Agent,
    params: Any,
    env: Env,
    *,
    episodes: int = 1,
    num_tasks: int = 1000,
    key: jax.Array,
) -> Report:
    """Let an agent act in many tasks.

    Args:
        agent, params: who acts. env: where; task i and all that is random in its trial
            come from fold_in(key, i).
        episodes: of a trial. num_tasks: how many. key: typed key.

    Returns: a `Report` of `return`, the sum of a trial's rewards, and with several episodes
        `episode 1`, `episode 2`, ...
    Raises: ValueError for fewer than 2 tasks, or an environment whose shapes change.
    """
    checks.check_kind(agent, Agent, "agent")
    check_env(env)
    checks.check_key(key)
    checks.check_sizes(2, num_tasks=num_tasks)
    checks.check_sizes(episodes=episodes)
    each = _returns(agent, params, env, episodes, keys.tasks(key, num_tasks))
    metrics = {"return": jnp.sum(each, axis=1)}
    if episodes > 1:
        metrics |= {f"episode {i + 1}": each[:, i] for i in range(episodes)}
    return summarize(jax.device_get(metrics))


@partial(jax.jit, static_argnames=("agent", "env", "episodes"))
def _returns(agent, params, env, episodes, task_keys) -> jax.Array:
    """[tasks, episodes]"""

    def one(key):
        key_task, key_act = jax.random.split(key)
        adapted = agent.adapt(params)
        task = env.sample(key_task)
        return returns(trial(agent, adapted, env, task, key_act, episodes))

    return jax.vmap(one)(task_keys)
