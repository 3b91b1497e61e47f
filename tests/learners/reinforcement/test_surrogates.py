"""Surrogates, held to sums over all that can happen in a problem small enough for them."""

from functools import cache, partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_mdp import ALL, CHANCE, LOGITS, REWARD, log_probs, rollouts_of

from jaxmeta.learners.reinforcement import surrogates
from jaxmeta.rollouts import Rollouts

pytestmark = pytest.mark.usefixtures("x64")


recorded = jax.jit(rollouts_of)


def to_go(reward):
    return np.cumsum(reward[:, ::-1], axis=1)[:, ::-1]


def everything(horizon, ends_in_1=False):
    """All trajectories, and the chance of each: Rollouts [n, horizon], [n]."""
    paths = product([0, 1], repeat=2 * horizon - 1)
    paths = np.array([(0, *path) for path in paths]).reshape(-1, horizon, 2)
    state, action = paths[..., 0], paths[..., 1]
    mask = np.cumprod(state == 0, axis=1) if ends_in_1 else np.ones(state.shape)
    reward = REWARD[state, action] * mask
    rollouts = jax.device_get(recorded(state, action, reward, LOGITS, mask))
    moves = CHANCE[state[:, :-1], action[:, :-1], state[:, 1:]]
    return rollouts, np.exp(rollouts.log_prob).prod(1) * moves.prod(1)


def exact(theta, horizon, ends_in_1=False):
    """The return of a policy [], by a recursion over the states it is in."""
    pi, there, total = jax.nn.softmax(theta), jnp.array([1.0, 0.0]), 0.0
    for _ in range(horizon):
        there = there * jnp.array([1.0, 0.0]) if ends_in_1 else there
        total += jnp.sum(there[:, None] * pi * REWARD)
        there = jnp.einsum("s,sa,sat->t", there, pi, CHANCE)
    return total


def expected(surrogate, theta, rollouts, chance, advantages):
    """Of the sum over steps; a surrogate is linear in the advantages."""
    share = chance[:, None] * rollouts.reward.size
    return surrogate(log_probs(theta, rollouts), rollouts, share * advantages)


def advantages_for(name, rollouts):
    reward = np.asarray(rollouts.reward)
    return reward if name == "dice" else to_go(reward)


@pytest.mark.parametrize("ends_in_1", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_first_derivative_is_that_of_the_return(name, ends_in_1):
    """Also where episodes end early, with anything at all after their end."""
    rollouts, chance = everything(3, ends_in_1)
    advantages = np.where(rollouts.mask > 0, advantages_for(name, rollouts), 7.0)
    value = partial(expected, ALL[name])
    found = jax.jit(jax.grad(value))(LOGITS, rollouts, chance, advantages)
    np.testing.assert_allclose(found, slope_of_the_return(ends_in_1), atol=1e-12)


@cache
def slope_of_the_return(ends_in_1):
    """Of three steps, exact."""
    of = partial(exact, horizon=3, ends_in_1=ends_in_1)
    return np.asarray(jax.jit(jax.grad(of))(LOGITS))


@cache
def hessian_of_the_return(horizon):
    """[4, 4], exact."""
    found = jax.jit(jax.hessian(partial(exact, horizon=horizon)))(LOGITS)
    return np.asarray(found).reshape(4, 4)


def error_of_hessian(name, horizon, baseline=0.0):
    rollouts, chance = everything(horizon)
    advantages = advantages_for(name, rollouts) - baseline
    value = lambda theta: expected(ALL[name], theta, rollouts, chance, advantages)
    found = np.asarray(jax.jit(jax.hessian(value))(LOGITS)).reshape(4, 4)
    wanted = hessian_of_the_return(horizon)
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize(
    ("name", "errors", "within"),
    [
        ("dice", (0, 0, 0, 0), 1e-8),
        ("loaded_dice", (0, 0, 0, 0), 1e-8),
        ("lvc", (0, 0.106, 0.149, 0.204), 6e-4),
        ("importance", (0, 0.106, 0.149, 0.204), 6e-4),
        ("score", (1.74, 1.85, 2.24, 3.29), 6e-3),
    ],
)
def test_second_derivative_of_horizons_1_2_3_5(name, errors, within):
    """Relative error of the expected Hessian (Frobenius), computed by another program."""
    found = [error_of_hessian(name, horizon) for horizon in (1, 2, 3, 5)]
    np.testing.assert_allclose(found, errors, atol=within)


def test_loaded_dice_takes_any_baseline_of_the_state():
    rollouts, _ = everything(3)
    baseline = np.array([0.7, -1.3])[rollouts.obs]
    assert error_of_hessian("loaded_dice", 3, baseline) < 1e-8
    assert error_of_hessian("dice", 3, baseline) > 0.1


def test_loaded_dice_between_lvc_and_dice():
    """Decay 0 is `lvc`, decay 1 `dice`, episode by episode and not only on average."""
    rollouts, _ = everything(3)
    one = jax.tree.map(lambda a: a[5:6], rollouts)
    hessian = lambda f, advantages: jax.jit(
        jax.hessian(lambda theta: f(log_probs(theta, one), one, advantages))
    )(LOGITS)
    load = surrogates.loaded_dice
    later = to_go(one.reward)
    for decay, other in (
        (0.0, hessian(surrogates.lvc, later)),
        (1.0, hessian(surrogates.dice, one.reward)),
    ):
        found = hessian(partial(load, decay=decay), later)
        np.testing.assert_allclose(found, other, atol=1e-12)


def test_the_number_of_tasks_and_episodes_is_no_step_size():
    """One task, one mean: the same episodes twice have the same gradient."""
    rollouts, _ = everything(2)
    twice = jax.tree.map(lambda a: np.concatenate([a, a]), rollouts)

    def slopes(r):
        values = lambda theta: jnp.stack(
            [f(log_probs(theta, r), r, advantages_for(n, r)) for n, f in ALL.items()]
        )
        return jax.jit(jax.jacrev(values))(LOGITS)

    np.testing.assert_allclose(slopes(rollouts), slopes(twice), atol=1e-14)


def test_dice_over_100_recorded_steps_in_log_space():
    """The chance of these episodes is e^-900, less than the smallest float there is."""
    random = np.random.default_rng(1)
    recorded, rewards = -9 + random.normal(size=(4, 100)), random.normal(size=(4, 100))
    logs = recorded + 0.3 * random.normal(size=(4, 100))
    zeros = np.zeros((4, 100))
    rollouts = Rollouts(zeros, zeros, rewards, zeros > 0, recorded, zeros, zeros + 1)
    assert np.exp(recorded.sum(1)).max() == 0
    wide = np.cumsum(logs - recorded, axis=1, dtype=np.longdouble)
    wanted = float(np.mean(np.exp(wide) * rewards))
    dice = partial(surrogates.dice, recorded=True)
    of = jax.jit(jax.value_and_grad(dice))
    value, slope = of(logs, rollouts, rewards)
    np.testing.assert_allclose(value, wanted, rtol=1e-10)
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0
    single = jax.tree.map(jnp.float32, (logs, rollouts, rewards))
    np.testing.assert_allclose(of(*single)[0], wanted, rtol=1e-4)
