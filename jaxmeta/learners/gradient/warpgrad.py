"""WarpGrad: layers between those that adapt, learned so that plain steps go well.

Flennerhag, Rusu, Pascanu, Visin, Yin, Hadsell. Meta-Learning with Warped Gradient Descent.
ICLR 2020, arXiv 1909.00025. theta are the layers that a task adapts, phi the warp-layers
between them, which it does not; with theta_0, ..., theta_K the adaptation of a task,

    theta_{k+1} = theta_k - alpha grad_theta L_support(theta_k, phi)
    L(phi) = sum over tasks and k of
             L_query(theta_k - alpha grad_theta L_support(theta_k, phi), phi)

in which the theta_k are constants: each term goes through one step, so that the cost of a
meta-gradient does not grow with a derivative through all steps (eq. 10, algorithm 2). The
start theta_0 learns by Leap (arXiv 1812.01054), the length of the way without the loss:

    gradient of theta_0 = sum over k of (theta_k - theta_{k+1}) / |theta_k - theta_{k+1}|

Departures:
- The second loss is that of the query set, as in the paper; the authors' code draws another
  batch of the task's data.
- The terms of a task are averaged over its steps, and all updated at once; the authors'
  code takes a meta-step for each small batch of them.
- A rule with a state (momentum) starts afresh in each term; in the authors' code its state
  is kept with theta_k.

Meta-parameters: theta_0 and phi, together exactly the parameters of the model.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.gradient.parts import check_layer, with_gradient
from jaxmeta.learners.objectives import (
    predictor,
    query_loss,
    query_metrics,
    support_objective,
)
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, Task


def _every_second(model: Model) -> tuple[str, ...]:
    """Names of every second layer with a kernel, the last one (the head) left out."""
    layers = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    if not isinstance(layers, dict):
        raise ValueError(
            "model: expected parameters as a dict of layers, got "
            f"{type(layers).__name__}"
        )
    has_kernel = lambda layer: any(w.ndim >= 2 for w in jax.tree.leaves(layer))
    names = sorted(name for name, layer in layers.items() if has_kernel(layer))
    names.sort(key=lambda name: name == "head")
    return tuple(names[-2::-2])


def _leap(starts, path):
    """The gradient of the start: unit vectors of all segments of the way, added up."""
    back = jax.tree.map(jnp.subtract, starts, path)  # [steps, ...] each
    square = lambda a: jnp.sum(jnp.square(a).reshape(len(a), -1), axis=1)
    length = jnp.sqrt(sum(jax.tree.leaves(jax.tree.map(square, back))) + 1e-18)
    return jax.tree.map(lambda a: jnp.tensordot(1 / length, a, axes=1), back)


@register(
    paper="Flennerhag et al. 2020, arXiv 1909.00025",
    learns=("classification", "regression"),
    networks=lambda n: [n.predictor()],
    tiny={"start_weight": 0.1},
)
def warpgrad(
    model: Model,
    *,
    warps: tuple[str, ...] | None = None,
    inner_lr: float | optax.Schedule = 0.1,
    inner_steps: int = 5,
    start_weight: float = 1.0,
    loss: losses.Loss = losses.cross_entropy,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = optax.sgd,
) -> MetaLearner:
    """WarpGrad: meta-learn the layers that a task leaves alone, by single steps.

    Args:
        model: the network; its parameters are a dict with the layers' names as keys.
        warps: names of the warp-layers phi; None = every second layer with a kernel,
            counted from the head, which adapts.
        inner_lr: alpha, step size of adaptation; a number, or a schedule of the step.
        inner_steps: K, gradient steps of adaptation.
        start_weight: factor of Leap's gradient of theta_0.
        loss: loss of one example, for adaptation and for the outer objective.
        adjoint: how to differentiate `loss` through all steps; training does not.
        rule: makes the inner update rule from `inner_lr`, as `optax.sgd` does.

    Returns: a `MetaLearner`; `params` and `adapted` are trees of the model's parameters.
    Raises: ValueError if the model has no layer of such a name, if no layer is left to
        adapt, for a `start_weight` that is not positive, `inner_steps` below 1, or as `maml`.
    """
    checks.check_models(model=model)
    if not isinstance(warps, (tuple, list, type(None))):
        raise ValueError(
            f"warps: expected names of layers, ('dense1',), got {checks.said(warps)}"
        )
    phi_names = _every_second(model) if warps is None else tuple(warps)
    for name in phi_names:
        check_layer(model, name, "warps")
    if set(jax.eval_shape(lambda: model.init(jax.random.key(0)))) <= set(phi_names):
        raise ValueError("warps: all layers are warp-layers; expected one to adapt")
    checks.check_positive(start_weight=start_weight)
    whole = support_objective(model, loss)

    def objective(theta, phi, batch):
        return whole(theta | phi, (), batch)

    descend = inner.descent(
        "warpgrad",
        objective,
        steps=inner_steps,
        adjoint=adjoint,
        rule=rule,
        inner_lr=inner_lr,
        learns=("start", "context"),
        least=1,
    )
    one_step = replace(descend, steps=1, adjoint=MixedMode())

    def apart(params):
        """theta, phi."""
        theta = {n: layer for n, layer in params.items() if n not in phi_names}
        return theta, {n: params[n] for n in phi_names}

    def adapt(params, support, key=None):
        del key  # deterministic
        theta, phi = apart(params)
        return descend(theta, phi, support) | phi

    predict = predictor(model)
    judge = query_metrics(predict, loss)

    def warped_loss(params, task: Task, key, step):
        del key, step
        theta, phi = apart(params)
        stop = jax.lax.stop_gradient
        path = stop(descend(stop(theta), stop(phi), task.support, trajectory=True))
        starts = jax.tree.map(
            lambda a, b: jnp.concatenate([stop(a)[None], b[:-1]]), theta, path
        )

        def term(theta_k, k):
            batch, query = inner.at_step((task.support, task.query), k)  # other noise
            after = one_step(theta_k, phi, batch) | phi
            return judge(after, task._replace(query=query))

        values, metrics = jax.vmap(term)(starts, jnp.arange(inner_steps))
        nothing = jnp.zeros((), values.dtype)
        move = jax.tree.map(lambda g: start_weight * g, _leap(starts, path))
        value = jnp.mean(values) + with_gradient(nothing, theta, move)
        return value, jax.tree.map(lambda a: a[-1], metrics)

    test = query_loss(adapt, predict, loss)
    return MetaLearner(model.init, adapt, predict, test, warped_loss)
