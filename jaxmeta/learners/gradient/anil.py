"""Almost no inner loop (ANIL): MAML that adapts only the head.

Raghu, Raghu, Bengio, Vinyals. Rapid Learning or Feature Reuse? Towards Understanding
the Effectiveness of MAML. ICLR 2020, arXiv 1909.09157. Section 4:

    theta'_i = (theta_1, ..., theta_{l-1}, theta_l - alpha grad_{theta_l} L_Ti)

Meta-parameters: theta, exactly the parameters of the model, body and head.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.core
import optax
from jax.extend.core import Literal

from jaxmeta import inner, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.batches import forward
from jaxmeta.learners.gradient.parts import check_layer
from jaxmeta.learners.objectives import predictor, query_loss, support_objective
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model


@register(
    paper="Raghu et al. 2020, arXiv 1909.09157",
    learns=("classification", "regression"),
    networks=lambda n: [n.predictor()],
)
def anil(
    model: Model,
    *,
    head: str = "head",
    inner_lr: float | optax.Schedule = 0.4,
    inner_steps: int = 1,
    loss: losses.Loss = losses.cross_entropy,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = optax.sgd,
) -> MetaLearner:
    """ANIL: meta-learn body and head, adapt the head.

    Args:
        model: the network; its parameters are a dict with the layers' names as keys.
        head: name of the layer that is adapted.
        inner_lr: alpha, step size of adaptation; a number, or a schedule of the inner
            step (0, 1, ...).
        inner_steps: gradient steps of adaptation.
        loss: loss of one example, for adaptation and for the outer objective.
        adjoint: how to differentiate through the inner loop.
        rule: makes the inner update rule from `inner_lr`, as `optax.sgd` does.

    Returns: a `MetaLearner`; `params` and `adapted` are trees of the model's parameters.
    Raises: ValueError if the model has no layer of that name, or as `maml`.
    """
    check_layer(model, head, "head")

    descend = inner.descent(
        "anil",
        support_objective(model, loss),  # `adapt` puts the head's in its place
        steps=inner_steps,
        adjoint=adjoint,
        rule=rule,
        inner_lr=inner_lr,
    )

    def adapt(params, support, key=None):
        del key  # deterministic
        body = {name: layer for name, layer in params.items() if name != head}

        def outputs(fixed, theta_l):
            body, x, mask = fixed
            return forward(model, body | {head: theta_l}, x, mask)

        fixed = (body, support.x, support.mask)
        apply_head, features = _compute_once(outputs, fixed, params[head])

        def objective(theta_l, features, batch):
            return losses.mean_loss(loss, apply_head(features, theta_l), batch)

        of_head = replace(descend, objective=objective)
        theta_l = of_head(params[head], features, support)
        return body | {head: theta_l}

    predict = predictor(model)
    return MetaLearner(model.init, adapt, predict, query_loss(adapt, predict, loss))


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
