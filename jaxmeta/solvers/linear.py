"""Linear systems A u = v whose matrix is known by its products, for pytrees u and v."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse import linalg

PyTree = Any
Product = Callable[[PyTree], PyTree]
Solver = Literal["cg", "neumann", "identity", "dense", "gmres", "bicgstab", "normal_cg"]


def solve(
    product: Product,
    v: PyTree,
    transposed: Product,
    solver: Solver,
    *,
    iterations: int,
    scale: float,
    start: PyTree = None,
) -> PyTree:
    """u with A u = v, or what so many iterations make of it.

    Args: product: u -> A u; v; transposed: u -> A' u, of "normal_cg" alone; solver,
        iterations, scale: as in `Implicit`, but "identity", which solves nothing; start:
        where the iterations begin, None = 0.

    >>> A = jnp.array([[2.0, 1.0], [0.0, 2.0]])
    >>> how = {"iterations": 2, "scale": 0.5}
    >>> u = solve(lambda u: A @ u, jnp.ones(2), lambda u: A.T @ u, "gmres", **how)
    >>> u.round(3).tolist()
    [0.25, 0.5]
    """
    if solver == "dense":
        return _dense(product, v)
    if solver == "neumann":
        return _neumann(product, v, iterations, scale, start)
    if solver == "cg":
        return linalg.cg(product, v, start, tol=0.0, maxiter=iterations)[0]
    # below the last digit these two divide by zero
    tol = float(jnp.finfo(jnp.result_type(*jax.tree.leaves(v))).eps)
    if solver == "gmres":
        how = {"tol": tol, "restart": iterations, "maxiter": 1}
        return linalg.gmres(product, v, start, **how)[0]
    if solver == "bicgstab":
        return linalg.bicgstab(product, v, start, tol=tol, maxiter=iterations)[0]
    square = lambda u: product(transposed(u))  # u = A' y with A A' y = v
    if start is not None:  # y is not known of it, but what is left to solve for
        v = optax.tree.sub(v, product(start))
    y = linalg.cg(square, v, tol=0.0, maxiter=iterations)[0]
    return optax.tree.add(transposed(y), start) if start is not None else transposed(y)


def residual(product: Product, u: PyTree, v: PyTree) -> jax.Array:
    """|A u - v| / |v| []; 0 where both are 0."""
    left = optax.tree.norm(optax.tree.sub(product(u), v))
    tiny = jnp.finfo(left.dtype).tiny
    return left / jnp.maximum(optax.tree.norm(v), tiny)


def _dense(product, v):
    flat, unravel = ravel_pytree(v)
    column = lambda u: ravel_pytree(product(unravel(u)))[0]
    columns = jax.vmap(column)(jnp.eye(flat.size, dtype=flat.dtype))
    return unravel(jnp.linalg.solve(columns.T, flat))


def _neumann(product, v, iterations, scale, start):
    """sum_i scale (I - scale A)^i v; from u_0 on, u <- u - scale (A u - v)."""
    total = jax.tree.map(jnp.zeros_like, v)
    p = v if start is None else optax.tree.sub(v, product(start))

    def term(_, carry):  # p_{i+1} = (I - scale A) p_i
        p, total = carry
        total = jax.tree.map(jnp.add, total, p)
        return jax.tree.map(lambda p, a: p - scale * a, p, product(p)), total

    total = jax.lax.fori_loop(0, iterations, term, (p, total))[1]
    total = jax.tree.map(lambda t: scale * t, total)
    return total if start is None else optax.tree.add(start, total)
