"""Meta-SGD: numbers that our code did not produce."""

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


def test_meta_sgd():
    learner = jm.meta_sgd(MODEL, **OPTIONS)
    alpha = RANDOM.uniform(0.01, 0.2, size=W.shape)

    def loss(w, alpha):
        for _ in range(3):
            w = w - alpha * slope(w)
        return query_loss(w)

    params = learner.init(jax.random.key(0))._replace(
        phi={"kernel": jnp.asarray(alpha)}
    )
    found = gradient(learner, params)
    close(found.theta["kernel"], numeric(lambda w: loss(w, alpha), W))
    close(found.phi["kernel"], numeric(lambda a: loss(W, a), alpha))


def test_meta_sgd_draws_its_step_sizes():
    learner = jm.meta_sgd(jm.models.mlp(), inner_lr=(0.005, 0.1))
    phi = learner.init(jax.random.key(0)).phi
    alpha = np.concatenate([np.ravel(a) for a in jax.tree.leaves(phi)])
    assert 0.005 <= alpha.min() < 0.006 and 0.099 < alpha.max() <= 0.1
