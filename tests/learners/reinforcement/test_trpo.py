"""A trust region, held to its Hessian written out and to what it promises."""

from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_maml_rl import NETWORK, bandit
from tiny_mdp import CHANCE, LOGITS, REWARD

import jaxmeta as jm
from jaxmeta.envs import Discrete, Env
from jaxmeta.learners.reinforcement.trials import collector, mean_loss


def chain():
    """The chain of `tiny_mdp`; what is hidden is which action is which."""
    sees = lambda state: jax.nn.one_hot(state, 2, dtype=jnp.float32)

    def step(swapped, state, action, key):
        known = action ^ swapped
        chance, paid = jnp.float32(CHANCE)[state, known, 1], jnp.float32(REWARD)
        up = jax.random.bernoulli(key, chance).astype(jnp.int32)
        return up, sees(up), paid[state, known], jnp.array(False)

    sample = lambda key: jax.random.bernoulli(key).astype(jnp.int32)
    reset = lambda swapped, key: (jnp.zeros((), jnp.int32), sees(0))
    return Env(sample, reset, step, Discrete(2), 3, 2)


def table(**how):
    model = jm.Model(lambda key: jnp.array(1.0) * LOGITS, lambda w, obs: obs @ w)
    return jm.maml_rl(model, chain(), clip=None, **how)


SMALL = {"tasks_per_step": 5, "episodes": 4}


def fisher(pi, j, visits):
    """J'FJ of one task: of a softmax F is diag(pi) - pi pi', J the Jacobian of adapting."""
    f = np.zeros((2, 2, 2, 2))
    for s in range(2):
        f[s, :, s] = visits[s] * (np.diag(pi[s]) - np.outer(pi[s], pi[s]))
    return j.reshape(4, 4).T @ f.reshape(4, 4) @ j.reshape(4, 4)


@pytest.mark.usefixtures("x64")
def test_the_step_is_the_solution_of_the_linear_system(monkeypatch):
    """Through an inner update; and it stays within the region."""
    module = import_module("jaxmeta.learners.reinforcement.maml_rl")
    plain = lambda rollouts, **how: rollouts.reward  # whatever they are, they are data
    monkeypatch.setattr(module, "linear_advantages", plain)
    agent = table()
    outer = jm.trpo(agent, chain(), damping=0.01, max_kl=1e-3, **SMALL)
    state, key = outer.init(jax.random.key(0)), jax.random.key(1)
    now, told = outer.step(state, None, key)

    @jax.jit
    def known(theta, new):
        trials = collector(agent, chain(), 5, 4)(theta, key)
        loss = lambda theta: mean_loss(agent)(theta, trials)[0]
        softmax = lambda theta, support: jax.nn.softmax(agent.adapt(theta, support))
        tasks = lambda f, theta: jax.vmap(f, (None, 0))(theta, trials.batches[0])
        visits = jnp.mean(trials.batches[1].obs, axis=(1, 2), dtype=float)
        policies = tasks(softmax, theta), tasks(softmax, new)
        j = tasks(jax.jacobian(agent.adapt), theta)
        return jax.grad(loss)(theta), loss(theta), loss(new), visits, *policies, j

    found = jax.tree.map(np.asarray, known(state.params, now.params))
    g, before, after, visits, pi, new, j = found
    h = np.mean([fisher(*task) for task in zip(pi, j, visits, strict=True)], axis=0)
    s = np.linalg.solve(h + 0.01 * np.eye(4), g.ravel())
    full = -np.sqrt(2e-3 / (g.ravel() @ s)) * s
    ratio = np.ravel(now.params - state.params) / full
    k = round(np.log(ratio[0]) / np.log(0.8))
    np.testing.assert_allclose(ratio, 0.8**k, rtol=1e-8)
    assert 0 <= k <= 2 and float(told["rejected"]) == 0
    apart = np.mean(np.sum(visits[..., None] * pi * np.log(pi / new), (1, 2)))
    np.testing.assert_allclose(told["divergence"], apart, rtol=1e-9)
    assert 1e-4 < apart <= 1e-3 and after < before


@pytest.mark.parametrize("why", ["rejected", "skipped"])
def test_without_a_good_step_nothing_moves(why):
    """A loss that grows along its gradient, and one that has none."""
    agent = table(inner_steps=0)
    still = jax.lax.stop_gradient

    def wrong(params, batches, others=0.0):
        value, told = agent.loss(params, batches, others)
        return (
            2 * still(value) - value if why == "rejected" else jnp.nan * value
        ), told

    outer = jm.trpo(agent._replace(loss=wrong), chain(), **SMALL)
    state = outer.init(jax.random.key(0))
    now, told = outer.step(state, None, jax.random.key(1))
    np.testing.assert_array_equal(now.params, state.params)
    assert int(now.step) == 1 and float(told["divergence"]) == 0
    assert {k: float(told[k]) for k in ("rejected", "skipped")} == {
        "rejected": float(why == "rejected"),
        "skipped": float(why == "skipped"),
    }


AGENT = jm.maml_rl(NETWORK, bandit(), inner_lr=0.1, clip=None)
OUTER = jm.trpo(
    AGENT, bandit(), tasks_per_step=20, episodes=10, max_kl=0.03, damping=0.01
)


def test_training_on_bandits_learns_to_try_and_to_keep():
    state = jm.fit(OUTER, None, steps=15, key=jax.random.key(0), chunk=5)
    report = jm.evaluate_returns(
        AGENT, state.params, bandit(), episodes=10, num_tasks=100, key=jax.random.key(2)
    )
    np.testing.assert_allclose(report.mean["return_0"], 0.5, atol=0.15)
    assert report.mean["return"] > 0.85  # without learning less than 0.7


def test_a_run_goes_on_bit_for_bit():
    fit = lambda **how: jm.fit(OUTER, None, key=jax.random.key(0), chunk=5, **how)
    half = fit(steps=3)
    jax.tree.map(np.testing.assert_array_equal, fit(steps=6), fit(steps=6, state=half))


def test_an_agent_with_a_memory():
    env = jm.envs.bandit(arms=2, pulls=5)
    agent = jm.rl2(env, hidden=8, value=0.0)
    outer = jm.trpo(agent, env, tasks_per_step=20, episodes=2)
    state = outer.init(jax.random.key(0))
    for number in range(2):
        state, told = outer.step(state, None, jax.random.key(number))
        assert float(told["rejected"]) == float(told["skipped"]) == 0
        assert 1e-3 < float(told["divergence"]) <= 0.01
    assert outer.step._cache_size() == 1


def test_bad_arguments_are_refused_in_words():
    for how, said in (
        ({"max_kl": 0}, "max_kl: expected"),
        ({"shrink": 1.0}, "shrink: expected"),
        ({"damping": -1e-5}, "damping: expected"),
        ({"cg_iterations": 0}, "cg_iterations: expected"),
        ({"backtracks": 0}, "backtracks: expected"),
    ):
        with pytest.raises(ValueError, match=said):
            jm.trpo(AGENT, bandit(), **how)
