"""RL^2: a recurrent policy whose memory is the learning algorithm.

Duan, Schulman, Chen, Bartlett, Sutskever, Abbeel. RL^2: Fast Reinforcement Learning via Slow
Reinforcement Learning. 2016, arXiv 1611.02779; and at the same time Wang et al. Learning to
Reinforcement Learn. 2016, arXiv 1611.05763.

The network sees the observation, the last action, the last reward and whether an episode
has just begun; its memory lives through all episodes of a trial. The slow learning is any
policy gradient over whole trials, see `jm.ppo`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, policies
from jaxmeta.envs.env import Box, Discrete, Env
from jaxmeta.models import gru, layers, parameters
from jaxmeta.rollouts import Agent, Last, Rollouts, before


class Adapted(NamedTuple):
    """The network, and what it remembers of its task."""

    params: Any
    h: jax.Array  # [hidden]


def _inputs(actions: Discrete | Box, obs: jax.Array, last: Last) -> jax.Array:
    """What the network sees, [..., inputs]."""
    action = last.action
    if isinstance(actions, Discrete):
        action = jax.nn.one_hot(action, actions.n, dtype=obs.dtype)  # of -1: zeros
    parts = [obs, action, last.reward[..., None], last.done[..., None]]
    return jnp.concatenate(parts, axis=-1)


def _heads(params: Any, actions: Discrete | Box, h: jax.Array):
    """(policy, value [n]) of memories [n, hidden]."""
    outputs = layers.dense(params["policy"], h)
    value = layers.dense(params["value"], h)[:, 0]
    if isinstance(actions, Discrete):
        return outputs, value
    return (outputs, jnp.broadcast_to(params["log_std"], outputs.shape)), value


def rl2(env: Env, *, hidden: int = 64) -> Agent:
    """RL^2 with a gated recurrent unit.

    Args: env: whose observations it sees and whose actions it takes. hidden: size of the
        memory.
    Returns: an `Agent`; `adapt` reads recorded episodes of the task into the memory.
    Raises: ValueError for what is no environment, or a size below 1.

    >>> import jax, optax, jaxmeta as jm
    >>> env = jm.envs.bandit(arms=2, pulls=5)
    >>> agent = jm.rl2(env, hidden=8)
    >>> outer = jm.ppo(agent, env, optax.adam(1e-3), trials=8)
    >>> state = jm.fit(outer, None, steps=2, key=jax.random.key(0))
    >>> report = jm.evaluate_returns(
    ...     agent, state.params, env, num_tasks=10, key=jax.random.key(1))
    """
    checks.check_kind(env, Env, "env")
    checks.check_sizes(hidden=hidden)
    actions = env.actions
    numbers = actions.n if isinstance(actions, Discrete) else actions.dims
    inputs = env.obs_dims + numbers + 2
    small = jax.nn.initializers.orthogonal(0.01)  # all actions alike at first

    def init(key):
        key_memory, key_policy, key_value = jax.random.split(key, 3)
        heads = {
            "policy": parameters.dense(hidden, numbers),
            "value": parameters.dense(hidden, 1),
        }
        params = parameters.fill(heads, key_value)
        params["policy"]["kernel"] = small(key_policy, (hidden, numbers))
        if isinstance(actions, Box):
            params["log_std"] = jnp.zeros(numbers)
        return params | {"memory": gru.init(key_memory, inputs, hidden)}

    def adapt(params, support: Rollouts | None = None, key=None):
        del key  # not random
        start = Adapted(params, jnp.zeros(hidden))
        if support is None:
            return start
        return start._replace(h=_read(start, support)[-1])

    def _read(adapted, rollouts):
        """Memories after each step of a trial, [episodes * steps, hidden]."""
        x = _inputs(actions, rollouts.obs, before(rollouts, actions))
        x, counts = (jnp.reshape(a, (-1, *a.shape[2:])) for a in (x, rollouts.mask))

        def one(h, row):
            x, counts = row
            new = gru.step(adapted.params["memory"], h, x)
            return jnp.where(counts > 0, new, h), new

        _, memories = jax.lax.scan(one, adapted.h, (x, counts))
        return memories

    def act(adapted, h, obs, last, key):
        h = gru.step(adapted.params["memory"], h, _inputs(actions, obs, last))
        heads = _heads(adapted.params, actions, h[None])
        policy, value = jax.tree.map(lambda a: a[0], heads)
        action = policies.sample(policy, key)
        return h, action, policies.log_prob(policy, action), value

    def predict(adapted, rollouts):
        heads = _heads(adapted.params, actions, _read(adapted, rollouts))
        shape = rollouts.reward.shape
        return jax.tree.map(lambda a: jnp.reshape(a, (*shape, *a.shape[1:])), heads)

    return Agent(init, adapt, lambda adapted: adapted.h, act, predict)
