"""CDAN: what its discriminator sees, what counts how much, what has no gradient."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy as entropy_of
from two_domains import (
    BY_SGD,
    ENCODER,
    FEATURES,
    WAYS,
    agree,
    cross_entropy,
    network,
    play,
    ramp,
    slices,
    small,
    start,
    task,
)

import jaxmeta as jm
from jaxmeta.learners.adaptation.domains import Seen

MODULE = importlib.import_module("jaxmeta.learners.adaptation.cdan")
joint, certainty, weighted = map(
    jax.jit, (MODULE.joint, MODULE.certainty, MODULE.weighted)
)

pytestmark = pytest.mark.usefixtures("x64")
D = small(WAYS * FEATURES)
RANDOM = np.random.default_rng(0)
Z, LOGITS = RANDOM.normal(size=(5, FEATURES)), RANDOM.normal(size=(5, WAYS))
SOURCE = np.array([1.0, 0, 0, 1, 0])
SEEN = Seen(Z, LOGITS, None, SOURCE, 1 - SOURCE)
SEEN = SEEN._replace(now=SEEN)


def test_the_discriminator_sees_all_products():
    found, g = joint(SEEN), softmax(LOGITS, axis=1)
    expected = [np.outer(g[i], Z[i]).ravel() for i in range(5)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_of_uniform_predictions_it_sees_the_features_repeated():
    found = joint(SEEN._replace(now=SEEN._replace(logits=np.full((5, WAYS), 0.3))))
    np.testing.assert_allclose(found, np.tile(Z / WAYS, (1, WAYS)), rtol=1e-12)


def test_the_surer_the_more_it_counts():
    expected = 1 + np.exp(-entropy_of(softmax(LOGITS, axis=1), axis=1))
    np.testing.assert_allclose(certainty(LOGITS), expected, rtol=1e-12)
    ends = certainty(np.array([[0.0, 0, 0], [100.0, 0, 0]]))
    np.testing.assert_allclose(ends, [1 + 1 / WAYS, 2], rtol=1e-12)
    counted = weighted(SEEN)
    np.testing.assert_allclose(counted.source, SOURCE * expected, rtol=1e-12)
    np.testing.assert_allclose(counted.target, (1 - SOURCE) * expected, rtol=1e-12)


@pytest.mark.parametrize("entropy", [True, False])
def test_its_steps_by_hand(entropy):
    """Loops over slices; g and the weights are numbers of the step."""
    x_s, y_s, x_t = slices(task().support)
    learner = jm.cdan(ENCODER, D, weight=0.7, entropy=entropy, **BY_SGD)
    params = start(learner)

    def e(w, numbers):
        total = 0.0
        for x, sign in ((x_s, 1), (x_t, -1)):
            z, _ = network(w["network"], x)
            g = jax.nn.softmax(network(numbers, x)[1], axis=1)
            seen = jnp.concatenate([z * g[:, c : c + 1] for c in range(WAYS)], axis=1)
            each = jax.nn.softplus(sign * D.apply(w["discriminator"], seen)[:, 0])
            weights = jnp.ones(len(x))
            if entropy:
                weights = 1 + jnp.exp(jnp.sum(g * jnp.log(g), axis=1))
            total += jnp.sum(weights * each) / jnp.sum(weights) / 2
        return total

    def own(w, step):
        l_y = cross_entropy(network(w["network"], x_s)[1], y_s)
        numbers = jax.lax.stop_gradient(w["network"])
        return l_y - 0.7 * ramp(step) * e(w, numbers)

    objectives = {"network": own, "discriminator": lambda w, step: e(w, w["network"])}
    expected = play(params, objectives)
    agree(learner.adapt(params, task().support).network, expected["network"])
