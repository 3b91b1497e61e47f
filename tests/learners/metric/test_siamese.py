"""Siamese: numbers that our code did not produce."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from few_points import IDENTITY, TASK, WAYS, close, loss, outputs
from scipy.special import expit

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def test_siamese_judges_pairs():
    learner = jm.siamese(IDENTITY, ways=WAYS, features=4)
    params = learner.init(jax.random.key(0))._replace(
        alpha=jnp.array([-1.0, -0.5, 0.2, -0.1]), bias=jnp.array(0.3)
    )
    x, y = map(np.asarray, TASK.support[:2])
    q, labels = map(np.asarray, TASK.query[:2])
    logits = np.abs(q[:, None] - x[None]) @ np.asarray(params.alpha) + 0.3
    best = np.stack([logits[:, y == k].max(axis=1) for k in range(WAYS)], axis=1)
    close(outputs(learner, params, TASK), best)
    same = labels[:, None] == y[None]
    each = -np.where(same, np.log(expit(logits)), np.log(expit(-logits)))
    balanced = (each[same].mean() + each[~same].mean()) / 2  # as many of each a query
    close(loss(learner, params, TASK), balanced)
