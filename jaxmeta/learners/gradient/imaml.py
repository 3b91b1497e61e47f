"""Implicit MAML: the meta-gradient of a regularised solution, whatever path led to it.

Rajeswaran, Finn, Kakade, Levine. Meta-Learning with Implicit Gradients. NeurIPS 2019,
arXiv 1909.04630. Equations 3 and 6:

    w*(theta) = argmin_w L_support(w) + lambda/2 |w - theta|^2
    dw*/dtheta = (I + (1/lambda) Hessian of L_support at w*)^-1

Departures:
- Each step descends support loss and proximal term; the authors' code descends the
  support loss, then takes one step on the proximal term, and none in testing.
- The linear system is that of the equation; the authors' code solves (1 + d) I +
  Hessian / (lambda + 10), d = 1 by default.

Meta-parameters: theta, exactly the parameters of the model.
"""

from collections.abc import Callable

import optax

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import Adjoint, Implicit
from jaxmeta.learners.gradient.parts import proximal_objective
from jaxmeta.learners.objectives import predictor, query_loss
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model


@register(
    paper="Rajeswaran et al. 2019, arXiv 1909.04630",
    learns=("classification", "regression"),
    networks=lambda n: [n.predictor()],
    tiny={"inner_steps": 3, "penalty": 4.0, "inner_lr": 0.005},
)
def imaml(
    model: Model,
    *,
    inner_lr: float | optax.Schedule = 0.1,
    inner_steps: int = 16,
    penalty: float = 1.0,
    loss: losses.Loss = losses.cross_entropy,
    adjoint: Adjoint = Implicit(),
    rule: Callable[..., optax.GradientTransformation] = optax.sgd,
) -> MetaLearner:
    """iMAML: memory constant in the inner steps.

    Args:
        model: the network; its parameters are all adapted.
        inner_lr: step size of the inner descent; a number, or a schedule of the step.
        inner_steps: inner steps; the gradient is as good as they reach the minimum.
        penalty: lambda > 0, strength of the proximal term.
        loss: loss of one example, for adaptation and for the outer objective.
        adjoint: how to differentiate; the default takes 5 conjugate gradient steps, as
            the paper does. An unrolled one gives that of the path in place of the minimum.
        rule: makes the inner update rule from `inner_lr`, as `optax.sgd` does.

    Returns: a `MetaLearner`; `params` and `adapted` are trees of the model's parameters.
    Raises: ValueError for a negative `inner_lr`, `inner_steps` below 1, a penalty that
        is not positive, or `FirstOrder`.
    """
    checks.check_positive(penalty=penalty)
    objective = proximal_objective(model, loss, penalty)

    descend = inner.descent(
        "imaml",
        objective,
        steps=inner_steps,
        adjoint=adjoint,
        rule=rule,
        inner_lr=inner_lr,
        learns=("context",),
        least=1,
    )

    def adapt(params, support, key=None):
        del key  # deterministic
        return descend(params, params, support)

    predict = predictor(model)
    return MetaLearner(model.init, adapt, predict, query_loss(adapt, predict, loss))
