"""Traps of meta-reinforcement learning that nothing else guards."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmeta as jm
from jaxmeta import rollouts
from jaxmeta.rollouts import Last


def test_an_agent_with_memory_sees_where_an_episode_begins():
    """Its return is not cut there, but it has to know (trap 1)."""
    env = jm.envs.dark_room(3)
    agent = jm.rl2(env, hidden=4)
    adapted = agent.adapt(agent.init(jax.random.key(0)))
    key, at = jax.random.key(1), lambda done: Last(jnp.array(2), jnp.zeros(()), done)
    seen = lambda done: agent.act(adapted, adapted.memory, jnp.ones(2), at(done), key)
    memories = jax.vmap(lambda done: seen(done)[0])(jnp.array([0.0, 1.0]))
    assert np.abs(memories[0] - memories[1]).max() > 1e-3


def test_advantages_of_a_task_are_brought_to_scale_without_the_others():
    """And without what follows the end of an episode (trap 9)."""
    random = np.random.default_rng(0)
    values = random.normal(size=(2, 3, 4)) * np.array([1, 1000])[:, None, None]
    mask = np.broadcast_to(np.arange(4) < np.array([4, 1, 3])[:, None], values.shape)
    played = jm.Rollouts(*[None] * 6, mask=jnp.asarray(mask, jnp.float32))  # type: ignore
    spoiled = jnp.asarray(np.where(mask, values, 1e6), jnp.float32)
    axes = 0, jm.Rollouts(*[None] * 6, mask=0)
    found = np.asarray(jax.vmap(rollouts.normalised, axes)(spoiled, played))
    for one, own in zip(found, values, strict=True):
        wanted = own[mask[0]]
        wanted = (wanted - wanted.mean()) / wanted.std()
        np.testing.assert_allclose(one[mask[0]], wanted, atol=1e-4)


def test_minibatches_are_of_whole_trials():
    """Cut along tasks, never along time; each trial once in a pass (trap 7)."""
    env, seen = jm.envs.bandit(arms=2, pulls=5), []
    agent = jm.rl2(env, hidden=4)

    def loss(params, batches, others=0.0):
        (played,) = batches
        assert played.reward.shape == (3, 5)
        jax.debug.callback(lambda value: seen.append(float(value)), played.value[0, 1])
        return agent.loss(params, batches)

    outer = jm.policy_gradient(
        agent._replace(loss=loss), env, optax.adam(1e-2), tasks_per_step=6, episodes=3,
        epochs=2, minibatches=3,
    )  # fmt: skip
    jax.block_until_ready(
        outer.step(outer.init(jax.random.key(0)), None, jax.random.key(1))
    )
    jax.effects_barrier()
    first, second = sorted(seen[:6]), sorted(seen[6:])
    assert first == second and len(set(first)) > 1
