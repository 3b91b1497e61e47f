"""Derivatives of update rules that stay finite where an inner gradient is zero.

Adam divides by sqrt(g^2) and clipping by |g|: smooth enough to descend with, but the
derivative of a square root at 0 is infinite, and infinity times the zero that comes to it
is NaN. With unused units (relu) such zeros are the rule. The remedy is what a person
would write by hand: a singular operation whose derivative is not finite passes none on.
Values are untouched, and so are all derivatives that are finite.
"""

from collections.abc import Callable

import jax
import jax.core
import jax.numpy as jnp
from jax.extend.core import Literal

SINGULAR = {"sqrt", "rsqrt", "cbrt", "log", "div", "pow", "integer_pow"}
CALLS = {
    "jit",
    "pjit",
    "closed_call",
}  # programs within a program, run as if written out


def tamed(f: Callable) -> Callable:
    """f, with derivatives of 0 in place of infinite ones in its elementary operations.

    The program of f is taken apart; loops and branches inside it are left as they are.
    First derivatives only: a second one at such a point may be NaN again.

    >>> import jax, jax.numpy as jnp
    >>> norm = lambda g: jnp.sqrt(jnp.sum(jnp.square(g)))
    >>> jax.grad(norm)(jnp.zeros(2)).tolist()
    [nan, nan]
    >>> jax.grad(tamed(norm))(jnp.zeros(2)).tolist()
    [0.0, 0.0]
    """

    def call(*args, **kwargs):
        leaves, tree = jax.tree.flatten((args, kwargs))

        def flat(*leaves):
            args, kwargs = jax.tree.unflatten(tree, leaves)
            return f(*args, **kwargs)

        program, shape = jax.make_jaxpr(flat, return_shape=True)(*leaves)
        if not _is_singular(program.jaxpr):
            return f(*args, **kwargs)
        out = _evaluate(program.jaxpr, program.consts, leaves)
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return call


def _is_singular(jaxpr) -> bool:
    inside = [e.params["jaxpr"].jaxpr for e in jaxpr.eqns if e.primitive.name in CALLS]
    own = any(e.primitive.name in SINGULAR for e in jaxpr.eqns)
    return own or any(map(_is_singular, inside))


def _evaluate(jaxpr, consts, args):
    """The outputs of a program, singular operations tamed."""
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    read = lambda v: v.val if isinstance(v, Literal) else known[v]
    for equation in jaxpr.eqns:
        values, name = [read(v) for v in equation.invars], equation.primitive.name
        if name in SINGULAR:
            bind = lambda *xs, e=equation: e.primitive.bind(*xs, **e.params)
            found = [_tamed_operation(bind)(*map(jnp.asarray, values))]
        elif name in CALLS:
            closed = equation.params["jaxpr"]
            found = _evaluate(closed.jaxpr, closed.consts, values)
        else:
            inputs = [v for v in equation.invars if not isinstance(v, Literal)]
            inputs = list(dict.fromkeys(inputs))
            one = jaxpr.replace(
                constvars=[], invars=inputs, outvars=equation.outvars, eqns=[equation]
            )
            found = jax.core.eval_jaxpr(one, [], *map(read, inputs))
        known.update(zip(equation.outvars, found, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _tamed_operation(bind):
    """An elementwise operation whose derivatives are 0 where they are not finite."""
    operation = jax.custom_jvp(bind)

    @operation.defjvp
    def _(values, tangents):
        total = jnp.zeros((), jax.eval_shape(bind, *values).dtype)
        for i, (x, t) in enumerate(zip(values, tangents, strict=True)):
            if not jnp.issubdtype(x.dtype, jnp.inexact):
                continue
            along = lambda x, i=i: bind(*values[:i], x, *values[i + 1 :])
            slope = jax.jvp(along, (x,), (jnp.ones_like(x),))[1]
            total = jnp.where(jnp.isfinite(slope), slope, 0) * t + total
        return operation(*values), total

    return operation
