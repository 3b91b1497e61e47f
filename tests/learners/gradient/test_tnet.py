"""T-nets: numbers that our code did not produce."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_task import (
    MODEL,
    OPTIONS,
    RANDOM,
    W,
    close,
    gradient,
    numeric,
    query_loss,
    slope,
)

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def test_tnet():
    learner = jm.tnet(MODEL, inner_lr=0.1, **OPTIONS)
    t = np.eye(2) + 0.3 * RANDOM.normal(size=(2, 2))

    def loss(w, t):
        for _ in range(3):
            w = w - 0.1 * slope(w @ t) @ t.T
        return query_loss(w @ t)

    params = learner.init(jax.random.key(0))._replace(t=[jnp.asarray(t)])
    found = gradient(learner, params)
    close(found.theta["kernel"], numeric(lambda w: loss(w, t), W))
    close(found.t[0], numeric(lambda t: loss(W, t), t))
