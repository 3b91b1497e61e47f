"""PT-MAP: numbers that our code did not produce."""

import jax
import numpy as np
import pytest
from few_points import IDENTITY, TASK, WAYS, close, distances, outputs, unit

import jaxmeta as jm
from jaxmeta.learners.transductive.pt_map import power_transform

pytestmark = pytest.mark.usefixtures("x64")


def test_pt_map_balances_the_queries():
    learner = jm.pt_map(IDENTITY, classes=4, ways=WAYS, features=4, iterations=5)
    params = learner.init(jax.random.key(0))
    p = np.exp(np.asarray(outputs(learner, params, TASK)))
    close(p.sum(axis=0), [4, 4, 4], 1e-6)  # 12 queries, 3 classes: exactly, by Sinkhorn
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=0.05)
    change = jax.jit(lambda a: power_transform(a, 0.5, eps=0.0))
    f = change(np.array([[4.0, -9.0]]))
    close(f, [[2 / 13**0.5, -3 / 13**0.5]])
    # without iterations of the centres: the assignment to the support's means
    still = jm.pt_map(
        IDENTITY, classes=4, ways=WAYS, features=4, iterations=1, alpha=1e-12
    )
    change = lambda a: unit(np.sign(a) * (np.abs(a) + 1e-6) ** 0.5)
    z, q = change(np.asarray(TASK.support.x)), change(np.asarray(TASK.query.x))
    z, q = unit(z - z.mean(axis=0)), unit(q - q.mean(axis=0))
    c = np.stack([z[np.asarray(TASK.support.y) == k].mean(axis=0) for k in range(WAYS)])
    plan = np.exp(-10 * distances(q, c))
    for _ in range(20):
        plan = plan / plan.sum(axis=1, keepdims=True)
        plan = plan * 4 / plan.sum(axis=0, keepdims=True)
    close(np.exp(outputs(still, params, TASK)), plan, 1e-6)
