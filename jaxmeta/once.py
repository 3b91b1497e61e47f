"""What a loop computes at each step and could compute once.

The features of a body that is fixed are the same at each step that adapts a head:
computing them once is what makes ANIL cheaper than MAML (Raghu et al. 2020, arXiv
1909.09157, section 4.2), and a linear probe cheaper than training.
"""

from collections.abc import Callable

import jax
import jax.core
from jax.extend.core import Literal

from jaxmeta.types import PyTree


def compute_once(
    f: Callable, fixed: PyTree, varying: PyTree
) -> tuple[Callable, list[jax.Array]]:
    """Compute the part of f(fixed, varying) that does not depend on `varying`.

    It leaves a model one function: the program of f is taken apart, not its layers.

    Returns: rest and features, with rest(features, varying) = f(fixed, varying).

    >>> import jax.numpy as jnp
    >>> rest, features = compute_once(lambda x, w: w * jnp.tanh(x), jnp.ones(2), 3.0)
    >>> len(features), float(rest(features, 2.0)[0]) == 2 * float(jnp.tanh(1.0))
    (1, True)
    """
    program, shape = jax.make_jaxpr(f, return_shape=True)(fixed, varying)
    jaxpr, inputs = program.jaxpr, jax.tree.leaves(fixed)
    known = {*jaxpr.constvars, *jaxpr.invars[: len(inputs)]}
    first, second = [], []
    for equation in jaxpr.eqns:
        variables = [v for v in equation.invars if not isinstance(v, Literal)]
        if known.issuperset(variables):
            first.append(equation)
            known.update(equation.outvars)
        else:
            second.append(equation)
    used = [*(v for e in second for v in e.invars), *jaxpr.outvars]
    between = list(dict.fromkeys(v for v in used if not isinstance(v, Literal)))
    between = [v for v in between if v in known]

    def part(invars, outvars, eqns):
        sliced = jaxpr.replace(constvars=[], invars=invars, outvars=outvars, eqns=eqns)
        return lambda *values: jax.core.eval_jaxpr(sliced, (), *values)

    given = [*jaxpr.constvars, *jaxpr.invars[: len(inputs)]]
    features = part(given, between, first)(*program.consts, *inputs)
    finish = part([*between, *jaxpr.invars[len(inputs) :]], jaxpr.outvars, second)

    def rest(features, varying):
        leaves = finish(*features, *jax.tree.leaves(varying))
        return jax.tree.unflatten(jax.tree.structure(shape), leaves)

    return rest, features
