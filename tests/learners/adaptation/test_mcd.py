"""MCD: the discrepancy, and its steps."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from two_domains import (
    BY_SGD,
    ENCODER,
    agree,
    cross_entropy,
    play,
    slices,
    start,
    task,
)

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")
MODULE = importlib.import_module("jaxmeta.learners.adaptation.mcd")


def test_the_discrepancy_is_the_mean_difference_of_probabilities():
    one, two = np.random.default_rng(0).normal(size=(2, 5, 3))
    expected = np.abs(softmax(one, axis=1) - softmax(two, axis=1)).mean(axis=1)
    np.testing.assert_allclose(MODULE.d(one, two), expected, rtol=1e-12)
    sure = np.array([[100.0, 0, 0]]), np.array([[0.0, 100, 0]])
    np.testing.assert_allclose(MODULE.d(*sure), [2 / 3], rtol=1e-12)
    assert (MODULE.d(one, one) == 0).all() and (MODULE.d(one, one + 3) < 1e-15).all()


def test_its_steps_by_hand():
    """The heads against what the features want, of the target alone."""
    x_s, y_s, x_t = slices(task().support)
    learner = jm.mcd(ENCODER, weight=0.7, **BY_SGD)
    params = start(learner)

    def said(w, x):
        z = ENCODER.apply(w["encoder"], x)
        return [z @ w["heads"].w[i] + w["heads"].b[i][None] for i in range(2)]

    def parts(w):
        l_s = sum(cross_entropy(logits, y_s) for logits in said(w, x_s))
        p_1, p_2 = (jax.nn.softmax(logits, axis=1) for logits in said(w, x_t))
        return l_s, 0.7 * jnp.mean(jnp.abs(p_1 - p_2))

    objectives = {
        "encoder": lambda w, step: parts(w)[0] + parts(w)[1],
        "heads": lambda w, step: parts(w)[0] - parts(w)[1],
    }
    expected = play(params, objectives)
    adapted = learner.adapt(params, task().support)
    agree(adapted.network.encoder, expected["encoder"])
    agree(adapted.network.w, expected["heads"].w.mean(axis=0))
    x = task().query.x
    one, two = said(expected, x)
    np.testing.assert_allclose(learner.predict(adapted, x), (one + two) / 2, rtol=1e-9)
