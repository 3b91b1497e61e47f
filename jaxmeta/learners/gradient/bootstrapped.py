"""Bootstrapped meta-gradients (BMG): match what more adaptation would have reached.

Flennerhag, Schroecker, Zahavy, van Hasselt, Silver, Singh. Bootstrapped Meta-Learning.
ICLR 2022, arXiv 2109.04504. With K inner steps to theta_K, the target is L - 1 more of
them and one step on the query loss f, all constants (section 3.1):

    target = theta_{K+L-1} - alpha grad f(theta_{K+L-1})
    theta <- theta - beta grad_theta D(target, theta_K(theta))

D is the divergence of predictions on the query inputs: KL(target || theta_K) for
classes, squared error for regression.

Meta-parameters: theta, exactly the parameters of the model.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.objectives import (
    predictor,
    query_loss,
    query_metrics,
    support_objective,
)
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, Task


def _divergence(target, outputs, classify: bool):
    """KL of class probabilities, or squared error; one value an example."""
    if classify:
        p = jax.nn.softmax(target, axis=-1)
        logs = jax.nn.log_softmax(outputs, axis=-1)
        return optax.losses.kl_divergence(logs, p)
    return jnp.square(outputs - target)


@register(
    paper="Flennerhag et al. 2022, arXiv 2109.04504",
    learns=("classification", "regression"),
    networks=lambda n: [n.predictor()],
)
def bootstrapped(
    model: Model,
    *,
    inner_lr: float = 0.1,
    inner_steps: int = 1,
    target_steps: int = 2,
    loss: losses.Loss = losses.cross_entropy,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = optax.sgd,
) -> MetaLearner:
    """BMG: MAML whose outer objective is the distance to its own future.

    Args:
        model: the network; its parameters are all adapted.
        inner_lr: alpha, step size of adaptation, and of the target's last step.
        inner_steps: K, gradient steps of adaptation.
        target_steps: L, further steps of the target, the last on the query loss.
        loss: loss of one example, for adaptation and the target's last step;
            `cross_entropy` makes D the KL divergence, any other the squared error.
        adjoint: how to differentiate through the K steps.
        rule: makes the inner update rule from `inner_lr`, as `optax.sgd` does. It starts
            afresh for the target, which a rule without state does not notice.

    Returns: a `MetaLearner`; `params` and `adapted` are trees of the model's parameters.
    Raises: ValueError for `target_steps` below 1, or as `maml`.
    """
    checks.check_sizes(target_steps=target_steps)
    objective = support_objective(model, loss)
    predict = predictor(model)
    judge = query_metrics(predict, loss)
    classify = losses.outputs_of(loss, "bootstrapped") == "logits"

    descend = inner.descent(
        "bootstrapped",
        objective,
        steps=inner_steps,
        adjoint=adjoint,
        rule=rule,
        inner_lr=inner_lr,
    )
    further = replace(descend, steps=target_steps - 1)
    once = replace(descend, steps=1)

    def adapt(params, support, key=None):
        del key  # deterministic
        return descend(params, (), support)

    def distance(params, task: Task, key, step):
        del step
        adapted = adapt(params, task.support, key)
        _, metrics = judge(adapted, task)
        support, query = task
        later = jax.lax.stop_gradient(adapted)
        again = inner.at_step(support, inner_steps)  # noise of its own, if there is any
        target = jax.lax.stop_gradient(once(further(later, (), again), (), query))
        wanted, outputs = (predict(p, query.x, query.mask) for p in (target, adapted))
        apart = _divergence(wanted, outputs, classify)
        return losses.mean(apart, query.mask), metrics

    test = query_loss(adapt, predict, loss)
    return MetaLearner(model.init, adapt, predict, test, distance)
