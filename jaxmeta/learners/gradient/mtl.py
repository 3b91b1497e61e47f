"""Meta-transfer learning (MTL): scale and shift a frozen, pre-trained network.

Sun, Liu, Chua, Schiele. Meta-Transfer Learning for Few-Shot Learning. CVPR 2019, arXiv
1812.02391. Equation 5, for the frozen neurons (W, b) of each layer:

    SS(X; W, b, Phi_S1, Phi_S2) = (W o Phi_S1) X + (b + Phi_S2)

The inner loop adapts the classifier alone; the outer one learns its start, the scales
and the shifts, which are a fraction of the network's size (the same for all positions of
a kernel).

Departures: tasks are those of the sampler; the paper's hard-task meta-batches are not
here.

Meta-parameters: Phi_S1, Phi_S2 and the head.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, inner, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.gradient.heads import head_adapter
from jaxmeta.learners.gradient.parts import check_layer
from jaxmeta.learners.objectives import predictor, query_loss, support_objective
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model, PyTree


class MTL(NamedTuple):
    """Meta-parameters of MTL."""

    scale: list[jax.Array]  # Phi_S1: [1, ..., in, out] of a kernel, [1, out] if dense
    shift: list[jax.Array]  # Phi_S2: like every vector (bias, offset, scale of a norm)
    head: PyTree


def _scale_shape(w) -> tuple[int, ...]:
    spatial = w.shape[:-2] or w.shape[:-1]
    return (*(1,) * len(spatial), *w.shape[len(spatial) :])


def _scaled_and_shifted(body, params):
    leaves, tree = jax.tree.flatten(body)
    scale, shift = iter(params.scale), iter(params.shift)
    return jax.tree.unflatten(
        tree, [w * next(scale) if w.ndim >= 2 else w + next(shift) for w in leaves]
    )


@register(
    paper="Sun et al. 2019, arXiv 1812.02391",
    learns=("classification", "regression"),
    networks=lambda n: [n.predictor()],
)
def mtl(
    model: Model,
    *,
    frozen: PyTree = None,
    seed: int = 0,
    head: str = "head",
    inner_lr: float | optax.Schedule = 0.01,
    inner_steps: int = 10,
    loss: losses.Loss = losses.cross_entropy,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = optax.sgd,
) -> MetaLearner:
    """MTL: learn to scale and shift a network that is itself left as it is.

    Args:
        model: the network; its parameters are a dict with the layers' names as keys.
        frozen: its pre-trained parameters, a tree like the model's, with any head or
            none; None = random ones.
        seed: where those come from, `jax.random.key(seed)`.
        head: name of the layer that is adapted.
        inner_lr: step size of adaptation; a number, or a schedule of the step.
        inner_steps: gradient steps of adaptation.
        loss: loss of one example, for adaptation and for the outer objective.
        adjoint: how to differentiate through the inner loop.
        rule: makes the inner update rule from `inner_lr`, as `optax.sgd` does.

    Returns: a `MetaLearner`; its params are an `MTL`, `adapted` a tree of the model's
        parameters.
    Raises: ValueError if the model has no layer of that name, `frozen` is not a tree like
        the model's, or as `maml`.
    """
    checks.check_seeds(seed=seed)
    check_layer(model, head, "head")
    descend = inner.descent(
        "mtl",
        support_objective(model, loss),
        steps=inner_steps,
        adjoint=adjoint,
        rule=rule,
        inner_lr=inner_lr,
    )
    adapt_head = head_adapter(model, head, loss, descend)
    without_head = lambda tree: {n: a for n, a in tree.items() if n != head}
    expected = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    shapes = lambda tree: jax.tree.map(jnp.shape, without_head(tree))
    if frozen is not None and not isinstance(frozen, Mapping):
        raise ValueError(
            "frozen: expected parameters as a dict of layers, got "
            f"{type(frozen).__name__}"
        )
    if frozen is not None and shapes(frozen) != shapes(expected):
        raise ValueError(
            f"frozen: expected parameters of shapes {shapes(expected)}, got "
            f"{shapes(frozen)}"
        )

    def body():
        params = frozen
        if params is None:
            with jax.ensure_compile_time_eval():  # numbers, not a part of each program
                params = model.init(jax.random.key(seed))
        return without_head(params)

    def init(key):
        leaves = jax.tree.leaves(body())
        return MTL(
            [jnp.ones(_scale_shape(w), w.dtype) for w in leaves if w.ndim >= 2],
            [jnp.zeros_like(w) for w in leaves if w.ndim < 2],
            model.init(key)[head],
        )

    def adapt(params, support, key=None):
        del key  # deterministic
        theta = _scaled_and_shifted(body(), params) | {head: params.head}
        return adapt_head(theta, support)

    predict = predictor(model)
    return MetaLearner(init, adapt, predict, query_loss(adapt, predict, loss))
