"""What an agent sees and does: episodes of one task, recorded in one scan."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import keys
from jaxmeta.envs.agent import Agent
from jaxmeta.envs.env import Env, guarded, no_action


class Rollouts(NamedTuple):
    """Episodes of one task, arrays [episodes, steps, ...].

    obs: before the action. action, reward. terminated: bool, whether the episode ended
    by this step. log_prob, value: of the policy that acted, constants. mask: 1 = counts,
    0 = after the end of the episode.
    """

    obs: jax.Array
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    log_prob: jax.Array
    value: jax.Array
    mask: jax.Array


class Last(NamedTuple):
    """What came before an observation: action, reward [], done [] (1 where a new episode
    begins)."""

    action: jax.Array
    reward: jax.Array
    done: jax.Array


def before(rollouts: Rollouts, actions: Any) -> Last:
    """What came before each step of recorded episodes of one trial, [episodes, steps]:
    the last step that counts."""
    counts = jnp.reshape(rollouts.mask, -1) > 0
    latest = jnp.where(counts, jnp.arange(1, counts.size + 1), 0)
    latest = jnp.pad(jax.lax.cummax(latest)[:-1], (1, 0))  # 0 = none

    def of(rows, none):
        flat = jnp.reshape(rows, (-1, *rows.shape[2:]))
        none = none.astype(rows.dtype)[None]
        return jnp.concatenate([none, flat])[latest].reshape(rows.shape)

    starts = jnp.zeros_like(rollouts.reward).at[:, 0].set(1)
    action = of(rollouts.action, no_action(actions))
    return Last(action, of(rollouts.reward, jnp.zeros(())), starts)


Act = Callable[[Any, jax.Array, Last, jax.Array], tuple[Any, jax.Array, Any, jax.Array]]


def rollout(
    env: Env, task: Any, act: Act, memory: Any, key: jax.Array, episodes: int
) -> Rollouts:
    """Episodes of one task, one after the other; memory passes from each to the next.

    After the end of an episode nothing is remembered: what comes before the next one is
    the step that ended it, with its reward.

    Args:
        env, task: where. act: (memory, obs, last, key) -> (memory, action, log_prob,
            value). memory: before the first step. episodes: how many.

    Returns: `Rollouts`, [episodes, horizon, ...].
    """

    env = guarded(env)  # an action that is none pays NaN

    def one_step(key_steps, carry, number):
        memory, state, obs, last, alive = carry
        key_act, key_env = jax.random.split(jax.random.fold_in(key_steps, number))
        after, action, log_prob, value = act(memory, obs, last, key_act)
        state, seen, reward, over = env.step(task, state, action, key_env)
        row = Rollouts(obs, action, reward, over, log_prob, value, alive)
        after = after, Last(action, reward, jnp.zeros_like(last.done))
        keep = lambda new, old: jnp.where(alive > 0, new, old)
        memory, last = jax.tree.map(keep, after, (memory, last))
        return (memory, state, seen, last, alive * (1 - over)), row

    def one_episode(carry, number):
        memory, last = carry
        key_reset, key_steps = jax.random.split(jax.random.fold_in(key, number))
        state, obs = env.reset(task, key_reset)
        last = last._replace(done=jnp.ones_like(last.done))
        start = memory, state, obs, last, jnp.ones(())
        one = partial(one_step, key_steps)
        (memory, _, _, last, _), rows = jax.lax.scan(
            one, start, jnp.arange(env.horizon)
        )
        return (memory, last), rows

    last = Last(no_action(env.actions), jnp.zeros(()), jnp.ones(()))
    _, rows = jax.lax.scan(one_episode, (memory, last), jnp.arange(episodes))
    return jax.lax.stop_gradient(rows)


def trial(
    agent: Agent, adapted: Any, env: Env, task: Any, key: jax.Array, episodes: int
) -> Rollouts:
    """Episodes of an agent in one task, its memory kept from each to the next.

    Raises: ValueError for more episodes than its memory has room for.
    """
    _check_room(agent, episodes)
    act = partial(agent.act, adapted)
    if agent.begin is not None:
        return rollout(env, task, act, agent.begin(adapted), key, episodes)
    alone = lambda key: rollout(env, task, act, (), key, episodes=1)
    rows = jax.vmap(alone)(keys.tasks(key, episodes))
    return jax.tree.map(lambda a: a[:, 0], rows)


def practise(
    agent: Agent, params: Any, env: Env, task: Any, key: jax.Array, episodes: int
) -> tuple[Rollouts, ...]:
    """A whole trial: batches of episodes, after each but the last the agent adapts.

    Raises: ValueError for more episodes in all than its memory has room for.
    """
    _check_room(agent, (agent.updates + 1) * episodes)
    batches: tuple[Rollouts, ...] = ()
    for k in range(agent.updates + 1):
        adapted = agent.adapt(params, batches or None)
        key_k = jax.random.fold_in(key, k)
        batches += (trial(agent, adapted, env, task, key_k, episodes),)
    return batches


def batches_of(support: Rollouts | tuple[Rollouts, ...] | None) -> tuple[Rollouts, ...]:
    """What an agent's `adapt` is given, as batches: one, several, or none."""
    return (support,) if isinstance(support, Rollouts) else tuple(support or ())


def _check_room(agent: Agent, episodes: int) -> None:
    if agent.episodes is not None and episodes > agent.episodes:
        raise ValueError(
            f"episodes: a trial of {episodes}, the agent's memory has room for "
            f"{agent.episodes}; make the agent with episodes={episodes}"
        )


def blanked(agent: Agent) -> Agent:
    """The same agent, which sees zeros after the end of an episode, whatever stands there:
    0 times NaN would be NaN."""

    def blank(rollouts: Rollouts) -> Rollouts:
        counts = rollouts.mask > 0
        keep = lambda a: jnp.reshape(counts, (*counts.shape, *[1] * (a.ndim - 2)))
        zeros = lambda a: jnp.where(keep(a), a, jnp.zeros((), a.dtype))
        return jax.tree.map(zeros, rollouts)

    def of_all(given):
        is_one = lambda a: isinstance(a, Rollouts)
        return jax.tree.map(blank, given, is_leaf=is_one)

    def adapt(params, support=None, key=None):
        return agent.adapt(params, of_all(support), key)

    def predict(adapted, rollouts):
        assert agent.predict is not None
        return agent.predict(adapted, blank(rollouts))

    def loss(params, batches, others=0.0):
        assert agent.loss is not None
        return agent.loss(params, of_all(batches), others)

    return agent._replace(adapt=adapt, predict=predict, loss=loss)


def returns(rollouts: Rollouts) -> jax.Array:
    """Sum of rewards of each episode, [episodes]."""
    return jnp.sum(jnp.where(rollouts.mask > 0, rollouts.reward, 0), axis=-1)


def advantages(
    rollouts: Rollouts, discount: float = 0.99, trace: float = 0.95
) -> tuple[jax.Array, jax.Array]:
    """Generalised advantage estimates and targets of the value, [episodes, steps].

    They run over the whole trial: an episode's end inside it does not cut the return, and
    the value after the trial's last step is 0 (RL^2, Duan et al. 2016, section 2.2).
    Schulman et al. 2016, arXiv 1506.02438, equation 16. What is masked is stepped over.
    """
    flat = lambda a: jnp.reshape(a, (-1,))

    def back(carry, row):
        following, later = carry
        reward, value, counts = row
        delta = reward + discount * following - value
        advantage = delta + discount * trace * later
        keep = lambda new, old: jnp.where(counts > 0, new, old)
        return (keep(value, following), keep(advantage, later)), keep(advantage, 0.0)

    rows = flat(rollouts.reward), flat(rollouts.value), flat(rollouts.mask)
    zero = jnp.zeros((), rollouts.reward.dtype)
    _, found = jax.lax.scan(back, (zero, zero), rows, reverse=True)
    found = jnp.reshape(found, rollouts.reward.shape)
    return found, found + rollouts.value


def mean(values: jax.Array, rollouts: Rollouts) -> jax.Array:
    """Sum over the steps that count, divided by the number of all, []: of a random number
    of steps the mean would be a ratio, whose expectation is the slope of nothing."""
    return jnp.mean(jnp.where(rollouts.mask > 0, values, 0))


def normalised(values: jax.Array, rollouts: Rollouts) -> jax.Array:
    """Brought to mean 0 and deviation 1 over all steps that count, of whatever shape."""
    counts = rollouts.mask > 0
    centre, spread = (f(values, where=counts) for f in (jnp.mean, jnp.std))
    return (values - centre) / (spread + 1e-8)
