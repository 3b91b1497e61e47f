"""MAML++: what makes MAML train stably.

Antoniou, Edwards, Storkey. How to Train Your MAML. ICLR 2019, arXiv 1810.09502. Section 4:

    L(theta) = sum_i v_i L_query(theta_i)                 multi-step loss, v annealed
    theta_{i+1} = theta_i - alpha_i o grad L_support(theta_i)   a rate for each layer, step
    batch norm with a scale and an offset for each step, not adapted (BNWB)
    inner gradients as constants in the first meta-steps (derivative-order annealing)

The fifth part, cosine annealing of the outer rate, is the outer optimiser's:
`optax.adam(optax.cosine_decay_schedule(1e-3, steps, alpha=0.01))`.

Departures:
- Batch norm uses the statistics of the batch at hand, as the authors' code does at each
  step; the paper has running statistics of each step (BNRS).
- v is annealed at each meta-step; the authors' code does so at each epoch.
- No meta-step is first-order by default, as in the authors' settings; the paper's first
  50 epochs are.

Meta-parameters: theta_0, the norms of each step, the rates of each layer and step.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import Adjoint, FirstOrder, MixedMode
from jaxmeta.learners.objectives import (
    predictor,
    query_loss,
    query_metrics,
    support_objective,
)
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, PyTree, Task


class MAMLPlusPlus(NamedTuple):
    """Meta-parameters of MAML++."""

    theta: PyTree  # the model's layers that are adapted
    norms: PyTree  # its norm layers, each array with a leading [steps] axis
    alpha: PyTree  # [steps] for each leaf of theta


def _rule(alpha) -> optax.GradientTransformation:
    def update(updates, state, params=None):
        del params
        return jax.tree.map(lambda a, g: -a[state] * g, alpha, updates), state + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)


def _check_steps(params, inner_steps) -> None:
    """Raise ValueError unless each step has a rate and norms of its own."""
    for leaf in jax.tree.leaves((params.alpha, params.norms)):
        if leaf.shape[0] != inner_steps:
            raise ValueError(
                f"inner_steps: these parameters have rates and norms of {leaf.shape[0]} "
                f"inner steps, this learner takes {inner_steps}; expected as many"
            )


def _weights(progress, steps: int):
    """v [steps] at progress 0..1 of the annealing: from equal to 1 on the last."""
    equal = 1 / steps
    others = jnp.maximum(equal * (1 - progress), 0.03 * equal)
    others = jnp.where(progress < 1, others, 0)
    return jnp.full(steps, others).at[-1].set(1 - (steps - 1) * others)


@register(
    paper="Antoniou et al. 2019, arXiv 1810.09502",
    learns=("classification", "regression"),
    networks=lambda n: [n.predictor()],
)
def maml_plus_plus(
    model: Model,
    *,
    norm: str = "norm",
    inner_lr: float = 0.1,
    inner_steps: int = 5,
    multi_step_until: int = 5000,
    first_order_until: int = 0,
    loss: losses.Loss = losses.cross_entropy,
    adjoint: Adjoint = MixedMode(),
) -> MetaLearner:
    """MAML++: MAML with a multi-step loss, learned rates and norms of each step.

    Args:
        model: the network; its parameters are a dict with the layers' names as keys.
        norm: what the names of its norm layers start with; they are not adapted, and
            each inner step learns its own. There may be none.
        inner_lr: where the rates alpha start.
        inner_steps: gradient steps of adaptation, in training and test.
        multi_step_until: meta-steps over which the loss goes from all inner steps to the
            last (10 epochs of 500 in the paper).
        first_order_until: meta-steps that take inner gradients as constants.
        loss: loss of one example, for adaptation and for the outer objective.
        adjoint: how to differentiate through the inner loop after that.

    Returns: a `MetaLearner`; its params are a `MAMLPlusPlus`, `adapted` a tree of the
        model's parameters. `loss` judges the last step; `objective`, which `fit` and
        `make_step` use, is annealed.
    Raises: ValueError if the parameters are no dict, for `inner_steps` below 1, or an
        adjoint that gives no gradient for rates or norms (`FirstOrder`, `Implicit`).
    """
    checks.check_models(model=model)
    checks.check_numbers(least=0, inner_lr=inner_lr)
    checks.check_sizes(inner_steps=inner_steps)
    until = {"multi_step_until": multi_step_until}
    checks.check_sizes(0, first_order_until=first_order_until, **until)
    checks.check_names(norm=norm)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    if not isinstance(shapes, dict):
        raise ValueError(
            "model: expected parameters as a dict of layers, got "
            f"{type(shapes).__name__}"
        )
    whole = support_objective(model, loss)
    predict = predictor(model)

    def objective(theta, context, batch):
        support, norms = batch
        return whole(theta | norms, context, support)

    def init(key):
        layers = model.init(key)
        norms = {n: layer for n, layer in layers.items() if n.startswith(norm)}
        theta = {n: layer for n, layer in layers.items() if n not in norms}
        repeated = lambda a: jnp.tile(a[None], (inner_steps, *(1,) * a.ndim))
        rates = lambda w: jnp.full(inner_steps, inner_lr, w.dtype)
        return MAMLPlusPlus(
            theta, jax.tree.map(repeated, norms), jax.tree.map(rates, theta)
        )

    descend = inner.descent(
        "maml_plus_plus",
        objective,
        steps=inner_steps,
        adjoint=adjoint,
        rule=_rule,
        learns=("start", "rule", "context"),
    )
    first_order = replace(descend, adjoint=FirstOrder())

    def path(params, support, descend):
        """The model's parameters after each step, on a leading axis."""
        _check_steps(params, inner_steps)
        theta = descend(
            params.theta,
            (),
            support,
            hyper=params.alpha,
            xs=params.norms,
            trajectory=True,
        )
        return theta | params.norms

    def adapt(params, support, key=None):
        del key  # deterministic
        return jax.tree.map(lambda a: a[-1], path(params, support, descend))

    judge = query_metrics(predict, loss)
    final_loss = query_loss(adapt, predict, loss)

    def multi_step_loss(params, task: Task, step, descend):
        steps = path(params, task.support, descend)
        each = lambda w, k: judge(w, inner.at_step(task, k))  # other noise at each step
        values, metrics = jax.vmap(each)(steps, jnp.arange(inner_steps))
        v = _weights(step / max(1, multi_step_until), inner_steps)
        last = jax.tree.map(lambda a: a[-1], metrics)
        return jnp.sum(v.astype(values.dtype) * values), last

    def annealed_loss(params, task: Task, key, step):
        exact = lambda: multi_step_loss(params, task, step, descend)
        annealed = lambda: jax.lax.cond(
            step < multi_step_until, exact, lambda: final_loss(params, task, key)
        )
        if not first_order_until:
            return annealed()
        cheap = lambda: multi_step_loss(params, task, step, first_order)
        return jax.lax.cond(step < first_order_until, cheap, annealed)

    return MetaLearner(init, adapt, predict, final_loss, annealed_loss)
