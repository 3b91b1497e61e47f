"""Meta-MinibatchProx: descend the Moreau envelope of the support loss.

Zhou, Yuan, Xu, Yan, Feng. Efficient Meta Learning via Minibatch Proximal Update.
NeurIPS 2019. Equation 2 and algorithm 1:

    min_theta E_tasks [ min_w L_support(w) + lambda/2 |w - theta|^2 ]

whose gradient is lambda (theta - w*): no second derivatives, and no query set.

Meta-parameters: theta, exactly the parameters of the model.
"""

from collections.abc import Callable

import optax

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import MixedMode
from jaxmeta.learners.gradient.parts import displacement, proximal_objective
from jaxmeta.learners.objectives import (
    predictor,
    query_loss,
    query_metrics,
)
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model


@register(
    paper="Zhou et al. 2019, NeurIPS",
    learns=("classification", "regression"),
    networks=lambda n: [n.predictor()],
)
def proximal(
    model: Model,
    *,
    inner_lr: float | optax.Schedule = 0.1,
    inner_steps: int = 10,
    penalty: float = 1.0,
    loss: losses.Loss = losses.cross_entropy,
    rule: Callable[..., optax.GradientTransformation] = optax.sgd,
) -> MetaLearner:
    """Meta-MinibatchProx: learn the centre of a proximal term.

    Its query loss is reported, but not descended.

    Args:
        model: the network; its parameters are all adapted.
        inner_lr: step size of the inner descent; a number, or a schedule of the step.
        inner_steps: inner steps towards w*.
        penalty: lambda > 0, strength of the proximal term.
        loss: loss of one example.
        rule: makes the inner update rule from `inner_lr`, as `optax.sgd` does.

    Returns: a `MetaLearner`; `params` and `adapted` are trees of the model's parameters.
    Raises: ValueError for a negative `inner_lr`, `inner_steps` below 1, or a penalty
        that is not positive.
    """
    checks.check_positive(penalty=penalty)
    objective = proximal_objective(model, loss, penalty)

    descend = inner.descent(
        "proximal",
        objective,
        steps=inner_steps,
        adjoint=MixedMode(),
        rule=rule,
        inner_lr=inner_lr,
        learns=(),
        least=1,
    )

    def adapt(params, support, key=None):
        del key  # deterministic
        return descend(params, params, support)

    predict = predictor(model)
    test = query_loss(adapt, predict, loss)
    towards = displacement(adapt, query_metrics(predict, loss), penalty)
    return MetaLearner(model.init, adapt, predict, test, towards)
