"""RL^2: what it says of a recorded trial is what it did, and it learns to explore."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta as jm
from jaxmeta import policies
from jaxmeta.envs.baselines import random_arm
from jaxmeta.envs.env import Box
from jaxmeta.rollouts import rollout, trial

ENV = jm.envs.bandit(arms=2, pulls=10)
AGENT = jm.rl2(ENV, hidden=16)
OPTIMUM = 6.0218  # of two arms and ten pulls, by dynamic programming


def steering():
    """Numbers as actions: get to a hidden place on a line, one coordinate a step."""

    def step(task, state, action, key):
        state = state + jnp.clip(action, -1, 1)
        return state, state, -jnp.sum(jnp.abs(state - task)), jnp.zeros((), bool)

    reset = lambda task, key: (jnp.zeros(2), jnp.zeros(2))
    sample = lambda key: jax.random.normal(key, (2,))
    return jm.envs.Env(sample, reset, step, Box(2), 4, 2)


def ending(env):
    """Episodes end at once with a chance of 0.3 a step."""

    def step(task, state, action, key):
        key, key_end = jax.random.split(key)
        state, obs, reward, _ = env.step(task, state, action, key)
        return state, obs, reward, jax.random.bernoulli(key_end, 0.3)

    return env._replace(step=step, horizon=4)


ENVS = {"choices": ending(ENV), "numbers": ending(steering())}


@pytest.mark.parametrize("env", ENVS.values(), ids=ENVS)
def test_predict_is_a_scan_of_act(env):
    agent = jm.rl2(env, hidden=16)
    params = agent.init(jax.random.key(0))
    task = env.sample(jax.random.key(1))

    @jax.jit
    def both(params):
        adapted = agent.adapt(params)
        rows = trial(agent, adapted, env, task, jax.random.key(2), 3)
        return rows, agent.predict(adapted, rows)

    rows, (policy, value) = both(params)
    assert 3 < rows.mask.sum() < 12 and rows.mask[0, -1] == 0  # the first ends early
    np.testing.assert_allclose(value, rows.value, atol=1e-5)
    found = policies.log_prob(policy, rows.action)
    np.testing.assert_allclose(found, rows.log_prob, atol=1e-5)


def test_adapt_reads_the_memory_that_acting_left():
    params = AGENT.init(jax.random.key(0))
    task = ENV.sample(jax.random.key(1))
    adapted = AGENT.adapt(params)
    kept = []

    def act(memory, *seen):
        memory, *rest = AGENT.act(adapted, memory, *seen)
        jax.debug.callback(lambda h: kept.append(np.array(h)), memory, ordered=True)
        return memory, *rest

    rows = rollout(ENV, task, act, AGENT.begin(adapted), jax.random.key(2), 2)
    jax.effects_barrier()
    np.testing.assert_allclose(AGENT.adapt(params, rows).h, kept[-1], atol=1e-6)
    assert len(kept) == 20 and np.abs(kept[-1]).max() > 0.01


OUTER = jm.policy_gradient(
    AGENT, ENV, optax.adam(5e-3), tasks_per_step=64, minibatches=2, epochs=2
)


def test_it_learns_to_explore_and_exploit():
    state = jm.fit(OUTER, None, steps=120, key=jax.random.key(0), chunk=20)
    report = jm.evaluate_returns(
        AGENT, state.params, ENV, num_tasks=4000, key=jax.random.key(1)
    )
    error = report.ci95["return"] / 1.96
    assert report.mean["return"] < OPTIMUM + 3 * error
    assert report.mean["return"] > 5.6  # without learning 5.0


def test_a_run_goes_on_bit_for_bit():
    fit = lambda **how: jm.fit(OUTER, None, key=jax.random.key(0), chunk=20, **how)
    half = fit(steps=3)
    jax.tree.map(np.testing.assert_array_equal, fit(steps=6), fit(steps=6, state=half))


def test_bad_arguments_are_refused_in_words():
    outer, adam = jm.policy_gradient, optax.adam(1e-3)
    for call, said in (
        (lambda: jm.rl2(3), "env: expected"),
        (lambda: jm.rl2(ENV, hidden=0), "hidden: expected"),
        (lambda: jm.rl2(ENV, discount=1.5), "discount: expected"),
        (
            lambda: outer(AGENT, ENV, adam, tasks_per_step=10),
            "divisor of tasks_per_step=10",
        ),
        (lambda: outer(random_arm(2), ENV, adam), "no predict and loss"),
        (lambda: outer(jm.maml(jm.models.mlp()), ENV, adam), "agent: expected"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
