"""BD-CSPN: numbers that our code did not produce."""

import jax
import numpy as np
import pytest
from few_points import TASK, WAYS, close, means, unit
from scipy.special import softmax

from jaxmeta.learners.transductive.graph import rectified

pytestmark = pytest.mark.usefixtures("x64")


def test_bd_cspn_rectifies_prototypes():
    z, q = np.asarray(TASK.support.x), np.asarray(TASK.query.x)
    y = np.asarray(TASK.support.y)
    shifted = q + z.mean(axis=0) - q.mean(axis=0)  # eq. 4
    p = means(TASK)
    pseudo = (unit(shifted) @ unit(p).T).argmax(axis=1)
    expected = []
    for k in range(WAYS):
        x = np.concatenate([z[y == k], shifted[pseudo == k]])
        weights = softmax(10 * unit(x) @ unit(p[k]))
        expected.append(weights @ x)
    found = jax.jit(rectified)(z, np.eye(WAYS)[y], q, np.ones(len(q)), 10.0)
    close(found[0], expected, 1e-9)
    close(found[1], shifted)
