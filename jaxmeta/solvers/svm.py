"""The multi-class support vector machine of Crammer and Singer, in the dual.

    max_alpha  -1/2 sum_k alpha_k' K alpha_k + sum_n alpha_{y_n, n}
    subject to  alpha_{k,n} <= C [k = y_n],   sum_k alpha_{k,n} = 0

Solved by an interior-point method; its derivative is implicit, from the optimality
conditions at the solution, whatever steps led there. Lee et al. 2019, arXiv 1904.03758,
eqs. 8-10.
"""

from functools import partial
from typing import cast

import jax
import jax.numpy as jnp


def _newton(inverse, r, p):
    """(d alpha, d nu) with M_k d alpha_k + d nu = r_k and sum_k d alpha_k = p.

    inverse: [ways, n, n] of each M_k; r [ways, n]; p [n]. The sum over classes couples
    the ways blocks, and is eliminated first: S d nu = sum_k M_k^-1 r_k - p.
    """
    a = jnp.einsum("kij,kj->ki", inverse, r)
    total = jnp.sum(inverse, axis=0)
    # an example all of whose classes are fixed has no d nu
    total = total + jnp.diag((jnp.diag(total) == 0).astype(total.dtype))
    nu = jnp.linalg.solve(total, jnp.sum(a, axis=0) - p)
    return a - jnp.einsum("kij,j->ki", inverse, nu), nu


def _interior_point(gram, onehot, bound, iterations):
    """Mehrotra's predictor-corrector: alpha [ways, n], slack and multiplier of it."""
    alpha, nu = jnp.zeros_like(bound), jnp.zeros_like(bound[0])
    slack, z = jnp.ones_like(bound), jnp.ones_like(bound)

    def longest(value, change):  # a step that keeps value + step * change > 0
        ratio = jnp.where(change < 0, -value / jnp.where(change < 0, change, 1), 1.0)
        return jnp.minimum(1.0, 0.99 * jnp.min(ratio))

    def step(_, carry):
        alpha, nu, slack, z = carry
        dual = alpha @ gram - onehot + nu[None, :] + z
        primal = alpha + slack - bound
        weights = jax.vmap(jnp.diag)(z / slack)
        inverse = jnp.linalg.inv(gram[None] + weights)

        def direction(target):  # slack z + changes -> target
            r = -dual - (target - slack * z + z * primal) / slack
            d_alpha, d_nu = _newton(inverse, r, -jnp.sum(alpha, axis=0))
            d_slack = -primal - d_alpha
            d_z = (target - slack * z - z * d_slack) / slack
            return d_alpha, d_nu, d_slack, d_z

        mu = jnp.mean(slack * z)
        _, _, d_slack, d_z = direction(0.0)
        size = jnp.minimum(longest(slack, d_slack), longest(z, d_z))
        centre = jnp.mean((slack + size * d_slack) * (z + size * d_z)) / mu
        changes = direction(mu * centre**3 - d_slack * d_z)
        size = jnp.minimum(longest(slack, changes[2]), longest(z, changes[3]))
        new = [a + size * d for a, d in zip(carry, changes, strict=True)]
        # At the solution, rounding may spoil a step: then stay.
        fine = jnp.isfinite(sum(jnp.sum(a) for a in new))
        return [jnp.where(fine, a, b) for a, b in zip(new, carry, strict=True)]

    alpha, _, slack, z = jax.lax.fori_loop(0, iterations, step, [alpha, nu, slack, z])
    return alpha, slack, z


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _unit_dual(gram, onehot, iterations):
    alpha, _, solved = _solve(gram, onehot, iterations)
    return alpha, solved


def _solve(gram, onehot, iterations):
    """alpha, and M^-1 of its derivative: of the exact solution if the variables at their
    bounds were found, else of the interior point, which is near it on the central path."""
    onehot = jax.lax.stop_gradient(onehot.T).astype(gram.dtype)
    padding = jnp.sum(onehot, axis=0) == 0  # bounds of 1: 0 is then within them
    bound = jnp.where(padding[None, :], 1.0, onehot).astype(gram.dtype)
    inside, slack, z = _interior_point(gram, onehot, bound, iterations)
    free = (slack > z).astype(gram.dtype)  # [ways, n] not at the bound
    exact = _restricted_inverse(gram, free)
    fixed = (1 - free) * bound
    alpha, nu = _newton(exact, onehot - fixed @ gram, -jnp.sum(fixed, axis=0))
    alpha = alpha * free + fixed
    worst = violation(gram, onehot, bound, alpha, nu, free)
    solved = worst < 1e4 * jnp.finfo(gram.dtype).eps
    smooth = jnp.linalg.inv(gram[None] + jax.vmap(jnp.diag)(z / slack))
    inverse = jnp.where(solved, exact, smooth)
    return jnp.where(solved, alpha, inside), inverse, solved


def violation(gram, onehot, bound, alpha, nu, free):
    """The largest violation of the optimality conditions by a solution on a guess of
    which variables are free: of the bounds there, of the multipliers' signs elsewhere."""
    multiplier = onehot - alpha @ gram - nu[None, :]
    worst = jnp.where(free > 0, alpha - bound, -multiplier)
    return jnp.max(worst)


def _restricted_inverse(gram, free):
    """Of the rows and columns that are free, zero elsewhere: [ways, n, n]."""
    both = free[:, :, None] * free[:, None, :]
    rest = jax.vmap(jnp.diag)(1 - free)
    return jnp.linalg.inv(gram[None] * both + rest) * both


def _forward(gram, onehot, iterations):
    alpha, inverse, solved = _solve(gram, onehot, iterations)
    return (alpha, solved), (alpha, inverse, onehot)


def _backward(iterations, residuals, v):
    """d alpha_k = -M_k^-1 dK alpha_k, their sums unchanged."""
    del iterations
    alpha, inverse, onehot = residuals
    u, _ = _newton(inverse, v[0], jnp.zeros_like(alpha[0]))
    gram = -jnp.einsum("ki,kj->ij", u, alpha)
    return (gram + gram.T) / 2, jnp.zeros_like(onehot)


_unit_dual.defvjp(_forward, _backward)


def svm_dual(
    gram: jax.Array,
    onehot: jax.Array,
    penalty: jax.Array | float,
    iterations: int = 15,
) -> tuple[jax.Array, jax.Array]:
    """The dual of Crammer and Singer's multi-class SVM without intercept (eq. 8).

    Differentiable in `gram`, implicitly. The last step solves for the variables that are
    not at their bounds exactly, so more iterations change nothing once those are found.
    That they were found is checked, by the optimality conditions.

    Args:
        gram: K [n, n], positive definite (add a little to the diagonal if need be).
        onehot: [n, ways], one-hot labels; a row of 0 (padding) gets alpha = 0.
        penalty: C > 0. iterations: of the interior-point method.

    Returns: alpha [ways, n]; whether it is the exact solution, [] bool. Where it is not,
        alpha is the interior point.
    """
    there = jnp.sum(onehot, axis=1) > 0
    # padding is like nothing but itself, so it takes no part
    apart = jnp.eye(len(gram), dtype=gram.dtype)
    # alpha = C a: with bounds of 1 the method starts near the solution for any C
    scaled = jnp.where(there[:, None] & there[None, :], penalty * gram, apart)
    a, solved = cast(tuple, _unit_dual(scaled, onehot, iterations))
    return penalty * a, solved
