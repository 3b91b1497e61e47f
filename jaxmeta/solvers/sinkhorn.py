"""Optimal transport, for learners that match sets.

Cuturi. Sinkhorn Distances: Lightspeed Computation of Optimal Transport. NeurIPS 2013,
arXiv 1306.0895. Iterations are products with a kernel into which potentials are absorbed
(Schmitzer. Stabilized Sparse Scaling Algorithms for Entropy Regularized Transport Problems.
SIAM J. Sci. Comput. 41, 2019, arXiv 1610.06519, section 3.1):

    P_ij = r_i c_j exp(f_i + g_j - cost_ij / regularization)
    K_ij = exp(f_i + g_j - cost_ij / regularization),  u = 1 / K (c v),  v = 1 / K' (r u)
    f <- f + log u,  g <- g + log v                                  (every few iterations)
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from jaxmeta.batches import for_all
from jaxmeta.checks import check_positive, check_sizes

# Iterations between two exponentials of the kernel: one of these leaves little over. No
# more iterations in all than the longest are not worth the compiling of products.
LENGTHS = range(8, 17)


def _log(mass: jax.Array) -> jax.Array:
    """Its logarithm; of 0 a number that no sum is changed by."""
    return jnp.where(mass > 0, jnp.log(jnp.where(mass > 0, mass, 1)), -1e30)


Potentials = tuple[jax.Array, jax.Array]  # f [n], g [m]


class Problem(NamedTuple):
    """What the plan is of; padding has mass 0, and 0 in the exponent."""

    exponent: jax.Array  # -cost / regularization [n, m]
    rows: jax.Array  # r [n]
    columns: jax.Array  # c [m]
    there: jax.Array  # whether both have mass [n, m]


def _kernel(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """K [n, m]; 1 at padding, whose potentials may be anything."""
    exponent = problem.exponent + f[:, None] + g[None, :]
    return jnp.exp(jnp.where(problem.there, exponent, 0))


def _in_logarithms(problem: Problem, potentials: Potentials, iterations: int):
    """f, g after iterations that under- and overflow nowhere."""
    exponent, rows, columns, _ = problem
    log_rows, log_columns = _log(rows), _log(columns)

    def step(potentials, _):
        g = potentials[1]
        f = -logsumexp(exponent + (g + log_columns)[None, :], axis=1)
        g = -logsumexp(exponent + (f + log_rows)[:, None], axis=0)
        return (f, g), None

    return jax.lax.scan(step, potentials, None, iterations)[0]


def _by_products(problem: Problem, potentials: Potentials, iterations: int):
    """The same by products, and whether it is: u and v stayed within 1 / most and most.

    Entries of K below `tiny` are lost, of a row's sum no more than most^2 tiny, which is
    tiny^{1/2}. Sums are clipped, so that what isn't used has a finite derivative.
    """
    _, rows, columns, _ = problem
    f, g = potentials
    k = _kernel(problem, f, g)
    most = float(jnp.finfo(k.dtype).tiny) ** -0.25
    dot = partial(jnp.dot, precision="highest")

    def step(sums, _):
        of_rows = jnp.clip(dot(k, columns / sums[1]), 1 / most, most)
        of_columns = jnp.clip(dot(rows / of_rows, k), 1 / most, most)
        return (of_rows, of_columns), (of_rows, of_columns)

    start = (jnp.ones_like(f), jnp.ones_like(g))
    (of_rows, of_columns), every = jax.lax.scan(step, start, None, iterations)
    every = jnp.concatenate(jax.lax.stop_gradient(every), axis=1)
    safe = jnp.all((every > 1 / most) & (every < most))
    return (f - jnp.log(of_rows), g - jnp.log(of_columns)), safe


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

    Computed by products, and with logarithms where those would underflow, so that the
    regularization may be small; differentiable through its iterations, the last of which
    makes the columns exact.

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
    rows, columns = (jnp.where(m > 0, m, 0).astype(cost.dtype) for m in (rows, columns))
    there = (rows > 0)[:, None] & (columns > 0)[None, :]
    problem = Problem(jnp.where(there, -cost / regularization, 0), rows, columns, there)
    few = iterations <= max(LENGTHS)
    length = iterations if few else min(LENGTHS, key=lambda n: (iterations - 1) % n)
    blocks, left = divmod(iterations - 1, length)

    def block(potentials, _):
        found, safe = _by_products(problem, potentials, length)
        again = jax.checkpoint(partial(_in_logarithms, iterations=length))
        right = jax.lax.cond(
            for_all(safe), lambda: found, lambda: again(problem, potentials)
        )
        return right, None

    # c v = 1 at the start
    potentials = (jnp.zeros_like(cost[:, 0]), jnp.where(columns > 0, -_log(columns), 0))
    potentials = _in_logarithms(problem, potentials, 1 + left)
    if blocks:
        potentials, _ = jax.lax.scan(block, potentials, None, blocks)
    plan = rows[:, None] * columns[None, :] * _kernel(problem, *potentials)
    return jnp.where(there, plan, 0)
