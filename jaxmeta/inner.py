"""The inner loop: one task, one scan."""

from typing import Any

import optax

from jaxmeta.adjoints import Adjoint, Objective
from jaxmeta.types import Batch

PyTree = Any


def descend(
    objective: Objective,
    rule: optax.GradientTransformation,
    steps: int,
    adjoint: Adjoint,
    params: PyTree,
    context: PyTree,
    batch: Batch,
) -> PyTree:
    """Adapt `params` to a batch by gradient steps, differentiably.

        w_0 = params,  w_{k+1} = w_k + rule(dL/dw (w_k, context, batch))

    Args:
        objective: L(w, context, batch) -> [], what each step descends. Everything it
            depends on is an argument: what is closed over gets no meta-gradient.
        rule: turns gradients into updates, e.g. `optax.sgd(0.4)`.
        steps: how many; 0 returns `params`.
        adjoint: how to differentiate through it, see `jaxmeta.adjoints`.
        params: w_0, a pytree of floating arrays.
        context: what is meta-learned but not adapted (a pytree, may be `()`).
        batch: the support set, the same full batch at each step.

    Returns: w_steps, a tree like `params`.
    """
    gradient = adjoint.gradient(objective)

    def step(carry):
        w, rule_state = carry
        updates, rule_state = rule.update(gradient(w, context, batch), rule_state, w)
        return optax.apply_updates(w, updates), rule_state

    if steps == 0:
        return params
    return adjoint.loop(step, (params, rule.init(params)), steps)[0]
