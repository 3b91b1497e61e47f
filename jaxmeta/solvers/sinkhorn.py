"""Optimal transport, for learners that match sets.

Cuturi. Sinkhorn Distances: Lightspeed Computation of Optimal Transport. NeurIPS 2013,
arXiv 1306.0895.
"""

import jax
import jax.numpy as jnp

from jaxmeta.checks import check_positive, check_sizes


def sinkhorn(
    cost: jax.Array,
    rows: jax.Array,
    columns: jax.Array,
    *,
    regularization: float = 0.05,
    iterations: int = 50,
) -> jax.Array:
    """The transport plan of least cost, smoothed by entropy (eq. 2).

        argmin_P <P, cost> - regularization H(P),  P 1 = rows,  P' 1 = columns

    Computed with logarithms, so that a small regularization underflows nowhere;
    differentiable through its iterations, the last of which makes the columns exact.

    Args:
        cost: [n, m]. rows: [n], columns: [m], masses >= 0 of equal sums; a mass of 0
            (padding) takes its row or column out.
        regularization: > 0, in units of the cost. iterations: over rows and columns.

    Returns: P [n, m].

    >>> import jax.numpy as jnp
    >>> half = jnp.array([0.5, 0.5])
    >>> sinkhorn(jnp.array([[0.0, 1.0], [1.0, 0.0]]), half, half).round(3)
    Array([[0.5, 0. ],
           [0. , 0.5]], dtype=float32)
    """
    check_positive(regularization=regularization)
    check_sizes(iterations=iterations)
    kernel = -cost / regularization
    log = lambda mass: jnp.where(mass > 0, jnp.log(jnp.where(mass > 0, mass, 1)), -1e30)
    log_rows, log_columns = log(rows), log(columns)
    there = (rows > 0)[:, None] & (columns > 0)[None, :]
    kernel = jnp.where(there, kernel, -1e30)

    def normalizer(sums, log_mass):
        return jnp.where(log_mass > -1e29, log_mass - sums, -1e30)

    def step(carry, _):
        _, g = carry
        f = normalizer(
            jax.scipy.special.logsumexp(kernel + g[None, :], axis=1), log_rows
        )
        g = normalizer(
            jax.scipy.special.logsumexp(kernel + f[:, None], axis=0), log_columns
        )
        return (f, g), None

    start = (jnp.zeros_like(cost[:, 0]), jnp.where(columns > 0, 0.0, -1e30))
    start = jax.tree.map(lambda a: a.astype(cost.dtype), start)
    (f, g), _ = jax.lax.scan(step, start, None, iterations)
    plan = jnp.exp(jnp.where(there, kernel + f[:, None] + g[None, :], -1e30))
    return jnp.where(there, plan, 0)
