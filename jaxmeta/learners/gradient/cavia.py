"""CAVIA: adapt a few context parameters, share the network.

Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson. Fast Context Adaptation via Meta-Learning.
ICML 2019, arXiv 1810.03642. Equations 4 and 6, with phi_0 = 0 in every task:

    phi_i = phi_0 - alpha grad_phi L_support(phi_0, theta)
    theta <- theta - beta grad_theta sum_i L_query(phi_i, theta)

Departures: `models.conv4` scales and shifts after the relu of its third block, by 1 + a
layer of phi; the authors' code does so before the relu, by the layer itself.

Meta-parameters: theta, the model's parameters without the context.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxmeta import inner, losses
from jaxmeta.adjoints import Adjoint, MixedMode
from jaxmeta.learners.gradient.parts import check_layer
from jaxmeta.learners.objectives import predictor, query_loss, support_objective
from jaxmeta.learners.registry import register
from jaxmeta.types import MetaLearner, Model


@register(
    paper="Zintgraf et al. 2019, arXiv 1810.03642",
    learns=("classification", "regression"),
    networks=lambda n: [n.predictor(context=100 if n.facts.ways else 5)],
    keeps=("inner_lr",),  # a step of the context, not of the weights
)
def cavia(
    model: Model,
    *,
    context: str = "context",
    inner_lr: float | optax.Schedule = 1.0,
    inner_steps: int = 1,
    loss: losses.Loss = losses.cross_entropy,
    adjoint: Adjoint = MixedMode(),
    rule: Callable[..., optax.GradientTransformation] = optax.sgd,
) -> MetaLearner:
    """CAVIA: meta-learn the network, adapt its context parameters from zero.

    Args:
        model: a network with context parameters as one entry of its parameters, e.g.
            `jm.models.mlp(context=5)` (joined to the inputs) or
            `jm.models.conv4(context=100)` (FiLM after the third block).
        context: name of that entry.
        inner_lr: alpha, step size of adaptation; a number, or a schedule of the step.
        inner_steps: gradient steps of adaptation.
        loss: loss of one example, for adaptation and for the outer objective.
        adjoint: how to differentiate through the inner loop; any will do, since nothing
            that is learned is reached through it alone.
        rule: makes the inner update rule from `inner_lr`, as `optax.sgd` does.

    Returns: a `MetaLearner`; its params are the model's without the context, `adapted`
        the model's with it.
    Raises: ValueError if the model has no entry of that name, or as `maml`.
    """
    check_layer(model, context, "context")
    whole = support_objective(model, loss)

    def objective(phi, theta, batch):
        return whole(theta | {context: phi}, (), batch)

    def init(key):
        return {n: layer for n, layer in model.init(key).items() if n != context}

    descend = inner.descent(
        "cavia",
        objective,
        steps=inner_steps,
        adjoint=adjoint,
        rule=rule,
        inner_lr=inner_lr,
        learns=(),
    )

    def adapt(params, support, key=None):
        del key  # deterministic
        shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))[context]
        dtype = jax.tree.leaves(params)[0].dtype
        phi = jax.tree.map(lambda s: jnp.zeros(s.shape, dtype), shapes)  # phi_0
        phi = descend(phi, params, support)
        return params | {context: phi}

    predict = predictor(model)
    return MetaLearner(init, adapt, predict, query_loss(adapt, predict, loss))
