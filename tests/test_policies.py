"""Distributions over actions, beside scipy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxmeta import policies

random = np.random.default_rng(0)
LOGITS = random.normal(size=(2, 5))
GAUSSIAN = random.normal(size=(2, 5)), random.normal(size=(2, 5))


def test_of_numbers_the_last_axis_is_summed(x64):
    mean, log_std = GAUSSIAN
    action = random.normal(size=(2, 5))
    each = stats.norm(mean, np.exp(log_std))
    policy = jnp.asarray(mean), jnp.asarray(log_std)
    found = policies.log_prob(policy, jnp.asarray(action))
    np.testing.assert_allclose(found, each.logpdf(action).sum(axis=-1), rtol=1e-12)
    entropy = each.entropy().sum(axis=-1)
    np.testing.assert_allclose(policies.entropy(policy), entropy, rtol=1e-12)


def test_of_choices(x64):
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=-1, keepdims=True)
    found = policies.log_prob(jnp.asarray(LOGITS), jnp.array([3, 0]))
    np.testing.assert_allclose(found, np.log([p[0, 3], p[1, 0]]), rtol=1e-12)
    entropy = stats.entropy(p, axis=-1)
    np.testing.assert_allclose(
        policies.entropy(jnp.asarray(LOGITS)), entropy, rtol=1e-12
    )
    apart = stats.entropy(p[0], p[1])
    found = policies.divergence(*jnp.asarray(LOGITS))
    np.testing.assert_allclose(found, apart, rtol=1e-12)


@pytest.mark.parametrize("kind", ["choices", "numbers"])
def test_samples_follow_the_policy_and_divergence_is_their_mean(kind):
    """KL(p || q) = E_p[log p - log q]."""
    p, q = (
        jnp.asarray(LOGITS, jnp.float32)
        if kind == "choices"
        else tuple(jnp.asarray(a[i], jnp.float32) for a in GAUSSIAN)
        for i in (0, 1)
    )
    if kind == "choices":
        p, q = p[0], q[1]
    draws = jax.vmap(policies.sample, (None, 0))(
        p, jax.random.split(jax.random.key(0), 20_000)
    )
    log_ratio = jax.vmap(lambda a: policies.log_prob(p, a) - policies.log_prob(q, a))(
        draws
    )
    error = 4 * np.std(log_ratio) / 20_000**0.5
    assert abs(np.mean(log_ratio) - policies.divergence(p, q)) < error
    if kind == "choices":
        share = np.bincount(draws, minlength=5) / 20_000
        np.testing.assert_allclose(share, jax.nn.softmax(p), atol=0.015)


def test_of_nan_no_choice_is_drawn():
    """JAX would draw 0; a choice that is ruled out is no NaN."""
    rows = [[0, jnp.nan, 0], [jnp.inf, 0, 0], [-jnp.inf] * 3, [-jnp.inf, 0, -jnp.inf]]
    drawn = policies.sample(jnp.array(rows), jax.random.key(0))
    np.testing.assert_array_equal(drawn, [-1, -1, -1, 1])
