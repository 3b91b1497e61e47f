"""Surrogates as objectives of adaptation, which are differentiated twice."""

from functools import partial
from importlib import import_module
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_mdp import ALL, LOGITS, log_probs, rollouts_of

import jaxmeta as jm
from jaxmeta import inner, policies
from jaxmeta.envs import Discrete, Env
from jaxmeta.learners.reinforcement import surrogates
from jaxmeta.learners.reinforcement.credit import credit
from jaxmeta.learners.reinforcement.trials import collector

pytestmark = pytest.mark.usefixtures("x64")


def drawn(seed, steps=None):
    """Random episodes and advantages, with a policy beside the one that acts."""
    random = np.random.default_rng(seed)
    shape = (4, 3) if steps is None else (steps, 4, 3)
    state, action = random.integers(0, 2, (2, *shape))
    theta = LOGITS + 0.1 * random.normal(size=(2, 2))
    reward, advantages = random.normal(size=(2, *shape))
    mask = np.arange(3) < random.integers(1, 4, (*shape[:-1], 1))
    rollouts = rollouts_of(state, action, reward, theta, mask * 1.0)
    return rollouts, advantages


def descends(surrogate, steps, adjoint):
    """Adaptation by the library's descent, each step on episodes of its own."""

    def objective(w, context, batch):
        _, (rollouts, advantages) = batch
        return -surrogate(log_probs(w, rollouts), rollouts, advantages)

    return inner.descent("test", objective, steps=steps, adjoint=adjoint, inner_lr=0.5)


@pytest.mark.parametrize("name", ALL)
def test_mixed_mode_is_reverse_mode(name):
    support, query = drawn(2, steps=3), drawn(3)

    def outer(theta, adjoint):
        w = descends(ALL[name], 3, adjoint)(theta, (), (), xs=support)
        return surrogates.importance(log_probs(w, query[0]), *query)

    mixed, reverse = (
        jax.jit(jax.grad(partial(outer, adjoint=adjoint)))(LOGITS)
        for adjoint in (jm.MixedMode(), jm.Reverse())
    )
    first = jax.grad(partial(outer, adjoint=jm.FirstOrder()))(LOGITS)
    np.testing.assert_allclose(mixed, reverse, rtol=0, atol=1e-12)
    assert np.abs(first - reverse).max() > 1e-3  # there are second derivatives


def test_promp_where_it_sampled_is_lvc():
    """Recorded ratios inside, clipped ones outside, less divergence from what acted."""
    (support, gains), (query, later) = drawn(4), drawn(5)
    support = rollouts_of(*support[:3], LOGITS, support.mask)
    batch = jax.tree.map(lambda a: np.asarray(a)[None], (support, gains))
    adapted = descends(surrogates.lvc, 1, jm.Reverse())(LOGITS, (), (), xs=batch)
    query = rollouts_of(*query[:3], adapted, query.mask)

    def lvc(theta):
        w = descends(surrogates.lvc, 1, jm.MixedMode())(theta, (), (), xs=batch)
        return surrogates.lvc(log_probs(w, query), query, later)

    def promp(theta):
        descend = descends(surrogates.importance, 1, jm.MixedMode())
        w = descend(theta, (), (), xs=batch)
        away = policies.divergence(jnp.asarray(LOGITS), theta)
        value = surrogates.ppo_clip(log_probs(w, query), query, later, clip=0.3)
        return value - 5e-4 * jnp.mean(away)

    np.testing.assert_allclose(
        jax.grad(promp)(LOGITS), jax.grad(lvc)(LOGITS), atol=1e-10
    )


# A bandit of two arms, two pulls of it, one step of size 1: E_D or J inside the other?

ARMS = np.array([0.3, -0.5]), np.array([0.8, 0.3])  # logits, chances of a reward


def pulls(outcomes):
    """Rollouts of pulls ((arm, reward), ...), each an episode of one step."""
    arm, reward = np.array(outcomes).reshape(-1, 2, 1).swapaxes(0, 1)
    return rollouts_of(np.zeros_like(arm), arm, reward * 1.0, ARMS[0][None])


def chance_of(theta, rollouts):
    win = ARMS[1][rollouts.action]
    reward = jnp.where(rollouts.reward > 0, win, 1 - win)
    return jnp.prod(jnp.exp(log_probs(theta[None], rollouts)) * reward)


def arms_return(theta):
    return jnp.sum(jax.nn.softmax(theta) * ARMS[1])


def step_of_1(surrogate, theta, rollouts, advantages):
    def objective(w, context, batch):
        return -surrogate(log_probs(w[None], rollouts), rollouts, advantages)

    descend = inner.descent(
        "test", objective, steps=1, adjoint=jm.MixedMode(), inner_lr=1.0
    )
    return descend(theta, (), ())


OUTCOMES = list(product([0, 1], [0, 1]))  # of one pull: arm, reward


@pytest.mark.parametrize(
    ("credited", "slope"), [(True, 0.08991584), (False, 0.06993019)]
)
def test_bandit_by_batches(credited, slope):
    """All supports, and for each all that can be pulled after it."""

    def estimate(theta):
        total = 0.0
        for support in map(pulls, product(OUTCOMES, repeat=2)):
            w = step_of_1(surrogates.score, theta, support, support.reward)
            after = sum(
                jax.lax.stop_gradient(chance_of(w, query))
                * surrogates.lvc(log_probs(w[None], query), query, query.reward)
                for query in map(pulls, OUTCOMES)
            )
            if credited:
                more = credit(log_probs(theta[None], support), support, after)
                after += more - jax.lax.stop_gradient(more)
            total += jax.lax.stop_gradient(chance_of(theta, support)) * after
        return total

    value, found = jax.jit(jax.value_and_grad(estimate))(ARMS[0])
    np.testing.assert_allclose(value, 0.66350693, atol=1e-8)
    np.testing.assert_allclose(found, [slope, -slope], atol=1e-8)


@pytest.mark.parametrize("name", ["lvc", "dice", "loaded_dice", "importance"])
def test_bandit_by_steps(name):
    """The expected update, whose second derivative the surrogate has to get right."""
    rollouts = pulls(OUTCOMES)
    each = [chance_of(ARMS[0], pulls([outcome])) for outcome in OUTCOMES]
    advantages = 4 * np.array(each)[:, None] * rollouts.reward

    def after(theta):
        return arms_return(step_of_1(ALL[name], theta, rollouts, advantages))

    value, found = jax.value_and_grad(after)(ARMS[0])
    np.testing.assert_allclose(value, 0.66689229, atol=1e-8)
    np.testing.assert_allclose(found, [0.08973408, -0.08973408], atol=1e-8)


@pytest.mark.parametrize(
    ("credited", "slope"), [(True, 0.08991584), (False, 0.06993019)]
)
def test_bandit_by_sampling(credited, slope, monkeypatch):
    """The same from 200,000 tasks of the library's own trials, to 4 standard errors."""
    plain = lambda rollouts, **how: rollouts.reward
    module = import_module("jaxmeta.learners.reinforcement.maml_rl")
    monkeypatch.setattr(module, "linear_advantages", plain)
    sure = lambda key: (jnp.zeros(()), jnp.ones(1, jnp.float32))
    reset = lambda task, key: sure(key)

    def step(task, state, arm, key):
        paid = jax.random.bernoulli(key, jnp.asarray(ARMS[1])[arm])
        return *sure(key), jnp.float32(paid), jnp.array(True)

    env = Env(lambda key: jnp.zeros(()), reset, step, Discrete(2), 1, 1)
    rows = lambda logits, obs: jnp.broadcast_to(logits, (obs.shape[0], 2))
    model = jm.Model(lambda key: jnp.float32(ARMS[0]), rows)
    how = {"surrogate": surrogates.score, "inner_lr": 1.0, "clip": None}
    agent = jm.maml_rl(model, env, credit=credited, **how)
    logits = jnp.float32(ARMS[0])
    trials = jax.jit(collector(agent, env, 200_000, 2))(logits, jax.random.key(0))
    slope_of = jax.grad(lambda w, *trial: -agent.loss(w, *trial)[0])
    each = jax.jit(jax.vmap(slope_of, (None, 0, 0)))(logits, *trials)
    after = trials.batches[1].reward
    mean, error = np.mean(each, axis=0), np.std(each, axis=0) / 200_000**0.5
    assert (np.abs(mean - np.array([slope, -slope])) < 4 * error).all()
    assert error.max() < 1e-3 and abs(np.mean(after) - 0.66350693) < 4e-3
