"""The outer loop of agents: act in new tasks, then descend what they say of it.

Schulman, Wolski, Dhariwal, Radford, Klimov. Proximal Policy Optimization Algorithms. 2017,
arXiv 1707.06347: several passes over the same episodes, which the agent's `loss` has to
bear (it compares with the policy that acted).
"""

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, keys
from jaxmeta.boundary import remembered
from jaxmeta.envs.agent import Agent
from jaxmeta.envs.env import Env
from jaxmeta.learners.reinforcement.trials import (
    Trials,
    check_agent,
    collector,
    mean_loss,
    told_of,
)
from jaxmeta.outer import MetaState, descended, state_of
from jaxmeta.types import Outer


@remembered
def policy_gradient(
    agent: Agent,
    env: Env,
    optimizer: optax.GradientTransformation,
    *,
    tasks_per_step: int = 128,
    episodes: int = 1,
    epochs: int = 4,
    minibatches: int = 4,
) -> Outer:
    """Collect trials, then take several passes of gradient steps over them.

    Minibatches are of whole trials, so a memory is always run from its beginning.

    Args:
        agent, env: who acts, and where. optimizer: of the agent's parameters.
        tasks_per_step: trials of a step, a new task each.
        episodes: of a batch; a trial has `agent.updates` + 1 of these.
        epochs, minibatches: passes over the trials, and parts of a pass; minibatches
            divides tasks_per_step.

    Returns: an `Outer` for `jm.fit(outer, None, ...)`, states `MetaState`; metrics:
        `return`, mean return of an episode of the last batch; `return_0`, ... before each
        update of the agent; `objective` and what else the agent's `loss` tells, means over
        all gradient steps; `skipped`.
    Raises: ValueError for numbers that do not fit, or an environment whose shapes change.

    >>> import jax, optax, jaxmeta as jm
    >>> env = jm.envs.bandit(arms=2, pulls=5)
    >>> outer = jm.policy_gradient(
    ...     jm.rl2(env, hidden=8), env, optax.adam(1e-3), tasks_per_step=8)
    >>> state = jm.fit(outer, None, steps=2, key=jax.random.key(0))
    """
    check_agent(agent, env)
    checks.check_optimizer(optimizer)
    checks.check_sizes(epochs=epochs, minibatches=minibatches)
    collect = collector(agent, env, tasks_per_step, episodes)
    if tasks_per_step % minibatches:
        raise ValueError(
            f"minibatches: expected a divisor of tasks_per_step={tasks_per_step}, got "
            f"{minibatches}"
        )
    loss = mean_loss(agent)

    def update(state: MetaState, trials: Trials):
        (value, told), grads = jax.value_and_grad(loss, has_aux=True)(
            state.params, trials
        )
        state, skipped = descended(optimizer, state, grads, value)
        return state, told | {"objective": value} | skipped

    def step(state: MetaState, sampler, key):
        del sampler  # tasks are the environment's
        key_tasks, key_order = keys.parts(key)
        trials = collect(state.params, key_tasks)

        def one_pass(state, order):
            order = jnp.reshape(order, (minibatches, -1))
            parts = jax.tree.map(lambda a: a[order], trials)
            return jax.lax.scan(update, state, parts)

        # scanned over are orders, not keys, which JAX's check for reuse refuses under vmap
        shuffled = lambda key: jax.random.permutation(key, tasks_per_step)
        orders = jax.vmap(shuffled)(jax.random.split(key_order, epochs))
        after, told = jax.lax.scan(one_pass, state, orders)
        told = jax.tree.map(jnp.mean, told) | told_of(trials)
        return after._replace(step=state.step + 1), told

    return Outer(lambda key: state_of(agent.init(key), optimizer), jax.jit(step))
