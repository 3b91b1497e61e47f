"""MAML for reinforcement learning, from the baseline of a task to a training run."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta as jm
from jaxmeta.envs import Box, Discrete, Env
from jaxmeta.learners.reinforcement import surrogates
from jaxmeta.learners.reinforcement.actor import actor
from jaxmeta.learners.reinforcement.baselines import features, linear_advantages
from jaxmeta.rollouts import Rollouts, practise, returns, trial

GOAL = jnp.array([0.3, 0.4])
FIVE = {"epochs": 5, "minibatches": 1}  # outer updates on the same episodes
SMALL = {"tasks_per_step": 3, "episodes": 4, "epochs": 1, "minibatches": 1}
NETWORK = jm.models.mlp(2, 2, (8,), activation=jnp.tanh)


def navigation(horizon=10):
    """Walk to a goal that is not seen: MAML's, of fewer steps."""

    def step(goal, position, action, key):
        del key
        position = position + 0.1 * jnp.clip(action, -1, 1)
        away = position - goal
        over = jnp.all(jnp.abs(away) < 0.01)
        return position, position, -jnp.sqrt(jnp.sum(away**2) + 1e-12), over

    return Env(
        lambda key: jax.random.uniform(key, 2, minval=-0.5, maxval=0.5),
        lambda goal, key: (jnp.zeros(2), jnp.zeros(2)),
        step,
        Box(2),
        horizon,
        2,
    )


def bandit():
    """One of two arms pays, always."""

    def step(arm, state, action, key):
        del key
        return state, jnp.ones(2), jnp.float32(action == arm), jnp.array(True)

    sample = lambda key: jax.random.randint(key, (), 0, 2)
    reset = lambda arm, key: (jnp.zeros(()), jnp.ones(2))
    return Env(sample, reset, step, Discrete(2), 1, 2)


def test_advantages_by_numpy():
    random = np.random.default_rng(0)
    obs, reward = random.normal(size=(3, 6, 2)), random.normal(size=(3, 6))
    mask = (np.arange(6) < np.array([6, 3, 5])[:, None]) * 1.0
    zeros = np.zeros((3, 6))
    played = Rollouts(obs, zeros, reward, zeros > 0, zeros, zeros, mask)
    x, target, values, wanted = [], np.zeros((3, 6)), np.zeros((3, 7)), zeros.copy()
    for episode in range(3):
        later = 0.0
        for t in reversed(range(int(mask[episode].sum()))):
            later = target[episode, t] = reward[episode, t] + 0.9 * later
    for t in range(6):
        s = np.full((3, 1), t / 100)
        x.append(np.hstack([obs[:, t], obs[:, t] ** 2, s, s**2, s**3, s * 0 + 1]))
    x = np.stack(x, 1)
    rows, y = x[mask > 0], target[mask > 0]
    solved = np.linalg.solve(rows.T @ rows + 1e-5 * np.eye(8), rows.T @ y)
    values[:, :6] = (x @ solved) * mask
    for episode in range(3):
        later = 0.0
        for t in reversed(range(int(mask[episode].sum()))):
            delta = reward[episode, t] + 0.9 * values[episode, t + 1]
            later = wanted[episode, t] = delta - values[episode, t] + 0.72 * later
    how = {"discount": 0.9, "trace": 0.8, "normalise": False}
    of = jax.jit(partial(linear_advantages, **how))
    with jax.enable_x64(True):
        found = of(played)
        np.testing.assert_allclose(features(jnp.asarray(obs)), x, atol=1e-12)
        np.testing.assert_allclose(found, wanted, atol=1e-8)
        scaled = jax.jit(partial(linear_advantages, discount=0.9))(played)
        scaled = np.asarray(scaled)[mask > 0]
    np.testing.assert_allclose((scaled.mean(), scaled.std()), (0, 1), atol=1e-6)
    single = jax.tree.map(np.float32, played._replace(terminated=zeros))
    np.testing.assert_allclose(of(single), wanted, atol=1e-3)


def test_episodes_are_played_again_after_each_step():
    """The policy that acted in batch k is the one after k steps on those before (trap 5)."""
    env = navigation()
    how = {"surrogate": surrogates.score, "inner_lr": lambda k: 0.5**k}
    agent = jm.maml_rl(NETWORK, env, inner_steps=2, **how)
    log_probs = actor(NETWORK, env).log_probs
    params = w = agent.init(jax.random.key(0))
    play = jax.jit(lambda params, key: practise(agent, params, env, GOAL, key, 3))
    batches = play(params, jax.random.key(1))

    @jax.jit
    def uphill(w, played):
        advantages = linear_advantages(played)
        value = lambda w: jnp.mean(log_probs(w, played) * advantages * played.mask)
        return log_probs(params, played), log_probs(w, played), jax.grad(value)(w)

    for k, played in enumerate(batches):
        first, logs, g = uphill(w, played)
        np.testing.assert_allclose(played.log_prob, logs, atol=1e-4)
        if k:
            assert np.abs(played.log_prob - first).max() > 1e-2
        move = lambda w, g, k=k: np.asarray(w) + np.float32(0.5**k) * np.asarray(g)
        w = jax.tree.map(move, w, g)


def test_training_on_bandits_learns_to_try_and_to_keep():
    """Before its update the policy pulls both arms, after it the one that paid: the same
    small step, which at first changes next to nothing, has become enough."""
    agent = jm.maml_rl(NETWORK, bandit(), inner_lr=0.1)
    outer = jm.policy_gradient(
        agent, bandit(), optax.adam(3e-2), tasks_per_step=20, episodes=10, **FIVE
    )

    env = bandit()

    def earned(params):
        report = jm.evaluate_returns(
            agent, params, env, episodes=10, num_tasks=100, key=jax.random.key(2)
        )
        return report.mean["return_0"], report.mean["return"]

    state = jm.fit(outer, None, steps=40, key=jax.random.key(0), chunk=20)
    untrained = earned(outer.init(jax.random.key(0)).params)
    trained = earned(state.params)
    assert int(state.step) == 40
    np.testing.assert_allclose((untrained[0], trained[0]), 0.5, atol=0.15)
    assert untrained[1] < 0.7 and trained[1] > 0.9


@pytest.mark.parametrize(
    "how",
    [
        {"surrogate": surrogates.loaded_dice, "clip": None},
        {"surrogate": surrogates.importance, "credit": True, "inner_steps": 2},
        {"inner_steps": 0},
    ],
)
def test_kinds_of_meta_step_walk(how):
    env = navigation(5)
    agent = jm.maml_rl(NETWORK, env, **how)
    outer = jm.policy_gradient(agent, env, optax.adam(1e-3), **SMALL)
    start = outer.init(jax.random.key(0))
    state, metrics = outer.step(start, None, jax.random.key(1))
    outer.step(state, None, jax.random.key(2))
    assert outer.step._cache_size() == 1  # nothing is compiled anew
    assert int(state.step) == 1 and float(metrics["skipped"]) == 0
    assert all(np.isfinite(float(value)) for value in metrics.values())
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.params, start.params)
    assert min(jax.tree.leaves(moved)) > 0


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"outputs \[n, 2\].*got \('n', 3\)"):
        jm.maml_rl(jm.models.mlp(2, 3), navigation())
    with pytest.raises(ValueError, match="inner_steps"):
        jm.maml_rl(NETWORK, navigation(), inner_steps=-1)
    with pytest.raises(ValueError, match="inner_lr"):
        jm.maml_rl(NETWORK, navigation(), inner_lr=-1.0)


def test_standing_still_is_what_the_distance_says():
    """Of the environment that the tests walk in: no one reaches a goal for nothing."""
    agent = jm.maml_rl(NETWORK, navigation())
    mean = jax.eval_shape(agent.init, jax.random.key(0))["mean"]
    mean = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), mean)
    still = {"mean": mean, "log_std": np.full(2, -20, np.float32)}
    play = jax.jit(lambda key: trial(agent, still, navigation(), GOAL, key, 2))
    played = play(jax.random.key(1))
    np.testing.assert_allclose(returns(played), -5, atol=1e-4)
