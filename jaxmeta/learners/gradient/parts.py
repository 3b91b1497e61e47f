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


def log_and_sign(values: jax.Array, p: float = 10.0) -> jax.Array:
    """Sizes of all orders as two numbers each within about -1..1. [n] -> [n, 2].

        (log|v| / p, sign v) if |v| >= e^-p, else (-1, e^p v)

    Source: Andrychowicz et al. 2016, arXiv 1606.04474, appendix A.
    """
    large = jnp.abs(values) >= jnp.exp(-p)
    # the size of a small value is never used, and 1 has a derivative that is finite
    size = jnp.where(large, jnp.abs(values), 1.0)
    logs = jnp.where(large, jnp.log(size) / p, -1.0)
    signs = jnp.where(large, jnp.sign(values), jnp.exp(p) * values)
    return jnp.stack([logs, signs], axis=-1)
