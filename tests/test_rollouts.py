"""Episodes as they are recorded, and advantages over whole trials."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta as jm
from jaxmeta import rollouts
from jaxmeta.envs.env import Discrete, Env, check_env


def countdown(horizon=5):
    """An episode ends after as many steps as the task says; the reward is the step."""

    def step(task, state, action, key):
        state = state + 1
        obs = jnp.full(1, 1.0 * state)
        return state, obs, 1.0 * state, state >= task

    reset = lambda task, key: (jnp.zeros((), jnp.int32), jnp.zeros(1))
    sample = lambda key: jax.random.randint(key, (), 1, horizon)
    return Env(sample, reset, step, Discrete(3), horizon, 1)


def counting(memory, obs, last, key):
    """Its action is how often it has acted, modulo 3; its memory what came before."""
    return memory + 1, memory % 3, -1.0 * memory, last.done


def test_what_is_recorded_is_what_was_seen_and_done():
    env = countdown()
    start = jnp.zeros((), jnp.int32)
    run = lambda task: rollouts.rollout(
        env, task, counting, start, jax.random.key(0), 2
    )
    found = jax.device_get(jax.jit(run)(jnp.array(3)))
    np.testing.assert_array_equal(found.mask, [[1, 1, 1, 0, 0]] * 2)
    np.testing.assert_array_equal(found.terminated[:, :3], [[False, False, True]] * 2)
    np.testing.assert_array_equal(found.reward[:, :3], [[1, 2, 3]] * 2)
    np.testing.assert_array_equal(found.obs[:, :3, 0], [[0, 1, 2]] * 2)
    # the memory is that of the trial, not of the episode, and nothing after its end
    np.testing.assert_array_equal(found.action, [[0, 1, 2, 0, 0]] * 2)
    np.testing.assert_array_equal(found.value, [[1, 0, 0, 0, 0]] * 2)
    assert rollouts.returns(found).tolist() == [6, 6]


def test_before_is_what_the_agent_saw():
    env = countdown()

    def act(memory, obs, last, key):
        return memory, obs[0].astype(jnp.int32), last.reward, last.done

    run = lambda: rollouts.rollout(env, jnp.array(3), act, (), jax.random.key(0), 3)
    found = jax.jit(run)()
    last = rollouts.before(found, env.actions)
    np.testing.assert_array_equal(last.reward, found.log_prob)
    np.testing.assert_array_equal(last.done, found.value)
    np.testing.assert_array_equal(last.reward[:, 0], [0, 3, 3])  # that ended an episode
    np.testing.assert_array_equal(last.action[:, 0], [-1, 2, 2])


def test_advantages_run_over_the_whole_trial(x64):
    """As the recursion is written in the paper, over the steps that count; an episode's end
    does not cut it, and nothing follows the trial's last step (trap 1)."""
    random = np.random.default_rng(0)
    reward, value = random.normal(size=(2, 3, 4))
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]], float)
    kept = np.flatnonzero(mask)
    r, v = reward.ravel()[kept], np.append(value.ravel()[kept], 0.0)
    expected = np.zeros(12)
    for t in range(len(kept)):
        deltas = [r[k] + 0.9 * v[k + 1] - v[k] for k in range(t, len(kept))]
        expected[kept[t]] = sum((0.9 * 0.5) ** i * d for i, d in enumerate(deltas))
    a = jnp.asarray
    rows = jm.Rollouts(None, None, a(reward), None, None, a(value), a(mask))
    found, target = rollouts.advantages(rows, 0.9, 0.5)
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-12)
    np.testing.assert_allclose(target, found + value, rtol=1e-12)


def test_an_environment_that_changes_its_shapes_is_refused():
    env = countdown()
    wide = lambda task, key: (jnp.zeros((), jnp.int32), jnp.zeros(2))
    real = lambda *args: (args[1] * 1.5, *env.step(*args)[1:])
    vector = lambda *args: (*env.step(*args)[:2], jnp.zeros(1), env.step(*args)[3])
    for broken, said in (
        (env._replace(reset=wide), "reset's observation has shape and type"),
        (env._replace(step=real), "step's state has shape and type"),
        (env._replace(step=vector), "reward has shape and type"),
        (3, "env: expected"),
    ):
        with pytest.raises(ValueError, match=said):
            check_env(broken)
