"""LaplacianShot: numbers that our code did not produce."""

import jax
import numpy as np
import pytest
from few_points import IDENTITY, TASK, WAYS, close, distances, outputs, unit
from scipy.special import softmax

import jaxmeta as jm
from jaxmeta.learners.transductive.graph import neighbours, rectified

pytestmark = pytest.mark.usefixtures("x64")


def test_laplacian_shot_is_its_algorithm():
    learner = jm.laplacian_shot(
        IDENTITY, classes=4, ways=WAYS, features=4, iterations=3, neighbours_of=2
    )
    params = learner.init(jax.random.key(0))
    z, q = unit(np.asarray(TASK.support.x)), unit(np.asarray(TASK.query.x))
    belongs = np.eye(WAYS)[np.asarray(TASK.support.y)]
    m, q, _ = jax.jit(rectified)(z, belongs, q, np.ones(len(q)), 10.0)
    m, q = unit(np.asarray(m)), unit(np.asarray(q))
    near = distances(q, q) + np.diag([np.inf] * len(q))
    w = np.zeros_like(near)
    for i, row in enumerate(near):
        w[i, np.argsort(row)[:2]] = 1
    found = jax.jit(neighbours, static_argnums=2)(distances(q, q), np.ones(len(q)), 2)
    close(found, w)
    a = distances(q, m)
    y = softmax(-a, axis=1)
    for _ in range(3):
        logits = -a + 0.7 * w @ y
        y = softmax(logits, axis=1)
    close(outputs(learner, params, TASK), logits, 1e-8)
