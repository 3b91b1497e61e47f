"""Adapting the last layer alone, the features of the body computed once.

Raghu et al. 2020, arXiv 1909.09157, section 4.2.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.core
from jax.extend.core import Literal

from jaxmeta import losses
from jaxmeta.batches import forward
from jaxmeta.inner import Descent
from jaxmeta.types import Batch, Model, PyTree


def head_adapter(
    model: Model, head: str, loss: losses.Loss, descend: Descent
) -> Callable[[PyTree, Batch], PyTree]:
    """(params, support) -> params with an adapted head.

    Args: model: its parameters are a dict of layers; head: the name of the last one;
        loss; descend: how, of an objective of the whole network, in whose place the head's
        is put.
    """

    def outputs(fixed, theta_l):
        body, x, mask = fixed
        return forward(model, body | {head: theta_l}, x, mask)

    def adapt(params, support):
        body = {name: layer for name, layer in params.items() if name != head}
        fixed = (body, support.x, support.mask)
        apply_head, features = _compute_once(outputs, fixed, params[head])

        def objective(theta_l, features, batch):
            return losses.mean_loss(loss, apply_head(features, theta_l), batch)

        of_head = replace(descend, objective=objective)
        return body | {head: of_head(params[head], features, support)}

    return adapt


def _compute_once(f, fixed, varying):
    """Compute the part of f(fixed, varying) that does not depend on `varying`.

    The body's features are the same at each inner step; computing them once is what
    makes ANIL cheaper than MAML (section 4.2 of the paper), and it leaves the model one
    function: the program of f is taken apart, not its layers.

    Returns: rest and features, with rest(features, varying) = f(fixed, varying).
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
