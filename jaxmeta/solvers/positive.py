"""Convex problems over a few weights that are not negative.

    min_w f(w)   subject to   w >= 0,   and on the simplex   1'w = 1

Solved by a primal-dual interior-point method (Boyd, Vandenberghe. Convex Optimization. 2004,
section 11.7). With multipliers z of w >= 0 and nu of the sum, each iteration is a Newton
step for

    f'(w) + nu 1 - z = 0,   w o z = mu 1,   1'w = 1,   mu -> 0.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

CENTRING = 0.1  # mu, as a share of what w o z is on average
NEAR = 0.99  # of the way to the bounds is the longest step


class Point(NamedTuple):
    """Weights and their multipliers."""

    w: jax.Array  # [n], > 0
    z: jax.Array  # [n], > 0
    nu: jax.Array  # []


def minimum(
    f: Callable[[jax.Array], jax.Array],
    start: jax.Array,
    *,
    on_simplex: bool = False,
    iterations: int = 25,
) -> jax.Array:
    """The weights >= 0, on the simplex if they are to add up to 1, of least f.

    Args:
        f: w [n] -> [], convex, twice differentiable, of derivatives of about 1.
        start: [n], > 0, on the simplex if the solution is.
        iterations: each brings mu down by a factor of up to 10.

    Returns: w [n]. It has no derivative worth having: what is solved for is a constant of
        whoever asks.

    >>> import jax.numpy as jnp
    >>> centre = jnp.array([0.8, -0.5])
    >>> minimum(lambda w: jnp.sum((w - centre) ** 2), jnp.ones(2)).round(3)
    Array([0.8, 0. ], dtype=float32)
    """
    gradient, hessian = jax.grad(f), jax.hessian(f)
    eps = jnp.finfo(start.dtype).eps

    def direction(at: Point) -> Point:
        w, z, nu = at
        mu = jnp.maximum(CENTRING * jnp.mean(w * z), eps / 100)
        ridge = 10 * eps * jnp.eye(len(w), dtype=w.dtype)  # f may be flat
        factor = cho_factor(hessian(w) + jnp.diag(z / w) + ridge)
        inverse = lambda r: cho_solve(factor, r)
        d_w, d_nu = inverse(mu / w - gradient(w) - nu), jnp.zeros_like(nu)
        if on_simplex:
            of_ones = inverse(jnp.ones_like(w))
            d_nu = (jnp.sum(w + d_w) - 1) / jnp.sum(of_ones)
            d_w = d_w - d_nu * of_ones
        return Point(d_w, mu / w - z - z / w * d_w, d_nu)

    def step(_, at: Point) -> Point:
        change = direction(at)
        size = jnp.minimum(_longest(at.w, change.w), _longest(at.z, change.z))
        new = jax.tree.map(lambda a, d: a + size * d, at, change)
        # at the solution, rounding may spoil a step: then stay
        fine = jnp.isfinite(sum(jnp.sum(a) for a in new))
        return jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, at)

    at = Point(start, jnp.ones_like(start), jnp.zeros((), start.dtype))
    return jax.lax.fori_loop(0, iterations, step, at).w


def _longest(value: jax.Array, change: jax.Array) -> jax.Array:
    """The step up to 1 that keeps value + step change > 0."""
    falls = change < 0
    ratio = jnp.where(falls, -value / jnp.where(falls, change, 1), 1 / NEAR)
    return jnp.minimum(1.0, NEAR * jnp.min(ratio))
