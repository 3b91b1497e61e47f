"""Logistic regression by Newton's method.

Iteratively reweighted least squares in the space of the examples: Bertinetto et al. 2019,
arXiv 1805.08136, eqs. 8-10.
"""

import jax
import jax.numpy as jnp

from jaxmeta.batches import precise


def logistic(
    x: jax.Array,
    y: jax.Array,
    penalty: jax.Array | float,
    iterations: int = 10,
    counts: jax.Array | None = None,
) -> jax.Array:
    """Logistic regression without intercept, by Newton's method.

    Args:
        x: [n, features]. y: [n] in 0..1. penalty: lambda > 0, the factor of |w|^2 / 2.
        iterations: Newton steps; the smaller the penalty, the more are needed.
        counts: [n] 1 = counts, 0 = padding.

    Returns: w [features].

    >>> import jax.numpy as jnp
    >>> w = logistic(jnp.array([[1.0]]), jnp.array([1.0]), 1.0)  # 1 - sigmoid(w) = w
    >>> round(float(w[0]), 4)
    0.4011
    """
    x, y = precise(x), precise(y)
    counts = jnp.ones_like(y) if counts is None else precise(counts)
    eye = jnp.eye(len(y), dtype=x.dtype)

    def step(w, _):
        f = x @ w
        mu = jax.nn.sigmoid(f)
        # sqrt(s) on both sides of eq. 10: no division where an example is certain
        root = jnp.sqrt(jnp.maximum(mu * (1 - mu), 1e-7)) * counts
        scaled = root[:, None] * x
        z = root * f + counts * (y - mu) / jnp.where(counts > 0, root, 1)
        matrix = scaled @ scaled.T + penalty * eye
        return scaled.T @ jax.scipy.linalg.solve(matrix, z, assume_a="pos"), None

    return jax.lax.scan(step, jnp.zeros_like(x[0]), None, iterations)[0]
