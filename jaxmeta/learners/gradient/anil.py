"""Almost no inner loop (ANIL): MAML that adapts only the head.

Raghu, Raghu, Bengio, Vinyals. Rapid Learning or Feature Reuse? Towards Understanding
the Effectiveness of MAML. ICLR 2020, arXiv 1909.09157. Section 4:

    theta'_i = (theta_1, ..., theta_{l-1}, theta_l - alpha grad_{theta_l} L_Ti)

Meta-parameters: theta, exactly the parameters of the model, body and head.
"""

from collections.abc import Callable

import optax

from jaxmeta import inner, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.gradient.heads import head_adapter
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
        support_objective(model, loss),
        steps=inner_steps,
        adjoint=adjoint,
        rule=rule,
        inner_lr=inner_lr,
    )
    adapt_head = head_adapter(model, head, loss, descend)

    def adapt(params, support, key=None):
        del key  # deterministic
        return adapt_head(params, support)

    predict = predictor(model)
    return MetaLearner(model.init, adapt, predict, query_loss(adapt, predict, loss))
