"""ALFA: numbers that our code did not produce."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_task import (
    MODEL,
    OPTIONS,
    RANDOM,
    W,
    adapted,
    close,
    gradient,
    numeric,
    query_loss,
    slope,
    start,
)

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def test_alfa():
    learner = jm.alfa(MODEL, inner_lr=0.1, **OPTIONS)
    w1, w2 = RANDOM.normal(size=(2, 2)), 0.3 * RANDOM.normal(size=(2, 2))
    b1, b2 = RANDOM.normal(size=2), np.ones(2)
    alpha0, beta0 = RANDOM.uniform(0.05, 0.2, (3, 1)), RANDOM.uniform(0.9, 1.0, (3, 1))

    def loss(w, w2):
        for j in range(3):
            g = slope(w)
            hidden = np.maximum(np.array([g.mean(), w.mean()]) @ w1 + b1, 0)
            alpha, beta = hidden @ w2 + b2
            w = beta0[j] * beta * w - alpha0[j] * alpha * g
        return query_loss(w)

    params = start(learner)
    mlp = {"w1": w1, "w2": w2, "b1": b1, "b2": b2}
    phi = params.phi._replace(mlp=mlp, alpha=alpha0, beta=beta0)
    found = gradient(learner, params._replace(phi=jax.tree.map(jnp.asarray, phi)))
    close(found.theta["kernel"], numeric(lambda w: loss(w, w2), W))
    close(found.phi.mlp["w2"], numeric(lambda w2: loss(W, w2), w2))


def test_alfa_starts_as_maml():
    alfa = jm.alfa(MODEL, inner_lr=0.1, **OPTIONS)
    maml = jm.maml(MODEL, inner_lr=0.1, **OPTIONS)
    close(
        adapted(alfa, start(alfa))["kernel"],
        adapted(maml, {"kernel": jnp.asarray(W)})["kernel"],
    )
