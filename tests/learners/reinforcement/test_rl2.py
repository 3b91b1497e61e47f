"""RL^2: what it says of a recorded trial is what it did, and it learns to explore."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta as jm
from jaxmeta import policies
from jaxmeta.envs.baselines import random_arm
from jaxmeta.envs.env import Box
from jaxmeta.learners.reinforcement import memories
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
    """Episodes of at most 3 steps, each of which may be the last."""

    def step(task, state, action, key):
        key, key_end = jax.random.split(key)
        state, obs, reward, _ = env.step(task, state, action, key)
        return state, obs, reward, jax.random.bernoulli(key_end, 0.4)

    return env._replace(step=step, horizon=3)


def drawn(init, *given):
    """Parameters like those of `init`, drawn by numpy: JAX compiles long to draw them."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: init(key, *given), jax.random.key(0))
    draw = lambda a: (0.3 * random.normal(size=a.shape)).astype(a.dtype)
    return jax.tree.map(draw, shapes)


ENVS = {"choices": ending(ENV), "numbers": ending(steering())}


@pytest.mark.parametrize(
    ("memory", "env"),
    [("gru", "choices"), ("snail", "numbers"), ("transformer", "choices")],
)
def test_predict_is_a_scan_of_act(env, memory):
    """Episodes end early, and the second batch begins with what adapting has read."""
    env = ENVS[env]
    agent = jm.rl2(env, memory=memory, hidden=4, episodes=4)
    params = drawn(agent.init)
    task = env.sample(jax.random.key(1))

    @jax.jit
    def acted(adapted, key):
        rows = trial(agent, adapted, env, task, key, 2)
        return rows, agent.predict(adapted, rows)

    def check(adapted, seed):
        found = acted(adapted, jax.random.key(seed))
        rows, (policy, value) = jax.device_get(found)
        counts = rows.mask > 0
        assert counts.sum() > 2 and not counts[0, -1]  # the first ends early
        close = partial(np.testing.assert_allclose, atol=1e-5)
        close(value[counts], rows.value[counts])
        found = np.asarray(jax.jit(policies.log_prob)(policy, rows.action))
        close(found[counts], rows.log_prob[counts])
        return rows

    rows = check(agent.adapt(params), 2)
    check(jax.jit(agent.adapt)(params, rows), 4)


@pytest.mark.parametrize("memory", memories.MEMORIES)
def test_adapt_reads_the_memory_that_acting_left(memory):
    env = jm.envs.bandit(arms=2, pulls=3)
    agent = jm.rl2(env, memory=memory, hidden=4, episodes=2)
    params = drawn(agent.init)
    task = env.sample(jax.random.key(1))

    @jax.jit
    def both(params):
        adapted = agent.adapt(params)

        def act(memory, *seen):
            memory, action, log_prob, _ = agent.act(adapted, memory, *seen)
            return memory, action, log_prob, memory  # recorded in place of a value

        rows = rollout(env, task, act, agent.begin(adapted), jax.random.key(2), 2)
        left = jax.tree.map(lambda a: a[-1, -1], rows.value)
        return agent.adapt(params, rows).memory, left

    found, left = both(params)
    close = partial(np.testing.assert_allclose, atol=1e-5)
    jax.tree.map(close, found, left)
    assert all(np.abs(a).max() > 0.01 for a in jax.tree.leaves(left))


MEMORIES = (
    memories.gru(4),
    memories.snail(4, 6),
    memories.transformer(4, 6, heads=2, layers=2),
)
COUNTS = np.array([1.0, 1, 0, 1, 1, 0], np.float32)


@pytest.mark.parametrize("memory", MEMORIES, ids=memories.MEMORIES)
def test_a_memory_reads_what_counts_and_never_ahead(memory):
    params = drawn(memory.init, 3)
    x = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    kept, step = np.flatnonzero(COUNTS), jax.jit(memory.step)
    read = jax.jit(memory.read)
    start = memory.start(params)
    after, features = read(params, start, x, COUNTS)
    assert features.shape == (6, memory.features) and np.isfinite(features).all()
    close = partial(np.testing.assert_allclose, atol=1e-5)

    state = start  # a scan of `step` over what counts
    for i in kept:
        state, found = step(params, state, x[i])
        close(features[i], found)
    jax.tree.map(close, after, state)

    for i in range(6):  # each step tells on itself and later ones; a masked one never
        _, other = read(params, start, x + np.float32(np.eye(6)[i])[:, None], COUNTS)
        moved = np.abs(other - features).max(axis=1)[kept] > 1e-6
        np.testing.assert_array_equal(moved, (kept >= i) & (COUNTS[i] > 0))


@pytest.mark.parametrize("memory", MEMORIES[1:], ids=["snail", "transformer"])
def test_beyond_its_room_a_memory_says_nothing(memory):
    params = drawn(memory.init, 3)
    x, step = np.ones(3, np.float32), jax.jit(memory.step)
    state, said = memory.start(params), []
    for _ in range(7):
        state, features = step(params, state, x)
        said.append(bool(np.isfinite(features).all()))
    assert said == [True] * 6 + [False] and np.isnan(features).all()
    with pytest.raises(
        ValueError, match="trial of 7 steps, this memory has room for 6"
    ):
        memory.read(params, memory.start(params), np.ones((7, 3)), np.ones(7))


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


@pytest.mark.parametrize(
    "memory",
    [memories.snail(4, 4), memories.transformer(4, 4, heads=1, layers=1)],
    ids=["snail", "transformer"],
)
def test_memories_that_look_back_learn(memory):
    """One arm always pays, the other never: 3.5 of 4 is the optimum, chance 2."""
    env = jm.envs.bandit(2, 4, chances=((0, 1), (1, 0)))
    agent = jm.rl2(env, memory=memory)
    outer = jm.policy_gradient(
        agent, env, optax.adam(2e-2), tasks_per_step=64, minibatches=1
    )
    state, earned = outer.init(jax.random.key(0)), []
    for i in range(60):
        state, told = outer.step(state, None, jax.random.key(i))
        earned.append(float(told["return"]))
    assert np.mean(earned[:2]) < 2.5 and np.mean(earned[-5:]) > 3.2


def test_a_run_goes_on_bit_for_bit():
    fit = lambda **how: jm.fit(OUTER, None, key=jax.random.key(0), chunk=20, **how)
    half = fit(steps=3)
    jax.tree.map(np.testing.assert_array_equal, fit(steps=6), fit(steps=6, state=half))


def test_bad_arguments_are_refused_in_words():
    outer, adam = jm.policy_gradient, optax.adam(1e-3)
    agent = jm.rl2(ENV, memory="transformer", hidden=4, episodes=2)
    params = drawn(agent.init)
    longer = partial(
        jm.evaluate_returns, agent, params, ENV, num_tasks=2, key=jax.random.key(1)
    )
    for call, said in (
        (lambda: jm.rl2(3), "env: expected"),
        (lambda: jm.rl2(ENV, hidden=0), "hidden: expected"),
        (lambda: jm.rl2(ENV, discount=1.5), "discount: expected"),
        (lambda: jm.rl2(ENV, episodes=0), "episodes: expected"),
        (
            lambda: jm.rl2(ENV, memory="lstm"),
            "unknown memory 'lstm': expected one of gru",
        ),
        (lambda: jm.rl2(ENV, memory=memories.snail(4, 9)), "room for 9 steps"),
        (lambda: memories.transformer(6), "a width that heads divides"),
        (
            lambda: longer(episodes=3),
            "a trial of 3, .* room for 2; make the agent with",
        ),
        (lambda: longer(episodes=2, updates=1), "a trial of 4, .* room for 2"),
        (
            lambda: outer(AGENT, ENV, adam, tasks_per_step=10),
            "divisor of tasks_per_step=10",
        ),
        (lambda: outer(random_arm(2), ENV, adam), "no predict and loss"),
        (lambda: outer(jm.maml(jm.models.mlp()), ENV, adam), "agent: expected"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
