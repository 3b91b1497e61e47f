"""Meta-Curvature: numbers that our code did not produce."""

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


def test_meta_curvature():
    learner = jm.meta_curvature(MODEL, inner_lr=0.1, **OPTIONS)
    m_in, m_out = (np.eye(n) + 0.2 * RANDOM.normal(size=(n, n)) for n in (4, 2))

    def loss(w, m_in, m_out):
        for _ in range(3):
            w = w - 0.1 * np.einsum("ij,jo,po->ip", m_in, slope(w), m_out)
        return query_loss(w)

    params = learner.init(jax.random.key(0))
    params = params._replace(phi=[[jnp.asarray(m_in), jnp.asarray(m_out)]])
    found = gradient(learner, params)
    close(found.theta["kernel"], numeric(lambda w: loss(w, m_in, m_out), W))
    close(found.phi[0][0], numeric(lambda m: loss(W, m, m_out), m_in))
    close(found.phi[0][1], numeric(lambda m: loss(W, m_in, m), m_out))


def test_meta_curvature_has_a_matrix_for_the_positions_of_a_kernel():
    model = jm.models.conv4(5, widths=4)
    shapes = jax.eval_shape(jm.meta_curvature(model).init, jax.random.key(0)).phi
    assert [(9, 9), (4, 4), (4, 4)] in [[m.shape for m in leaf] for leaf in shapes]
