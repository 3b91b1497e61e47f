"""Body only update in the inner loop (BOIL): MAML that leaves the head alone.

Oh, Yoo, Kim, Yun. BOIL: Towards Representation Change for Few-shot Learning. ICLR 2021,
arXiv 2008.08882. Section 3, ANIL's mirror image:

    theta'_body = theta_body - alpha grad_body L_support,   theta'_head = theta_head

Meta-parameters: theta, exactly the parameters of the model, body and head.
"""

from collections.abc import Callable

import optax

from jaxmeta import inner, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.gradient.parts import check_layer
from jaxmeta.learners.objectives import predictor, query_loss, support_objective
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model


@register(
    paper="Oh et al. 2021, arXiv 2008.08882",
    learns=("classification", "regression"),
    networks=lambda n: [n.predictor()],
)
def boil(
    model: Model,
    *,
    head: str = "head",
    inner_lr: float | optax.Schedule = 0.4,
    inner_steps: int = 1,
    loss: losses.Loss = losses.cross_entropy,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = optax.sgd,
) -> MetaLearner:
    """BOIL: meta-learn body and head, adapt the body.

    Args:
        model: the network; its parameters are a dict with the layers' names as keys.
        head: name of the layer that is not adapted.
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
    whole = support_objective(model, loss)

    def objective(body, fixed_head, batch):
        return whole(body | {head: fixed_head}, (), batch)

    descend = inner.descent(
        "boil",
        objective,
        steps=inner_steps,
        adjoint=adjoint,
        rule=rule,
        inner_lr=inner_lr,
    )

    def adapt(params, support, key=None):
        del key  # deterministic
        body = {name: layer for name, layer in params.items() if name != head}
        body = descend(body, params[head], support)
        return body | {head: params[head]}

    predict = predictor(model)
    return MetaLearner(model.init, adapt, predict, query_loss(adapt, predict, loss))
