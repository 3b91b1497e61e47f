"""Proximal policy optimisation over whole trials: the slow learning of agents.

Schulman, Wolski, Dhariwal, Radford, Klimov. Proximal Policy Optimization Algorithms. 2017,
arXiv 1707.06347.
"""

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, keys, policies
from jaxmeta.boundary import remembered
from jaxmeta.envs.env import Env, check_env
from jaxmeta.learners.reinforcement import surrogates
from jaxmeta.outer import MetaState, descended, state_of
from jaxmeta.rollouts import (
    Agent,
    Rollouts,
    advantages,
    mean,
    normalised,
    returns,
    trial,
)
from jaxmeta.types import Outer


@remembered
def ppo(
    agent: Agent,
    env: Env,
    optimizer: optax.GradientTransformation,
    *,
    episodes: int = 1,
    trials: int = 128,
    epochs: int = 4,
    minibatches: int = 4,
    clip: float = 0.1,
    discount: float = 0.99,
    trace: float = 0.3,
    entropy: float = 0.01,
    value: float = 0.5,
    normalise: bool = False,
) -> Outer:
    """Collect trials, then take several passes of clipped policy gradients over them.

        maximise E[min(r A, clip(r, 1 - c, 1 + c) A)] + entropy H - value (v - target)^2 / 2

    Minibatches are of whole trials, so a memory is always run from its beginning.

    Args:
        agent, env: who acts, and where. optimizer: of its parameters.
        episodes: of a trial. trials: of a step, a new task each.
        epochs, minibatches: passes over them, and parts of a pass; minibatches divides
            trials.
        clip, entropy, value: c and the weights above.
        discount, trace: of the advantages, see `jaxmeta.rollouts.advantages`.
        normalise: bring each minibatch's advantages to mean 0 and deviation 1.

    Returns: an `Outer` for `jm.fit(outer, None, ...)`, states `MetaState`, a step = `trials`
        trials; metrics: `return` (mean of a trial's sum of rewards), `objective`,
        `entropy`, `divergence` (KL from the policy that acted), `skipped`.
    Raises: ValueError for numbers that do not fit, or an environment whose shapes change.
    """
    checks.check_kind(agent, Agent, "agent")
    if agent.predict is None:
        raise ValueError(
            "agent: it has no predict, so nothing can train it; a baseline?"
        )
    check_env(env)
    checks.check_optimizer(optimizer)
    checks.check_sizes(episodes=episodes, trials=trials)
    checks.check_sizes(epochs=epochs, minibatches=minibatches)
    checks.check_numbers(least=0, most=1, discount=discount, trace=trace)
    checks.check_numbers(least=0, clip=clip, entropy=entropy, value=value)
    checks.check_flags(normalise=normalise)
    if trials % minibatches:
        raise ValueError(
            f"minibatches: expected a divisor of trials={trials}, got {minibatches}"
        )

    predict = agent.predict

    def collect(params, key) -> Rollouts:
        key_task, key_act = jax.random.split(key)
        adapted = agent.adapt(params)
        return trial(agent, adapted, env, env.sample(key_task), key_act, episodes)

    def surrogate(params, rollouts, advantage, target):
        """What is ascended in one trial; entropy, and the way from the one that acted."""
        policy, found = predict(agent.adapt(params), rollouts)
        logs = policies.log_prob(policy, rollouts.action)
        gain = surrogates.ppo_clip(logs, rollouts, advantage, clip)
        spread = mean(policies.entropy(policy), rollouts)
        error = mean(0.5 * jnp.square(found - target), rollouts)
        log_ratio = logs - rollouts.log_prob
        apart = mean(jnp.exp(log_ratio) - 1 - log_ratio, rollouts)
        return gain + entropy * spread - value * error, (spread, apart)

    def loss(params, rows):
        rollouts, advantage, target = rows
        if normalise:
            advantage = normalised(advantage, rollouts)
        total, more = jax.vmap(surrogate, (None, 0, 0, 0))(
            params, rollouts, advantage, target
        )
        return -jnp.mean(total), jax.tree.map(jnp.mean, more)

    def update(state, rows):
        (objective, more), grads = jax.value_and_grad(loss, has_aux=True)(
            state.params, rows
        )
        state, skipped = descended(optimizer, state, grads, objective)
        spread, apart = more
        told = {"objective": objective, "entropy": spread, "divergence": apart}
        return state, told | skipped

    def step(state: MetaState, sampler, key):
        del sampler  # the environment is known
        key_tasks, key_order = keys.parts(key)
        rollouts = jax.vmap(collect, (None, 0))(
            state.params, keys.tasks(key_tasks, trials)
        )
        gained = jax.vmap(lambda r: advantages(r, discount, trace))(rollouts)

        def one_pass(state, key):
            order = jax.random.permutation(key, trials).reshape(minibatches, -1)
            parts = jax.tree.map(lambda a: a[order], (rollouts, *gained))
            return jax.lax.scan(update, state, parts)

        after, told = jax.lax.scan(one_pass, state, jax.random.split(key_order, epochs))
        told = {name: jnp.mean(v) for name, v in told.items()}
        told["return"] = jnp.mean(jnp.sum(jax.vmap(returns)(rollouts), axis=-1))
        return after._replace(step=state.step + 1), told

    return Outer(lambda key: state_of(agent.init(key), optimizer), step)
