"""Layers that are the fixed point of a map: deep equilibrium models."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks
from jaxmeta.adjoints import Implicit
from jaxmeta.inner import Adjoint, FixedPoint, descent
from jaxmeta.types import PyTree


def fixed_point(
    f: Callable[[PyTree, PyTree, PyTree], PyTree],
    *,
    inner_steps: int = 50,
    inner_lr: float | optax.Schedule = 1.0,
    rule: Callable[..., optax.GradientTransformation] = optax.sgd,
    adjoint: Adjoint = Implicit("gmres", iterations=20),
) -> Callable[[PyTree, PyTree, PyTree], tuple[PyTree, jax.Array]]:
    """A layer z = f(z, phi, x), found by iteration, with the derivative of the solution.

        dz/dphi = (I - df/dz)^-1 df/dphi

    Args:
        f: (z, phi, x) -> a tree like z; a contraction, if the iteration is to end.
        inner_steps: iterations z <- z + rule(z - f(z)).
        inner_lr: what the rule is made from; with 1 and `optax.sgd`, z <- f(z), a lower
            rate averages z and f(z). rule: makes the rule from it.
        adjoint: how to differentiate; `Implicit` with any solver but "cg", since the
            Jacobian is not symmetric, or an unrolled one.

    Returns: (z_0, phi, x) -> (z, residual), z like z_0, with derivatives in phi and x;
        residual [] = |z - f(z)| / |z|: how far the iteration came. A derivative by
        `Implicit` is as good as that is small.
    Raises: ValueError for wrong arguments, or for `Implicit("cg")`.
    Source: Bai, Kolter, Koltun 2019, Deep Equilibrium Models, arXiv 1909.01377, theorem 1;
        Fung et al. 2021, arXiv 2103.12803 (`Implicit("identity")`).

    >>> import jax, jax.numpy as jnp, jaxmeta as jm
    >>> layer = jm.fixed_point(lambda z, phi, x: jnp.tanh(phi * z + x))
    >>> z, residual = layer(jnp.zeros(3), 0.5, jnp.ones(3))
    >>> bool(residual < 1e-6), bool(jnp.allclose(z, jnp.tanh(0.5 * z + 1)))
    (True, True)
    """
    checks.check_functions(f=f)
    equation = FixedPoint(f)
    how = {"steps": inner_steps, "rule": rule, "inner_lr": inner_lr, "least": 1}
    learns = ("context",)
    iterate = descent("fixed_point", equation, adjoint=adjoint, learns=learns, **how)

    def solve(start, phi, x):
        z = iterate(start, phi, x)
        at = jax.lax.stop_gradient((z, phi, x))
        size = jnp.maximum(optax.tree.norm(at[0]), jnp.finfo(float).tiny)
        return z, optax.tree.norm(equation.gradient(*at)) / size

    return solve
