"""Meta-SGD: a learned step size for every weight.

Li, Zhou, Chen, Li. Meta-SGD: Learning to Learn Quickly for Few-Shot Learning. 2017,
arXiv 1707.09835. Equation 2, with a product of vectors entry by entry:

    theta' = theta - alpha o grad L_train(theta)

Departures: alpha starts as one number by default; the paper draws it from 0.005..0.1.

Meta-parameters: theta, and alpha of the same shape.
"""

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.gradient.learned_rule import learned_rule
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model


def _scale_by_negative(alpha) -> optax.GradientTransformation:
    """-alpha o gradient."""
    step = lambda g, w: jax.tree.map(lambda a, g: -a * g, alpha, g)
    return optax.stateless(step)


@register(
    paper="Li et al. 2017, arXiv 1707.09835",
    learns=("classification", "regression"),
    networks=lambda n: [n.predictor()],
)
def meta_sgd(
    model: Model,
    *,
    inner_lr: float | tuple[float, float] = 0.01,
    inner_steps: int = 1,
    loss: losses.Loss = losses.cross_entropy,
    adjoint: Adjoint = MixedMode(),
) -> MetaLearner:
    """Meta-SGD: learn initialisation, direction and step size of adaptation.

    Args:
        model: the network; its parameters are all adapted.
        inner_lr: where every entry of alpha starts; a pair (low, high) draws each of
            them uniformly from there, as the paper does.
        inner_steps: gradient steps of adaptation, all with the same alpha.
        loss: loss of one example, for adaptation and for the outer objective.
        adjoint: how to differentiate through the inner loop.

    Returns: a `MetaLearner`; its params are a `LearnedRule(theta, phi=alpha)`.
    Raises: ValueError for a negative `inner_lr` or `inner_steps`, or an adjoint that
        gives no gradient for step sizes (`FirstOrder`, `Implicit`).
    """
    if not isinstance(inner_lr, tuple):
        checks.check_numbers(least=0, inner_lr=inner_lr)
        inner_lr = (inner_lr, inner_lr)
    checks.check_ranges(least=0, inner_lr=inner_lr)
    checks.check_sizes(0, inner_steps=inner_steps)
    low, high = inner_lr

    def init_rule(key, theta):
        leaves, tree = jax.tree.flatten(theta)
        keys = jax.random.split(key, len(leaves))
        if low == high:
            return jax.tree.map(lambda w: jnp.full_like(w, low), theta)
        draw = lambda key, w: jax.random.uniform(key, w.shape, w.dtype, low, high)
        return jax.tree.unflatten(tree, map(draw, keys, leaves))

    return learned_rule(
        model,
        _scale_by_negative,
        init_rule,
        inner_steps=inner_steps,
        loss=loss,
        adjoint=adjoint,
        name="meta_sgd",
    )
