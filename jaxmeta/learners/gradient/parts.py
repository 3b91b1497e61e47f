"""Parts that learners of the gradient family share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, losses
from jaxmeta.inner import Objective
from jaxmeta.learners.objectives import support_objective
from jaxmeta.types import AdaptFn, Model, ObjectiveFn, PyTree, Task


def check_layer(model: Model, name: str, argument: str) -> None:
    """Raise ValueError unless the model's parameters are a dict with that layer."""
    checks.check_models(model=model)
    checks.check_names(**{argument: name})
    layers = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    names = sorted(layers) if isinstance(layers, dict) else []
    if name not in names:
        raise ValueError(
            f"{argument}: the model has no layer {name!r} to adapt; expected one of "
            f"{', '.join(map(str, names)) or 'a dict, it has no named layers'}"
        )


def proximal_objective(model: Model, loss: losses.Loss, penalty: float) -> Objective:
    """(w, theta, batch) -> mean loss + penalty / 2 |w - theta|^2."""
    fit = support_objective(model, loss)

    def objective(w, theta, batch):
        away = jax.tree.map(lambda w, t: jnp.sum(jnp.square(w - t)), w, theta)
        return fit(w, (), batch) + penalty / 2 * sum(jax.tree.leaves(away))

    return objective


def displacement(adapt: AdaptFn, judge: Callable, factor: float = 1.0) -> ObjectiveFn:
    """The objective of learners that move towards what they adapted to.

    Its value is the query loss, its derivative factor (params - adapted); `adapted` is a
    tree like `params`. Args: judge: (adapted, task) -> (query loss, metrics).
    """

    def objective(params, task: Task, key, step):
        del step
        adapted = jax.lax.stop_gradient(adapt(params, task.support, key))
        value, metrics = judge(adapted, task)
        move = jax.tree.map(lambda p, w: factor * (p - w), params, adapted)
        return with_gradient(value, params, move), metrics

    return objective


def with_gradient(value: jax.Array, params: PyTree, gradient: PyTree) -> jax.Array:
    """`value`, whose derivative in `params` is `gradient`, whatever made them."""
    value, gradient = jax.lax.stop_gradient((value, gradient))
    along = jnp.asarray(optax.tree.vdot(params, gradient))
    return value + (along - jax.lax.stop_gradient(along))  # the bracket is exactly 0
