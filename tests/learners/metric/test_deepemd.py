"""DeepEMD: numbers that our code did not produce."""

import jax
import numpy as np
import pytest
from few_points import transport

from jaxmeta.learners.metric.deepemd import similarity

pytestmark = pytest.mark.usefixtures("x64")


def test_deepemd_matches_parts_at_least_cost():
    random = np.random.default_rng(1)
    u, v = 1 + random.normal(size=(2, 4, 3))
    cosine = np.zeros((4, 4))  # of features without the mean over their channels
    for i, j in np.ndindex(4, 4):
        a, b = u[i] - u[i].mean(), v[j] - v[j].mean()
        cosine[i, j] = a @ b / np.sqrt(a @ a * (b @ b))
    masses = lambda a, b: (s := np.maximum(a @ b.mean(axis=0), 0) + 1e-3) / s.sum()
    plan = transport(1 - cosine, masses(u, v), masses(v, u))
    ours = jax.jit(lambda u, v: similarity(u, v, 2e-3, 3000))(u, v)
    np.testing.assert_allclose(ours, (cosine * plan).sum(), atol=1e-3)
