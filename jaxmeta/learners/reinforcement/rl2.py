"""RL^2: a policy with a memory, which is the learning algorithm.

Duan, Schulman, Chen, Bartlett, Sutskever, Abbeel. RL^2: Fast Reinforcement Learning via Slow
Reinforcement Learning. 2016, arXiv 1611.02779; and at the same time Wang et al. Learning to
Reinforcement Learn. 2016, arXiv 1611.05763.

The network sees the observation, the last action, the last reward and whether an episode
has just begun; its memory lives through all episodes of a trial. The slow learning is
`jm.policy_gradient` on PPO's objective (Schulman et al. 2017, arXiv 1707.06347) over whole
trials, with advantages A and targets v of the recorded value, r the ratio of policies:

    maximise  E[min(r A, clip(r, 1 - c, 1 + c) A)] + entropy H - value (v(s) - v)^2 / 2

The memory may also look back at all steps of the trial: Mishra, Rohaninejad, Chen, Abbeel.
A Simple Neural Attentive Meta-Learner. ICLR 2018, arXiv 1707.03141, section 5.2.

Departures: the authors of both take a trust region (TRPO) in place of clipping.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, policies
from jaxmeta.envs.env import Box, Discrete, Env
from jaxmeta.learners.registry import register
from jaxmeta.learners.reinforcement import surrogates
from jaxmeta.learners.reinforcement.memories import MEMORIES, Memory
from jaxmeta.models import layers, parameters
from jaxmeta.rollouts import (
    Agent,
    Last,
    Rollouts,
    advantages,
    batches_of,
    before,
    mean,
)


class Adapted(NamedTuple):
    """The network, and what it remembers of its task."""

    params: Any
    memory: Any


def _inputs(actions: Discrete | Box, obs: jax.Array, last: Last) -> jax.Array:
    """What the network sees, [..., inputs]."""
    action = last.action
    if isinstance(actions, Discrete):
        action = jax.nn.one_hot(action, actions.n, dtype=obs.dtype)  # of -1: zeros
    parts = [obs, action, last.reward[..., None], last.done[..., None]]
    return jnp.concatenate(parts, axis=-1)


def _heads(params: Any, actions: Discrete | Box, h: jax.Array):
    """(policy, value [n]) of features [n, features]."""
    outputs = layers.dense(params["policy"], h)
    value = layers.dense(params["value"], h)[:, 0]
    if isinstance(actions, Discrete):
        return outputs, value
    return (outputs, jnp.broadcast_to(params["log_std"], outputs.shape)), value


@register(
    paper="Duan et al. 2016, arXiv 1611.02779",
    learns=("reinforcement",),
    networks=lambda n: [],
    trains_on="trials",
    tiny={"hidden": 8},
)
def rl2(
    env: Env,
    *,
    memory: str | Memory = "gru",
    hidden: int = 64,
    episodes: int = 1,
    clip: float = 0.2,
    discount: float = 0.99,
    trace: float = 0.3,
    entropy: float = 0.01,
    value: float = 0.5,
    reward_mean: float = 0.0,
    reward_std: float = 1.0,
) -> Agent:
    """RL^2: a memory, and two heads on what it makes of the trial.

    Args:
        env: whose observations it sees and whose actions it takes.
        memory: "gru", "snail" or "transformer", or one of `jm.learners.reinforcement.
            memories` with sizes of its own.
        hidden: width of a memory that is given by name.
        episodes: of a trial, at most; a gru has room for any number.
        clip: c of the objective above.
        discount: of the advantages, see `jaxmeta.rollouts.advantages`.
        trace: of the advantages, lambda.
        entropy: weight of the policy's entropy.
        value: weight of the value's error.
        reward_mean: about what a step pays; (reward - reward_mean) / reward_std is what it
            sees and learns from, since a network has to learn the sum over a whole trial.
        reward_std: about how much that varies.

    Returns: an `Agent`; `adapt` reads recorded episodes of the task into the memory. What
        its `loss` tells: `entropy`, `divergence` (KL from the policy that acted).
    Raises: ValueError for what is no environment, an unknown memory, one without room for
        an episode, or a number out of range.

    >>> import jax, optax, jaxmeta as jm
    >>> env = jm.envs.bandit(arms=2, pulls=5)
    >>> agent = jm.rl2(env, hidden=8)
    >>> outer = jm.policy_gradient(agent, env, optax.adam(1e-3), tasks_per_step=8)
    >>> state = jm.fit(outer, None, steps=2, key=jax.random.key(0))
    >>> report = jm.evaluate_returns(
    ...     agent, state.params, env, num_tasks=10, key=jax.random.key(1))
    """
    checks.check_kind(env, Env, "env")
    checks.check_sizes(hidden=hidden, episodes=episodes)
    checks.check_numbers(least=0, most=1, discount=discount, trace=trace)
    checks.check_numbers(least=0, clip=clip, entropy=entropy, value=value)
    checks.check_numbers(reward_mean=reward_mean)
    checks.check_positive(reward_std=reward_std)
    scaled = lambda of: of._replace(reward=(of.reward - reward_mean) / reward_std)
    chosen = _chosen(memory, hidden, episodes * env.horizon)
    init_memory, start, step, read, features, _ = chosen
    actions = env.actions
    numbers = actions.n if isinstance(actions, Discrete) else actions.dims
    inputs = env.obs_dims + numbers + 2
    small = jax.nn.initializers.orthogonal(0.01)  # all actions alike at first

    @jax.jit  # one program is compiled in place of many
    def init(key):
        key_memory, key_policy, key_value = jax.random.split(key, 3)
        heads = {
            "policy": parameters.dense(features, numbers),
            "value": parameters.dense(features, 1),
        }
        params = parameters.fill(heads, key_value)
        params["policy"]["kernel"] = small(key_policy, (features, numbers))
        if isinstance(actions, Box):
            params["log_std"] = jnp.zeros(numbers)
        return params | {"memory": init_memory(key_memory, inputs)}

    def adapt(params, support: Rollouts | None = None, key=None):
        del key  # not random
        adapted = Adapted(params, start(params["memory"]))
        for rollouts in batches_of(support):
            adapted = adapted._replace(memory=_read(adapted, rollouts)[0])
        return adapted

    def _read(adapted, rollouts):
        """Memory after a batch, and features of each step [episodes * steps, features]."""
        x = _inputs(actions, rollouts.obs, scaled(before(rollouts, actions)))
        x, counts = (jnp.reshape(a, (-1, *a.shape[2:])) for a in (x, rollouts.mask))
        return read(adapted.params["memory"], adapted.memory, x, counts)

    def act(adapted, memory, obs, last, key):
        x = _inputs(actions, obs, scaled(last))
        memory, found = step(adapted.params["memory"], memory, x)
        heads = _heads(adapted.params, actions, found[None])
        policy, expected = jax.tree.map(lambda a: a[0], heads)
        action = policies.sample(policy, key)
        return memory, action, policies.log_prob(policy, action), expected

    def predict(adapted, rollouts):
        heads = _heads(adapted.params, actions, _read(adapted, rollouts)[1])
        shape = rollouts.reward.shape
        return jax.tree.map(lambda a: jnp.reshape(a, (*shape, *a.shape[1:])), heads)

    def loss(params, batches, others=0.0):
        del others
        (rollouts,) = batches
        advantage, target = advantages(scaled(rollouts), discount, trace)
        policy, expected = predict(adapt(params), rollouts)
        logs = policies.log_prob(policy, rollouts.action)
        gain = surrogates.ppo_clip(logs, rollouts, advantage, clip)
        spread = mean(policies.entropy(policy), rollouts)
        error = mean(0.5 * jnp.square(expected - target), rollouts)
        told = {"entropy": spread, "divergence": surrogates.divergence(logs, rollouts)}
        return value * error - gain - entropy * spread, told

    begin = lambda adapted: adapted.memory
    return Agent(init, adapt, begin, act, predict, loss, episodes=_room(chosen, env))


def _chosen(memory: str | Memory, hidden: int, length: int) -> Memory:
    if isinstance(memory, Memory):
        return memory
    return checks.lookup(MEMORIES, memory, "memory")(hidden, length)


def _room(memory: Memory, env: Env) -> int | None:
    """Episodes of a trial that a memory has room for; None = any number."""
    if memory.length is None:
        return None
    if memory.length < env.horizon:
        raise ValueError(
            f"memory: it has room for {memory.length} steps, an episode has {env.horizon}"
        )
    return memory.length // env.horizon
