"""Soft k-means: numbers that our code did not produce."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from few_points import IDENTITY, close, distances, start
from scipy.special import expit, softmax

import jaxmeta as jm
from jaxmeta.learners.metric.soft_kmeans import _statistics

pytestmark = pytest.mark.usefixtures("x64")


def test_soft_kmeans_step_by_hand():
    """Prototypes at 0 and 4; an unlabelled example at 1 belongs e^-1 : e^-9 to them."""
    x = np.array([[0.0], [4.0], [1.0]])
    support = jm.Batch(x, np.array([0, 1, -1]))
    learner = jm.soft_kmeans(IDENTITY, ways=2)
    adapted = jax.jit(learner.adapt)(learner.init(jax.random.key(0)), support)
    z = np.exp(-1) / (np.exp(-1) + np.exp(-9))  # 0.99966
    close(adapted.p, [[z / (1 + z)], [(4 + 1 - z) / (2 - z)]])
    assert z == pytest.approx(0.99966, abs=1e-5)

    # a cluster at the origin, of length r = 2: logit -1 / 4 - log 2 for the example
    learner = jm.soft_kmeans(IDENTITY, ways=2, variant="cluster")
    params = learner.init(jax.random.key(0))._replace(log_r=jnp.asarray(np.log(2.0)))
    weights = softmax([-1.0, -9.0, -1 / 4 - np.log(2)])[:2]
    expected = [[weights[0] / (1 + weights[0])], [(4 + weights[1]) / (1 + weights[1])]]
    close(jax.jit(learner.adapt)(params, support).p, expected)


def test_masked_soft_kmeans_leaves_the_far_ones_out():
    random = np.random.default_rng(0)
    near, far = 0.1 * random.normal(size=(4, 1)), np.array([[30.0], [-25.0]])
    x = np.concatenate([[[0.0]], [[2.0]], near, far])
    support = jm.Batch(x, np.array([0, 1] + [-1] * 6))
    learner = jm.soft_kmeans(IDENTITY, ways=2, variant="masked")
    params = start(learner)
    # beta = gamma = softplus(b), whatever the statistics
    head = {"kernel": np.zeros((20, 2)), "bias": np.array([0.0, 5.0])}
    params = params._replace(network=params.network | {"head": head})
    c = jax.jit(learner.adapt)(params, support).p

    u = x[2:]
    d = distances(u, [[0.0], [2.0]])
    z = softmax(-d, axis=1)
    beta, gamma = np.log(2), np.log1p(np.exp(5.0))
    z = z * expit(-gamma * (d / d.mean(axis=0) - beta))  # eqs. 7, 10
    expected = (z.T @ u + [[0.0], [2.0]]) / (1 + z.sum(axis=0))[:, None]
    close(c, expected)
    said = np.asarray(jax.jit(_statistics)(d, np.ones(6)))
    apart = d - d.mean(axis=0)
    close(said[:, 2], d.var(axis=0))
    close(said[:, 3], ((apart / np.sqrt(d.var(axis=0) + 1e-6)) ** 3).mean(axis=0))
