"""Almost no inner loop (ANIL): MAML that adapts only the head.

Raghu, Raghu, Bengio, Vinyals. Rapid Learning or Feature Reuse? Towards Understanding
the Effectiveness of MAML. ICLR 2020, arXiv 1909.09157. Section 4:

    theta'_i = (theta_1, ..., theta_{l-1}, theta_l - alpha grad_{theta_l} L_Ti)

Meta-parameters: theta, exactly the parameters of the model, body and head.
"""

from collections.abc import Callable

import jax
import optax

from jaxmeta import inner, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.common import check_descent, check_support, query_loss
from jaxmeta.types import MetaLearner, Model, blank_padding, forward


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
    check_descent(inner_lr, inner_steps)
    _check_head(model, head)

    def objective(theta_l, body, batch):
        theta = body | {head: theta_l}
        return losses.mean_loss(loss, forward(model, theta, batch.x, batch.mask), batch)

    def adapt(params, support, key=None):
        del key  # deterministic
        check_support(model, params, support)
        body = {name: layer for name, layer in params.items() if name != head}
        theta_l = inner.descend(
            objective,
            rule(inner_lr),
            inner_steps,
            adjoint,
            params[head],
            body,
            blank_padding(support),
        )
        return body | {head: theta_l}

    def predict(adapted, inputs, mask=None):
        return forward(model, adapted, inputs, mask)

    return MetaLearner(model.init, adapt, predict, query_loss(adapt, predict, loss))


def _check_head(model, head):
    layers = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    names = sorted(layers) if isinstance(layers, dict) else []
    if head not in names:
        raise ValueError(
            f"head: the model has no layer {head!r} to adapt; it has "
            f"{', '.join(map(str, names)) or 'no named layers (expected a dict)'}"
        )
