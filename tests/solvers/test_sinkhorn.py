"""Sinkhorn: numbers that our code did not produce."""

import jax.numpy as jnp
import numpy as np
import pytest
from few_points import close, transport
from scipy.special import softmax

from jaxmeta.solvers import sinkhorn

pytestmark = pytest.mark.usefixtures("x64")


def test_sinkhorn_is_the_linear_program():
    random = np.random.default_rng(0)
    cost = random.random((4, 5))
    rows, columns = (softmax(random.normal(size=n)) for n in (4, 5))
    plan = sinkhorn(
        *map(jnp.asarray, (cost, rows, columns)), regularization=2e-3, iterations=3000
    )
    expected = transport(cost, rows, columns)
    close(plan.sum(axis=1), rows, 1e-6)
    close(plan.sum(axis=0), columns, 1e-6)
    np.testing.assert_allclose(plan, expected, atol=1e-4)
    # a mass of zero is padding, whatever its costs
    padded = sinkhorn(
        jnp.pad(jnp.asarray(cost), ((0, 1), (0, 2)), constant_values=-7.0),
        jnp.append(rows, 0.0),
        jnp.concatenate([columns, jnp.zeros(2)]),
        regularization=2e-3,
        iterations=3000,
    )
    close(padded[:4, :5], plan)
    assert float(jnp.abs(padded).sum()) == pytest.approx(1.0)
