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
from jaxmeta import inner
from jaxmeta.envs import Discrete, Env
from jaxmeta.learners.reinforcement import surrogates
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
    with jax.enable_x64(True):  # some are drawn when this file is read
        rollouts = jax.jit(rollouts_of)(state, action, reward, theta, mask * 1.0)
    return jax.device_get(rollouts), advantages


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

    each = jm.MixedMode(), jm.Reverse(), jm.FirstOrder()
    slopes = [jax.grad(partial(outer, adjoint=adjoint)) for adjoint in each]
    found = jax.jit(lambda theta: [slope(theta) for slope in slopes])(LOGITS)
    mixed, reverse, first = map(np.asarray, found)
    np.testing.assert_allclose(mixed, reverse, rtol=0, atol=1e-12)
    assert np.abs(first - reverse).max() > 1e-3  # there are second derivatives


def recorded(agent, theta, *episodes):
    """Batches as if the agent had played them, each after adapting to those before."""
    batches = ()
    for episode in episodes:
        w = agent.adapt(theta, batches)
        rollouts = rollouts_of(*episode[:3], w, episode.mask)
        batches += (rollouts._replace(obs=jax.nn.one_hot(episode.obs, 2)),)
    return batches


CHAIN = Env(
    *3 * (lambda *given: given,), Discrete(2), 3, 2
)  # of which episodes are made
TABLE = jm.Model(lambda key: jnp.asarray(LOGITS), lambda w, obs: obs @ w)
EPISODES = [drawn(seed)[0] for seed in (4, 5, 6)]  # of two updates, and after them


def slope_of(agent, batches):
    loss = lambda theta: agent.loss(theta, batches, 0.3)[0]
    return jax.jit(jax.value_and_grad(loss))


@pytest.mark.parametrize("make", [jm.e_maml, jm.promp], ids=["e_maml", "promp"])
def test_mixed_mode_is_reverse_mode_of_agents(make):
    """Two updates, away from where the episodes were played."""
    agent = lambda adjoint: make(TABLE, CHAIN, inner_steps=2, adjoint=adjoint)
    batches = jax.jit(lambda: recorded(agent(jm.Reverse()), LOGITS, *EPISODES))()
    (_, mixed), (_, reverse) = (
        slope_of(agent(adjoint), batches)(LOGITS + 0.1)
        for adjoint in (jm.MixedMode(), jm.Reverse())
    )
    np.testing.assert_allclose(mixed, reverse, rtol=0, atol=1e-12)


def test_promp_where_it_sampled_is_lvc():
    """Recorded ratios inside, clipped ones outside, less divergence from what acted: its
    mean over the two updates, which shows as soon as the policy has moved."""
    two = {"inner_steps": 2, "inner_lr": 0.5}
    promp, free = (
        jm.promp(TABLE, CHAIN, penalty=weight, **two) for weight in (5e-4, 0.0)
    )
    lvc = jm.maml_rl(TABLE, CHAIN, surrogate=surrogates.lvc, clip=None, **two)
    batches = jax.jit(lambda: recorded(promp, LOGITS, *EPISODES))()
    of_promp = slope_of(promp, batches)
    (_, found), (_, wanted) = (f(LOGITS) for f in (of_promp, slope_of(lvc, batches)))
    np.testing.assert_allclose(found, wanted, atol=1e-10)
    assert np.abs(wanted).max() > 0.01

    moved = LOGITS + np.array([[0.3, -0.2], [0.1, 0.4]])
    (penalised, slope), (plain, other) = (
        f(moved) for f in (of_promp, slope_of(free, batches))
    )
    away = 0.0
    for k, played in enumerate(batches[:2]):
        w = jax.jit(promp.adapt)(moved, batches[:k]) if k else moved
        new = jax.nn.log_softmax(played.obs @ w)
        ratio = np.take_along_axis(np.asarray(new), played.action[..., None], -1)[
            ..., 0
        ]
        ratio = ratio - played.log_prob
        away += np.mean((np.exp(ratio) - 1 - ratio) * played.mask) / 2
    np.testing.assert_allclose(penalised - plain, 5e-4 * away, atol=1e-12)
    assert away > 1e-3 and np.abs(slope - other).max() > 1e-6


# A bandit of two arms, two pulls of it, one step of size 1: E_D or J inside the other?

ARMS = np.array([0.3, -0.5]), np.array([0.8, 0.3])  # logits, chances of a reward


def pulls(outcomes):
    """Rollouts of pulls ((arm, reward), ...), each an episode of one step."""
    arm, reward = np.array(outcomes).reshape(-1, 2, 1).swapaxes(0, 1)
    given = np.zeros_like(arm), arm, reward * 1.0, ARMS[0][None]
    return jax.device_get(jax.jit(rollouts_of)(*given))


def chance_of(theta, rollouts):
    win = jnp.asarray(ARMS[1])[rollouts.action]
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


@pytest.fixture
def two_arms(monkeypatch):
    """The bandit as an environment, and its agents: rewards are their advantages."""
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
    agents = {
        name: make(model, env, **how)
        for name, make in (("e_maml", jm.e_maml), ("maml_rl", jm.maml_rl))
    }
    return env, agents


CREDITED = [("e_maml", 0.08991584), ("maml_rl", 0.06993019)]


@pytest.mark.parametrize(("name", "slope"), CREDITED)
def test_bandit_by_batches(name, slope, two_arms):
    """All supports, and for each all that can be pulled after it."""
    agent, theta = two_arms[1][name], jnp.asarray(ARMS[0])
    stack = lambda all_of: jax.tree.map(lambda *a: np.stack(a), *map(pulls, all_of))
    supports, queries = stack(product(OUTCOMES, repeat=2)), stack(OUTCOMES)

    def one(support, query):
        seen = lambda rollouts: rollouts._replace(obs=rollouts.obs[..., None])
        w = agent.adapt(theta, seen(support))
        query = query._replace(log_prob=log_probs(w[None], query))
        chance = chance_of(theta, support) * chance_of(w, query)
        batches = seen(support), seen(query)
        slope = jax.grad(lambda theta: -agent.loss(theta, batches)[0])(theta)
        return chance * jnp.sum(query.reward), chance * slope

    each = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(supports, queries)
    value, found = (np.sum(np.asarray(a), axis=(0, 1)) for a in each)
    np.testing.assert_allclose(value, 0.66350693, atol=1e-8)
    np.testing.assert_allclose(found, [slope, -slope], atol=1e-8)


@pytest.mark.parametrize("name", ["lvc", "dice", "loaded_dice", "importance"])
def test_bandit_by_steps(name):
    """The expected update, whose second derivative the surrogate has to get right."""
    rollouts = pulls(OUTCOMES)
    chance = jax.jit(chance_of)
    each = [chance(ARMS[0], pulls([outcome])) for outcome in OUTCOMES]
    advantages = 4 * np.array(each)[:, None] * rollouts.reward

    def after(theta):
        return arms_return(step_of_1(ALL[name], theta, rollouts, advantages))

    value, found = jax.jit(jax.value_and_grad(after))(ARMS[0])
    np.testing.assert_allclose(value, 0.66689229, atol=1e-8)
    np.testing.assert_allclose(found, [0.08973408, -0.08973408], atol=1e-8)


def test_bandit_by_sampling(two_arms):
    """The same from 200,000 tasks of the library's own trials, to 4 standard errors."""
    env, agents = two_arms
    agent, slope = agents["e_maml"], CREDITED[0][1]
    logits = jnp.float32(ARMS[0])
    trials = jax.jit(collector(agent, env, 200_000, 2))(logits, jax.random.key(0))
    slope_of = jax.grad(lambda w, *trial: -agent.loss(w, *trial)[0])
    each = np.asarray(jax.jit(jax.vmap(slope_of, (None, 0, 0)))(logits, *trials))
    after = np.asarray(trials.batches[1].reward)
    mean, error = np.mean(each, axis=0), np.std(each, axis=0) / 200_000**0.5
    assert (np.abs(mean - np.array([slope, -slope])) < 4 * error).all()
    assert error.max() < 1e-3 and abs(np.mean(after) - 0.66350693) < 4e-3
