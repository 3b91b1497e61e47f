"""Meta-Curvature: a learned Kronecker-factored transform of inner gradients.

Park, Oliva. Meta-Curvature. NeurIPS 2019, arXiv 1902.03356. For the gradient G of a
convolution, [positions, in, out], with a matrix on each axis (section 4.1, equation 4):

    MC(G) = G x_1 M_f x_2 M_i x_3 M_o,    theta' = theta - alpha MC(grad L)

A dense kernel [in, out] has M_i and M_o, a vector one matrix.

Departures:
- A vector has a full matrix; the authors' code has one factor for each entry.
- The inner loss is the mean over the support examples; the authors' code sums the
  cross-entropy over them and divides by the shots, so that a step of the same alpha is
  `ways` times as long.

Meta-parameters: theta, and the matrices, which start as the identity (MAML).
"""

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.gradient.learned_rule import learned_rule
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model


def _axes(w) -> tuple[int, ...]:
    """A leaf's shape with the positions of a kernel in one axis."""
    if w.ndim < 2:
        return (w.size,)
    positions = w.size // (w.shape[-2] * w.shape[-1])
    return (*((positions,) if w.ndim > 2 else ()), *w.shape[-2:])


def _transform(g, matrices):
    """A matrix on each axis of a gradient."""
    out = jnp.reshape(g, _axes(g))
    for axis, m in enumerate(matrices):
        out = jnp.moveaxis(jnp.tensordot(m, out, (1, axis)), 0, axis)
    return jnp.reshape(out, g.shape)


@register(
    paper="Park and Oliva 2019, arXiv 1902.03356",
    learns=("classification", "regression"),
    networks=lambda n: [n.predictor()],
)
def meta_curvature(
    model: Model,
    *,
    inner_lr: float = 0.01,
    inner_steps: int = 1,
    loss: losses.Loss = losses.cross_entropy,
    adjoint: Adjoint = MixedMode(),
) -> MetaLearner:
    """Meta-Curvature: MAML with learned factors of a preconditioner.

    Args:
        model: the network; its parameters are all adapted.
        inner_lr: alpha, step size of adaptation.
        inner_steps: gradient steps of adaptation.
        loss: loss of one example, for adaptation and for the outer objective.
        adjoint: how to differentiate through the inner loop.

    Returns: a `MetaLearner`; its params are a `LearnedRule(theta, phi)`, phi a list with
        one list of matrices [n, n] for each leaf of theta.
    Raises: ValueError for a negative `inner_lr` or `inner_steps`, or an adjoint that
        gives no gradient for the matrices (`FirstOrder`, `Implicit`).
    """
    checks.check_numbers(least=0, inner_lr=inner_lr)
    checks.check_sizes(0, inner_steps=inner_steps)

    def init_rule(key, theta):
        del key  # the identity
        eyes = lambda w: [jnp.eye(n, dtype=w.dtype) for n in _axes(w)]
        return [eyes(w) for w in jax.tree.leaves(theta)]

    def rule(phi):
        def update(g, _):
            leaves, tree = jax.tree.flatten(g)
            curved = [_transform(g, m) for g, m in zip(leaves, phi, strict=True)]
            return jax.tree.unflatten(tree, [-inner_lr * c for c in curved])

        return optax.stateless(update)

    return learned_rule(
        model,
        rule,
        init_rule,
        inner_steps=inner_steps,
        loss=loss,
        adjoint=adjoint,
        name="meta_curvature",
    )
