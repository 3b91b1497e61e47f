"""T-Nets: a learned linear transformation after every layer warps the inner gradient.

Lee, Choi. Gradient-Based Meta-Learning with Learned Layerwise Metric and Subspace. ICML
2018, arXiv 1801.05558. Section 3.1: a layer computes T W x; the inner loop adapts W,
the outer loop learns T as well, so a step of W moves the layer by

    T T' (gradient in the output space) x'

a learned metric. WarpGrad (arXiv 1909.00025) puts any network where T is.

Departures:
- T multiplies kernels alone, T W x + b; in the authors' code it multiplies the bias as
  well, T (W x + b).
- MT-nets' learned masks, which choose what is adapted, are not here.
- The inner loss is the mean over the support examples; the authors' code sums the
  cross-entropy over them and divides by the shots, so that a step of the same alpha is
  `ways` times as long.

Meta-parameters: theta, the model's parameters (W and the rest), and T.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import inner, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.objectives import predictor, query_loss, support_objective
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, PyTree


class TNet(NamedTuple):
    """Meta-parameters of a T-net."""

    theta: PyTree  # the model's parameters, adapted
    t: list[jax.Array]  # [out, out] for each kernel of theta, not adapted


def _is_kernel(w) -> bool:
    return w.ndim >= 2


def _transformed(theta, t):
    """The model's parameters with T W for each kernel W [..., in, out]."""
    leaves, tree = jax.tree.flatten(theta)
    each = iter(t)
    return jax.tree.unflatten(
        tree, [w @ next(each) if _is_kernel(w) else w for w in leaves]
    )


@register(
    paper="Lee and Choi 2018, arXiv 1801.05558",
    learns=("classification", "regression"),
    networks=lambda n: [n.predictor()],
)
def tnet(
    model: Model,
    *,
    inner_lr: float | optax.Schedule = 0.01,
    inner_steps: int = 1,
    loss: losses.Loss = losses.cross_entropy,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = optax.sgd,
) -> MetaLearner:
    """T-net: MAML inside a learned linear warp of every layer.

    Args:
        model: the network; its parameters with two axes or more are kernels, with the
            output channels last, and get a T, which starts as the identity (MAML).
        inner_lr: alpha, step size of adaptation; a number, or a schedule of the step.
        inner_steps: gradient steps of adaptation.
        loss: loss of one example, for adaptation and for the outer objective.
        adjoint: how to differentiate through the inner loop.
        rule: makes the inner update rule from `inner_lr`, as `optax.sgd` does.

    Returns: a `MetaLearner`; its params are a `TNet`, `adapted` a tree of the model's
        parameters with T W in the place of W.
    Raises: ValueError as `maml`, or for an adjoint that gives no gradient for T by way of
        the inner gradients (`FirstOrder`).
    """
    whole = support_objective(model, loss)

    def objective(theta, t, batch):
        return whole(_transformed(theta, t), (), batch)

    def init(key):
        theta = model.init(key)
        kernels = [w for w in jax.tree.leaves(theta) if _is_kernel(w)]
        return TNet(theta, [jnp.eye(w.shape[-1], dtype=w.dtype) for w in kernels])

    descend = inner.descent(
        "tnet",
        objective,
        steps=inner_steps,
        adjoint=adjoint,
        rule=rule,
        inner_lr=inner_lr,
        learns=("start", "context"),
    )

    def adapt(params, support, key=None):
        del key  # deterministic
        theta = descend(params.theta, params.t, support)
        return _transformed(theta, params.t)

    predict = predictor(model)
    return MetaLearner(init, adapt, predict, query_loss(adapt, predict, loss))
